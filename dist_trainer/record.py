"""The verb `record`: a trained policy plays, and the pictures go into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_trainer.open_session import open_session
from dist_trainer.plan_view import ViewPlan
from dist_trainer.session import Session
from dist_trainer.verb_configs import RecordConfig
from dist_trainer.video import write_video


def pictures(session: Session, config: RecordConfig) -> Iterator[NDArray[np.uint8]]:
    """(height, width, 3) each: every step's, the last ones of episodes among them."""
    draw = _with_panel(session, config.scale) if config.overlay else lambda: enlarged(session.picture(), config.scale)
    for _ in range(config.steps + 1):
        yield draw()
        if session.episodes >= config.episodes:
            return
        session.step()


def enlarged(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return picture.repeat(factor, 0).repeat(factor, 1)


def _with_panel(session: Session, scale: int) -> Callable[[], NDArray[np.uint8]]:
    import pygame  # an extra, which videos without a panel do without

    from dist_trainer.panel import Mode
    from dist_trainer.stage import Stage, pixels

    assert session.spec.picture is not None
    stage = Stage(session.spec.picture, scale)
    surface = pygame.Surface(stage.size)

    def draw() -> NDArray[np.uint8]:
        stage.draw(surface, session, Mode())
        return pixels(surface)

    return draw


def run_record(config: RecordConfig, plan: ViewPlan) -> int:
    session = open_session(plan, config)
    count = write_video(Path(config.output), pictures(session, config), plan.fps)
    print(f"{config.output}: {count} pictures, {session.episodes} episodes of {plan.env.name}", end="")
    print(f", return {session.last_return[0]:.4g}" if session.last_return[0] is not None else ", not one finished")
    return 0

"""Computes where the ball arrives, and meets it off the paddle's middle, so that it leaves steeply."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

STAY, UP, DOWN = 0, 1, 2
WIDTH, HEIGHT, FASTEST = 160.0, 120.0, 3.0  # the units of the observation's positions and speeds
STEP = 10.0  # the paddle's way in one step: 4 frames of 2.5; it meets balls up to 13 from its middle
OFF_CENTRE = 6.0  # so that the ball is met within 13, wherever in the step's grid the paddle stops


def arrival(x: NDArray[Any], y: NDArray[Any], vx: NDArray[Any], vy: NDArray[Any]) -> NDArray[Any]:
    """Heights at which balls cross the right border, reflected at the top and the bottom."""
    unfolded = y + vy * (WIDTH - x) / np.maximum(vx, 1e-3)
    within = np.mod(unfolded, 2 * HEIGHT)
    return np.where(within > HEIGHT, 2 * HEIGHT - within, within)


def player(pool: EnvPool) -> Choose:
    def choose(pool: EnvPool) -> NDArray[Any]:
        seen = pool.observations.T.astype(np.float64)
        paddle, rival, y = ((seen[i] + 1) * HEIGHT / 2 for i in (0, 1, 3))
        x, vx, vy = (seen[2] + 1) * WIDTH / 2, seen[4] * FASTEST, seen[5] * FASTEST
        at = arrival(x, y, vx, vy)
        # Met above the paddle's middle it goes up: where the rival is not.
        target = np.where(vx > 0, np.where(rival > HEIGHT / 2, at + OFF_CENTRE, at - OFF_CENTRE), HEIGHT / 2)
        away = target - paddle
        return np.select([away > STEP / 2, away < -STEP / 2], [DOWN, UP], STAY)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("pong", player, episodes, seed)

"""The verbs `watch` and `play`: a session in a window."""

from __future__ import annotations

from dist_trainer.open_session import open_session
from dist_trainer.plan_view import ViewPlan
from dist_trainer.verb_configs import PlayConfig, WatchConfig
from dist_trainer.window import Window


def run_watch(config: WatchConfig, plan: ViewPlan) -> int:
    """Raises ConfigError as open_session does."""
    Window(open_session(plan, config), plan.fps).run(config.steps)
    return 0


def run_play(config: PlayConfig, plan: ViewPlan) -> int:
    """The same."""
    Window(open_session(plan, config, always=bool(config.always)), plan.fps).run(config.steps)
    return 0

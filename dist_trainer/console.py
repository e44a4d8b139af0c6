"""What the first learner shows of the run: a dashboard on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

from rich.console import Console, RenderableType
from rich.live import Live

from dist_trainer.dashboard import Dashboard
from dist_trainer.phase_times import PhaseTimes
from dist_trainer.units import compact, duration


def progress_line(env_steps: int, total_env_steps: float, values: Mapping[str, float]) -> str:
    """Steps, steps per second, time left, scores and losses in one line."""
    speed = values["perf/env_steps_per_second"]
    left = max(0.0, total_env_steps - env_steps) / speed
    parts = [
        f"{100 * min(1.0, env_steps / total_env_steps):3.0f}%",
        f"{compact(env_steps)} steps",
        f"{compact(speed)}/s",
        f"{duration(left)} left",
    ]
    scores = {tag.removeprefix("env/"): value for tag, value in values.items() if tag.startswith("env/")}
    scores.pop("episodes", None)
    if scores.get("worker_restarts") == 0:
        del scores["worker_restarts"]
    parts += [f"{name.removeprefix('episode_')} {value:.4g}" for name, value in scores.items()]
    losses = ("policy", "value", "entropy", "approx_kl")
    parts += [f"{name.removeprefix('approx_')} {values[f'losses/{name}']:.3g}" for name in losses]
    return "  ".join(parts)


class Progress:
    """Use as a context. On a terminal the dashboard is redrawn in place, else a line is printed every `every` seconds
    of training."""

    def __init__(self, enabled: bool, title: str, total_env_steps: float, every: float = 5.0):
        self.console = Console(highlight=False)
        self.enabled, self.every, self.printed_at = enabled, every, -every
        self.dashboard = Dashboard(title, total_env_steps)
        self.live: Live | None = None
        # Not console.is_terminal: FORCE_COLOR, which a job inherits, makes that true of a log file.
        if enabled and sys.stdout.isatty() and not self.console.is_dumb_terminal:
            self.live = Live(self.dashboard, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.live:
            self.console.print(text, markup=False, soft_wrap=True)
        elif self.enabled:
            self._print(text)

    def show(self, what: RenderableType) -> None:
        """As say, of several lines."""
        if self.live:
            self.console.print(what)
        elif self.enabled:
            plain = Console(file=io.StringIO(), width=self.console.width, color_system=None, force_terminal=False)
            with plain.capture() as captured:
                plain.print(what)
            self._print("\n".join(line.rstrip() for line in captured.get().splitlines()))

    def update(
        self, env_steps: int, seconds: float, values: Mapping[str, float], times: PhaseTimes, last: bool
    ) -> None:
        """The numbers of an iteration, by TensorBoard's tags; `seconds` of training so far; `last`: of the run."""
        if self.live:
            self.dashboard.show(env_steps, seconds, values, times)
            if last:
                self.live.refresh()
        elif self.enabled and (last or seconds - self.printed_at >= self.every):
            self.printed_at = seconds
            self._print(progress_line(env_steps, self.dashboard.total_env_steps, values))

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:
            return  # a log on a full disk ends no run: what is in the buffer comes with a later line

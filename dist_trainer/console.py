"""What the first learner shows of the run: one live line on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.text import Text


def _compact(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress_line(env_steps: int, total_env_steps: float, values: Mapping[str, float]) -> str:
    """Steps, steps per second, time left, scores and losses in one line."""
    speed = values["perf/env_steps_per_second"]
    left = max(0.0, total_env_steps - env_steps) / speed
    parts = [
        f"{100 * min(1.0, env_steps / total_env_steps):3.0f}%",
        f"{_compact(env_steps)} steps",
        f"{_compact(speed)}/s",
        f"{_duration(left)} left",
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
    """Use as a context. On a terminal the line is redrawn in place, else printed every `every` seconds of training."""

    def __init__(self, enabled: bool, every: float = 5.0):
        self.console = Console(soft_wrap=True, highlight=False)
        self.enabled, self.every, self.printed_at = enabled, every, -every
        self.live = Live(console=self.console, refresh_per_second=4) if enabled and self.console.is_terminal else None

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
            self.console.print(text, markup=False)
        elif self.enabled:
            self._print(text)

    def update(self, line: str, seconds: float, last: bool) -> None:
        if self.live:
            self.live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=last)
        elif self.enabled and (last or seconds - self.printed_at >= self.every):
            self.printed_at = seconds
            self._print(line)

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)  # rich would end the process where nobody reads any more
        except BrokenPipeError:
            self.enabled = False
            # What is still in the buffer goes nowhere, instead of failing once more when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:
            return  # a log on a full disk ends no run: what is in the buffer comes with a later line

"""The run on one screen of a terminal: how far, how fast, how well, and where the time goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dist_trainer.phase_times import PHASES, PhaseTimes
from dist_trainer.units import compact, duration

WIDE = 76  # columns from which on two tables stand side by side
SPARKS = "▁▂▃▄▅▆▇█"
HISTORY = 4096  # points of the score
LOSSES = {
    "policy": "policy loss",
    "value": "value loss",
    "entropy": "entropy",
    "approx_kl": "KL",
    "clip_fraction": "clipped",
}
LEAST = 0.002  # of the time: phases that take less are left out
LAGS = 0.1  # a learner that takes so much longer than the mean is told


@dataclass
class Dashboard:
    """Rendered anew by rich whenever it refreshes the screen; `show` gives it the numbers of an iteration."""

    title: str
    total_env_steps: float
    env_steps: int = 0
    seconds: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)  # by TensorBoard's tags
    times: PhaseTimes | None = None
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def show(self, env_steps: int, seconds: float, values: Mapping[str, float], times: PhaseTimes) -> None:
        self.env_steps, self.seconds, self.values, self.times = env_steps, seconds, values, times
        if "env/episode_return" in values:
            self.scores.append(values["env/episode_return"])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Rule(Text(self.title, overflow="ellipsis", no_wrap=True), style="bright_black", align="left")
        if not self.times:
            yield Text("the first iteration is under way", style="bright_black")
            return
        yield self._progress(options.max_width)
        yield self._curve(options.max_width)
        tables: list[RenderableType] = [self._scores(), self._phases()]
        if options.max_width < WIDE:
            yield Group(*tables)
        else:
            grid = Table.grid(padding=(0, 3), expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(*tables)
            yield grid
        yield self._learners(self.times)

    def _progress(self, width: int) -> RenderableType:
        speed = self.values["perf/env_steps_per_second"]
        left = max(0.0, self.total_env_steps - self.env_steps) / max(speed, 1e-9)
        facts = Text.assemble(
            (f"{100 * min(1.0, self.env_steps / self.total_env_steps):.0f} %", "bold"),
            f"  {compact(self.env_steps)} of {compact(self.total_env_steps)} steps  ",
            (f"{compact(speed)}/s", "bold cyan"),
            f"  {duration(self.seconds)} passed, {duration(left)} left",
            no_wrap=True,
            overflow="ellipsis",
        )
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        bar = ProgressBar(self.total_env_steps, min(self.env_steps, self.total_env_steps))
        grid.add_row(facts, bar if width >= WIDE else "")
        return grid

    def _curve(self, width: int) -> RenderableType:
        """The score over the whole run."""
        if not self.scores:
            return Text("no episode has ended yet", style="bright_black")
        name, score = "return ", f"{self.scores[-1]:.4g} "
        room = max(1, width - len(name) - len(score))
        return Text.assemble(
            (name, "bright_black"), (score, "bold green"), (sparkline(list(self.scores), room), "green")
        )

    def _scores(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bright_black", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        means = {tag.removeprefix("env/"): x for tag, x in self.values.items() if tag.startswith("env/")}
        for name, value in means.items():
            if name not in ("episode_return", "episodes", "worker_restarts"):
                table.add_row(name.replace("_", " "), Text(f"{value:.4g}", style="green"))
        if means.get("worker_restarts"):
            table.add_row("worker restarts", Text(f"{means['worker_restarts']:.0f}", style="bold yellow"))
        for tag, name in LOSSES.items():
            table.add_row(name, f"{self.values[f'losses/{tag}']:.3g}")
        table.add_row("learning rate", f"{self.values['optimizer/learning_rate']:.3g}")
        if self.values["optimizer/undone_updates"]:
            table.add_row("update", Text("undone: not finite", style="bold red"))
        return table

    def _phases(self) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(style="bright_black", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=1)
        seconds = {name: self.values[f"perf/{name}_seconds"] for name in (*PHASES, "other")}
        whole = sum(seconds.values()) or 1.0
        for name, part in seconds.items():
            share = part / whole
            if share >= LEAST:
                bar = Bar(1, 0, share, color="cyan" if share < 0.5 else "bright_cyan")
                table.add_row(name, f"{1000 * part:.1f} ms", f"{100 * share:.0f} %", bar)
        return table

    def _learners(self, times: PhaseTimes) -> RenderableType:
        count = len(times.learners)
        if count == 1:
            return Text("1 learner", style="bright_black")
        rank, excess = times.slowest()
        if excess > LAGS:
            return Text(
                f"{count} learners; learner {rank} takes {100 * excess:.0f} % longer than the mean", style="yellow"
            )
        return Text(f"{count} learners, all within {100 * LAGS:.0f} % of the mean", style="bright_black")


def sparkline(values: list[float], width: int) -> str:
    """The last values of a curve, as many as fit at even steps, from its lowest to its highest."""
    if len(values) > width:
        values = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if not high > low:
        return SPARKS[0] * len(values)
    return "".join(SPARKS[min(len(SPARKS) - 1, int((value - low) / (high - low) * len(SPARKS)))] for value in values)

"""How a sweep goes: a live table on a terminal, elsewhere a line for each trial that ends."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dist_trainer.sweep_plan import SweepPlan
from dist_trainer.sweep_study import ATTEMPTS, REASON, SETTINGS, StudyFolder, cost_of
from dist_trainer.units import compact, duration

WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
BEST = 10  # rows of finished trials


def is_over(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> bool:
    return len(trials) >= plan.config.trials and all(trial.state.is_finished() for trial in trials)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete ones, the best first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def summary(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> str:
    counts = {word: sum(trial.state == state for trial in trials) for state, word in WORDS.items()}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{len(trials)} of {plan.config.trials} trials begun: {told or 'none yet'}"


def cells(plan: SweepPlan, trial: FrozenTrial, columns: Sequence[str]) -> list[str]:
    """Number, state, score, cost, then the settings of `columns`."""
    reports = trial.intermediate_values
    last = reports[max(reports)] if reports else None
    score = trial.value if trial.state.is_finished() else last
    cost = cost_of(trial, plan.config)
    state = WORDS[trial.state]
    if trial.state == TrialState.RUNNING:
        state += f" {max(reports, default=0)}/{plan.config.reports}"
    if trial.user_attrs.get(ATTEMPTS) and trial.state != TrialState.FAIL:
        state += f", {trial.user_attrs[ATTEMPTS]} crashed"
    shown_cost = "" if cost is None else duration(cost) if plan.config.cost == "seconds" else compact(cost)
    settings = trial.user_attrs.get(SETTINGS, {})
    return [
        *(str(trial.number), state, "" if score is None else f"{score:.4g}", shown_cost),
        *(written(settings[name]) if name in settings else "" for name in columns),
    ]


def written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def settings_of(plan: SweepPlan) -> list[str]:
    return list(dict.fromkeys(knob.setting for knob in plan.space.knobs))


def table(plan: SweepPlan, trials: Sequence[FrozenTrial], title: str) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = settings_of(plan)
    for name in ("trial", "state", "score", plan.config.cost):
        shown.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for name in columns:
        shown.add_column(name.rpartition(".")[2], justify="right", overflow="fold")
    for trial in trials:
        shown.add_row(*cells(plan, trial, columns))
    return shown


class Progress:
    """Use as a context."""

    def __init__(self, plan: SweepPlan, study: StudyFolder, console: Console):
        self._plan, self._study, self._console = plan, study, console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._ended = {trial.number for trial in study.trials() if trial.state.is_finished()}

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def update(self) -> None:
        trials = self._study.trials()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._ended:
                self._ended.add(trial.number)
                if not self._live or trial.state == TrialState.FAIL:
                    self.say(self._line(trial))
        if self._live:
            under_way = [trial for trial in trials if not trial.state.is_finished()]
            title = f"{self._study.folder}: {summary(self._plan, trials)}"
            rows = [*under_way, *ranked(trials)[:BEST]]
            self._live.update(Group(table(self._plan, rows, title), Text(self._costs(trials))), refresh=True)

    def _costs(self, trials: Sequence[FrozenTrial]) -> str:
        total = sum(cost_of(trial, self._plan.config) or 0.0 for trial in trials)
        shown = duration(total) if self._plan.config.cost == "seconds" else compact(total)
        return f"{self._plan.config.cost} of all ended trials: {shown}"

    def _line(self, trial: FrozenTrial) -> str:
        number, state, score, cost, *values = cells(self._plan, trial, settings_of(self._plan))
        told = [f"trial {number} {state}"]
        if trial.state == TrialState.FAIL:
            told.append(str(trial.user_attrs.get(REASON, "")))
        if score:
            told.append(f"score {score}")
        if cost:
            told.append(f"{self._plan.config.cost} {cost}")
        names = settings_of(self._plan)
        told.append(" ".join(f"{name}={value}" for name, value in zip(names, values, strict=True) if value))
        return "; ".join(told)

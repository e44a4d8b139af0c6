"""Every trial's score against what it has cost, and the front of those that nothing cheaper has beaten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from dist_trainer.sweep_plan import SweepPlan
from dist_trainer.sweep_study import cost_of

UNITS = {"seconds": "seconds of training", "env_steps": "environment steps"}


def draw_pareto(plan: SweepPlan, trials: Sequence[FrozenTrial], front: Sequence[FrozenTrial], output: Path) -> None:
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for state, colour, name in ((TrialState.PRUNED, "0.75", "pruned"), (TrialState.COMPLETE, "C0", "complete")):
        found = [trial for trial in trials if trial.state == state and trial.value is not None]
        axes.scatter(
            [cost_of(trial, plan.config) or 0.0 for trial in found],
            [trial.value or 0.0 for trial in found],
            color=colour,
            s=16,
            label=name,
        )
    costs = [cost_of(trial, plan.config) or 0.0 for trial in front]
    axes.step(costs, [trial.value or 0.0 for trial in front], where="post", color="C3", label="Pareto front")
    for trial, cost in zip(front, costs, strict=True):
        axes.annotate(
            str(trial.number), (cost, trial.value or 0.0), xytext=(3, 4), textcoords="offset points", fontsize=7
        )
    axes.set_xscale("log")
    axes.set_xlabel(UNITS[plan.config.cost])
    axes.set_ylabel(plan.metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(output, dpi=130)

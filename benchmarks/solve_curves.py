"""Learning curves of runs, one small picture for each environment; for benchmarks/solve.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_trainer.scores import load_scores

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = 4


@dataclass(frozen=True)
class Curve:
    metric: str
    steps: list[int]
    values: list[float]

    def first_at(self, score: float) -> int | None:
        """Steps until the score was reached."""
        return next((step for step, value in zip(self.steps, self.values, strict=True) if value >= score), None)


def read_curve(run_dir: Path, tag: str) -> Curve:
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars(tag)
    return Curve(tag.removeprefix("env/"), [point.step for point in points], [point.value for point in points])


def draw_curves(curves: Mapping[str, Sequence[Curve]], output: Path) -> None:
    """One panel for each environment."""
    columns = min(COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.4 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (env, found) in zip(axes.flat, curves.items(), strict=False):
        _draw(axis, env, found)
    figure.supxlabel("environment steps (millions)", fontsize=9)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def draw_curve(env: str, found: Sequence[Curve], output: Path) -> None:
    figure, axis = plt.subplots(figsize=(3.6, 2.4), layout="constrained")
    _draw(axis, env, found)
    axis.set_xlabel("environment steps (millions)", fontsize=8)
    figure.savefig(output, dpi=100, metadata={"Software": ""})
    plt.close(figure)


def _draw(axis: Axes, env: str, found: Sequence[Curve]) -> None:
    """One line for each seed; dotted: the random and the reference player, where they are of the same metric."""
    for curve in found:
        axis.plot([step / 1e6 for step in curve.steps], curve.values, color="tab:blue", alpha=0.8, linewidth=1.2)
    known = load_scores()[env]
    if known.metric == found[0].metric:
        for value, colour in ((known.random, "tab:gray"), (known.reference, "tab:green")):
            axis.axhline(value, color=colour, linestyle=":", linewidth=1.2)
    axis.set_title(f"{env}: {found[0].metric.replace('_', ' ')}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)

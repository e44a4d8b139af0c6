"""The pictures of a benchmark's report, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dist_trainer.benchmark_report import THRESHOLDS, Part, Report, Standing
from dist_trainer.compare_picture import figure_of
from dist_trainer.run_groups import Comparison, RunGroup

WIDTH = 8.0  # inches


def pictures(report: Report) -> dict[str, bytes]:
    """By title."""
    found: dict[str, bytes] = {}
    for part in report.parts:
        if part.name in ("default", "tuned"):
            found[f"{part.name}: all environments together"] = _aggregates(part)
            found[f"{part.name}: share of runs above a score"] = _profiles(part)
            if curves := _curves(report, part):
                found[f"{part.name}: learning curves, mean and worst to best seed"] = _png(figure_of(curves, "steps"))
        else:
            found[f"{part.name}: interquartile mean"] = _sensitivity(part)
    return found


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _clean(panel: Axes) -> None:
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def colours(part: Part) -> Mapping[str, str]:
    return {standing.contestant.name: f"C{i % 10}" for i, standing in enumerate(part.standings)}


def _aggregates(part: Part) -> bytes:
    ranked = sorted(part.standings, key=lambda standing: standing.iqm.point)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.32 * len(ranked)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    shown = {"interquartile mean": "iqm", "mean": "mean", "optimality gap (less is better)": "optimality_gap"}
    for panel, (title, name) in zip(panels, shown.items(), strict=True):
        for row, standing in enumerate(ranked):
            estimate = getattr(standing, name)
            colour = colours(part)[standing.contestant.name]
            panel.barh(row, estimate.high - estimate.low, left=estimate.low, height=0.6, color=colour, alpha=0.55)
            panel.plot([estimate.point] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.5)
        panel.use_sticky_edges = False  # room at both ends of the bars
        panel.set_title(title, fontsize=9)
        panel.set_yticks(range(len(ranked)), [standing.contestant.name for standing in ranked], fontsize=8)
        _clean(panel)
    return _png(figure)


def _profiles(part: Part) -> bytes:
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    for standing in part.standings:
        colour = colours(part)[standing.contestant.name]
        panel.plot(THRESHOLDS, standing.profile, color=colour, label=standing.contestant.name)
        panel.fill_between(THRESHOLDS, *standing.profile_band, color=colour, alpha=0.12, linewidth=0)
    panel.set_xlabel("normalized score", fontsize=8)
    panel.set_ylabel("share of runs above it", fontsize=8)
    panel.legend(frameon=False, fontsize=8)
    _clean(panel)
    return _png(figure)


def _curves(report: Report, part: Part) -> list[Comparison]:
    """Of environments in which there are any: short trainings may have ended before the first episode."""
    comparisons = []
    for task in report.grid.tasks:
        groups = []
        for standing in part.standings:
            own = [r for r in report.results if r.run.contestant == standing.contestant and r.run.task == task]
            curves = [r.curve for r in own if r.curve is not None and len(r.curve.steps) > 0]
            if curves:
                groups.append(RunGroup(standing.contestant.name, curves))
        comparisons.append(Comparison(task.env, task.known.metric, task.asked, groups))
    return [comparison for comparison in comparisons if comparison.groups]


def _sensitivity(part: Part) -> bytes:
    """A line for each optimizer; its default is the larger dot."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    optimizers = dict.fromkeys(s.contestant.optimizer for s in part.standings if s.contestant.part == part.name)
    for index, optimizer in enumerate(optimizers):
        own = [s for s in part.standings if s.contestant.optimizer == optimizer]
        _line(panel, own, f"C{index % 10}", optimizer)
    panel.set_xscale("log")
    panel.set_xlabel("times the default", fontsize=8)
    panel.set_ylabel("interquartile mean", fontsize=8)
    panel.legend(frameon=False, fontsize=8)
    _clean(panel)
    return _png(figure)


def _line(panel: Axes, standings: list[Standing], colour: str, name: str) -> None:
    """The default is among them, with a factor of 1."""
    points = sorted((s.contestant.factor, s.iqm.point, s.iqm.low, s.iqm.high) for s in standings)
    factor, middle, low, high = zip(*points, strict=True)
    panel.plot(factor, middle, color=colour, marker="o", markersize=4, label=name)
    panel.fill_between(factor, low, high, color=colour, alpha=0.12, linewidth=0)
    panel.plot([1.0], [middle[factor.index(1.0)]], "o", color=colour, markersize=8)

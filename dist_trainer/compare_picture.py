"""Curves of several runs as one picture, a panel for each environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dist_trainer.run_groups import Comparison, RunGroup

COLUMNS = 3
PANEL = (4.6, 3.2)  # inches
LONGEST_NAME = 48  # characters
UNITS = {"steps": (1e6, "environment steps (millions, all learners)"), "seconds": (60.0, "minutes of training")}


def draw(comparisons: Sequence[Comparison], output: Path, axis: str) -> None:
    """`axis`: steps or seconds."""
    figure_of(comparisons, axis).savefig(output, dpi=130)


def figure_of(comparisons: Sequence[Comparison], axis: str) -> Figure:
    """`axis`: steps or seconds."""
    columns = min(COLUMNS, len(comparisons))
    rows = math.ceil(len(comparisons) / columns)
    names = list(dict.fromkeys(group.name for comparison in comparisons for group in comparison.groups))
    width = max(PANEL[0] * columns, 6.5)
    figure = Figure(figsize=(width, PANEL[1] * rows + 0.22 * len(names)), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    colours = {name: f"C{index % 10}" for index, name in enumerate(names)}
    for panel, comparison in zip(panels, comparisons, strict=False):
        _draw_panel(panel, comparison, axis, colours)
    for panel in panels[len(comparisons) :]:
        panel.set_visible(False)
    handles = [figure.axes[0].plot([], [], color=colours[name], linewidth=2)[0] for name in names]
    shown = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..." for name in names]
    figure.legend(handles, shown, loc="outside lower center", frameon=False, fontsize=8, ncols=1)
    return figure


def _draw_panel(panel: Axes, comparison: Comparison, axis: str, colours: dict[str, str]) -> None:
    for group in comparison.groups:
        _draw_group(panel, group, axis, colours[group.name])
    if comparison.score is not None:
        panel.axhline(comparison.score, color="0.5", linestyle=":", linewidth=1)
    panel.set_title(f"{comparison.env}: {comparison.metric.replace('_', ' ')}", fontsize=10)
    panel.set_xlabel(UNITS[axis][1], fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_group(panel: Axes, group: RunGroup, axis: str, colour: str) -> None:
    unit, band = UNITS[axis][0], group.band(axis)
    panel.plot(band.x / unit, band.mean, color=colour, linewidth=1.6)
    if len(group.curves) > 1:
        panel.fill_between(band.x / unit, band.low, band.high, color=colour, alpha=0.18, linewidth=0)

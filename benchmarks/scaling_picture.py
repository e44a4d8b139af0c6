"""The scaling model as one picture: predictions beside measurements, and 8 to 64 GPUs. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from benchmarks.scaling_forecast import GPUS, INFINIBAND, OF_OTHERS, TERMS, Forecast, compared, curve
from benchmarks.scaling_gpu import NETWORKS, NODE
from benchmarks.scaling_report import Check

COLORS = dict(zip((network.name for network in NETWORKS), ("#009e73", "#0072b2", "#d55e00"), strict=True))
DASHES: dict[str, tuple[float, ...]] = {"replicated": (1, 0), "sharded": (4, 2)}
OPTIMIZER_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
# Two by two of a hue: what the devices do, what the links do.
TERM_COLORS = ("#bbbbbb", "#56b4e9", "#e5e5e5", "#0072b2", "#f0b040", "#d55e00", "#8c2d04", "#cc79a7", "#777777")


def draw(checks: Sequence[Check], found: Sequence[Forecast], file: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    draw_checks(axes[0, 0], checks)
    draw_terms(axes[0, 1], [one for one in found if one.gpus == 64 and one.network == INFINIBAND])
    draw_speed(axes[1, 0], found)
    draw_efficiency(axes[1, 1], found)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def clean(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=11, loc="left")
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def draw_checks(axis: Axes, checks: Sequence[Check]) -> None:
    kinds = list(dict.fromkeys((one.where, one.iteration.optimizer, one.iteration.sync) for one in checks))
    markers = dict(zip(dict.fromkeys(where for where, _, _ in kinds), "os^Dv", strict=False))
    colors = {"replicated": "#0072b2", "sharded": "#d55e00"}
    largest = 1.1 * max(max(one.measured, one.predicted.seconds) for one in checks)
    smallest = 0.9 * min(min(one.measured, one.predicted.seconds) for one in checks)
    ends = [smallest, largest]
    axis.plot(ends, ends, color="black", linewidth=0.8)
    axis.fill_between(ends, [0.8 * x for x in ends], [1.2 * x for x in ends], color="black", alpha=0.08, linewidth=0)
    for place, optimizer, sync in kinds:
        some = [c for c in checks if (c.where, c.iteration.optimizer, c.iteration.sync) == (place, optimizer, sync)]
        filled = colors[sync] if optimizer == kinds[0][1] else "none"
        x, y = [one.measured for one in some], [one.predicted.seconds for one in some]
        label = f"{optimizer}, {sync}, {place}"
        for one in some:
            at = (one.measured, one.predicted.seconds)
            axis.annotate(str(one.learners), at, (6, -5), textcoords="offset points", fontsize=7)
        axis.scatter(
            x, y, marker=markers[place], facecolors=filled, edgecolors=colors[sync], s=42, label=label, zorder=3
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10) if smallest < tick < largest]
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        set_ticks([], minor=True)
    axis.set_xlabel("measured seconds an iteration (numbers: learners)")
    axis.set_ylabel("predicted")
    axis.legend(frameon=False, fontsize=8, loc="upper left" if len(kinds) < 6 else "lower right")
    clean(axis, "Where it was measured: predicted and measured iterations (band: 20 %)")


def draw_terms(axis: Axes, ends: Sequence[Forecast]) -> None:
    names = [f"{one.policy}, {one.optimizer}\n{'weak' if one.weak else 'strong'}, {one.sync}" for one in ends]
    left = [0.0] * len(ends)
    places = list(range(len(ends)))[::-1]
    for (term, label), color in zip(TERMS.items(), TERM_COLORS, strict=True):
        shares = [one.prediction.terms[term] / one.prediction.seconds for one in ends]
        axis.barh(places, shares, left=left, color=color, label=label, edgecolor="white", linewidth=0.4)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for place, one in zip(places, ends, strict=True):
        axis.text(1.01, place, f"{1e3 * one.prediction.seconds:.0f} ms", va="center", fontsize=8)
    axis.set_yticks(places, names, fontsize=7)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(frameon=False, fontsize=7.5, ncols=3, loc="upper center", bbox_to_anchor=(0.42, -0.06))
    clean(axis, f"64 GPUs over {INFINIBAND} (predicted): where an iteration goes")


def draw_speed(axis: Axes, found: Sequence[Forecast]) -> None:
    """Strong scaling over InfiniBand: samples per second."""
    policies = list(dict.fromkeys(one.policy for one in found))
    optimizers = list(dict.fromkeys(one.optimizer for one in found))
    for end in (one for one in found if one.gpus == 64 and one.network == INFINIBAND and not one.weak):
        row = curve(found, end)
        color = OPTIMIZER_COLORS[optimizers.index(end.optimizer) % len(OPTIMIZER_COLORS)]
        values = [one.samples_per_second / 1e6 for one in row.values()]
        line(axis, list(row), values, color, end.sync, thick=end.policy != policies[0])
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low < tick < high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.set_ylabel("million samples a second")
    legend(axis, dict(zip(optimizers, OPTIMIZER_COLORS, strict=False)), policies)
    clean(axis, f"Strong scaling (predicted), {INFINIBAND}: 524,288 samples in all")


def draw_efficiency(axis: Axes, found: Sequence[Forecast]) -> None:
    """Weak scaling of the first optimizer, by link."""
    policies, optimizer = list(dict.fromkeys(one.policy for one in found)), found[0].optimizer
    for end in (one for one in found if one.gpus == 64 and one.optimizer == optimizer and one.weak):
        gpus = [n for n in curve(found, end) if n >= NODE]
        values = [compared(found, curve(found, end)[n], NODE) for n in gpus]
        line(axis, gpus, values, COLORS[end.network], end.sync, thick=end.policy != policies[0])
    axis.axhline(OF_OTHERS, color="black", linewidth=0.8, linestyle=":")
    axis.text(8, OF_OTHERS + 0.004, "DD-PPO on 128 GPUs, against one: 84 %", fontsize=8)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylim(min(0.75, axis.get_ylim()[0]), 1.02)
    axis.set_ylabel(f"efficiency against {NODE} GPUs")
    legend(axis, COLORS, policies)
    clean(axis, f"Weak scaling (predicted), {optimizer}: 524,288 samples per {NODE} GPUs")


def line(axis: Axes, gpus: Sequence[int], values: Sequence[float], color: str, sync: str, *, thick: bool) -> None:
    width = 2.6 if thick else 1.2
    (drawn,) = axis.plot(gpus, values, marker="o", markersize=3 + width, linewidth=width, color=color)
    drawn.set_dashes(DASHES[sync])
    axis.set_xscale("log", base=2)
    axis.set_xticks(GPUS[0 if gpus[0] == 1 else 1 :], [str(n) for n in GPUS[0 if gpus[0] == 1 else 1 :]])
    axis.set_xlabel("GPUs")


def legend(axis: Axes, colors: Mapping[str, str], policies: Sequence[str]) -> None:
    """What colour, dashes and width stand for, each on its own."""
    keys = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    for sync, dashes in DASHES.items():
        keys.append(Line2D([], [], color="gray", label=sync))
        keys[-1].set_dashes(dashes)
    keys.append(Line2D([], [], color="gray", linewidth=1.2, label=policies[0]))
    if len(policies) > 1:
        keys.append(Line2D([], [], color="gray", linewidth=2.6, label=", ".join(policies[1:])))
    axis.legend(handles=keys, frameon=False, fontsize=8, loc="best")

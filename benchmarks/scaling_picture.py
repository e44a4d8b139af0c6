"""The scaling model as one picture: predictions beside measurements, and 8 to 64 GPUs. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from benchmarks.scaling_forecast import INFINIBAND, TERMS, Forecast, compared, curve
from benchmarks.scaling_gpu import NETWORKS
from benchmarks.scaling_report import Check

COLORS = dict(zip((network.name for network in NETWORKS), ("#009e73", "#0072b2", "#d55e00"), strict=True))
DASHES: dict[str, tuple[float, ...]] = {"replicated": (1, 0), "sharded": (4, 2)}
# Two by two of a hue: what the devices do, what the links do.
TERM_COLORS = ("#bbbbbb", "#56b4e9", "#e5e5e5", "#0072b2", "#f0b040", "#d55e00", "#8c2d04", "#cc79a7", "#777777")


def draw(checks: Sequence[Check], found: Sequence[Forecast], file: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(13, 10), layout="constrained")
    policies = list(dict.fromkeys(one.policy for one in found))
    optimizer = found[0].optimizer
    draw_checks(axes[0, 0], checks)
    draw_terms(axes[0, 1], [one for one in found if one.gpus == 64 and one.network == INFINIBAND])
    for axis, weak in ((axes[1, 0], False), (axes[1, 1], True)):
        draw_efficiency(axis, found, policies, optimizer, weak)
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
        axis.scatter(
            x, y, marker=markers[place], facecolors=filled, edgecolors=colors[sync], s=42, label=label, zorder=3
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10) if smallest < tick < largest]
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        set_ticks([], minor=True)
    axis.set_xlabel("measured seconds an iteration (W = 1, 2, 4, 8 learners)")
    axis.set_ylabel("predicted")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    clean(axis, "On the machine that was measured: predictions within 20 % (band)")


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
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(frameon=False, fontsize=7.5, ncols=3, loc="upper center", bbox_to_anchor=(0.42, -0.06))
    clean(axis, f"64 GPUs over {INFINIBAND} (predicted): where an iteration goes")


def draw_efficiency(axis: Axes, found: Sequence[Forecast], policies: Sequence[str], optimizer: str, weak: bool) -> None:
    for policy, width in zip((policies[0], policies[-1]), (1.2, 2.6), strict=True):
        for end in found:
            if (end.policy, end.optimizer, end.weak, end.gpus) == (policy, optimizer, weak, 64):
                row = curve(found, end)
                gpus = [n for n in row if n >= 8]
                values = [compared(found, row[n], 8) for n in gpus]
                label = f"{policy}, {end.network}, {end.sync}"
                (drawn,) = axis.plot(gpus, values, label=label, marker="o", markersize=3 + width, linewidth=width)
                drawn.set_color(COLORS[end.network])
                drawn.set_dashes(DASHES[end.sync])
    axis.set_xscale("log", base=2)
    axis.set_xticks([8, 16, 32, 64], ["8", "16", "32", "64"])
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("GPUs")
    axis.set_ylabel("efficiency against 8 GPUs")
    axis.legend(frameon=False, fontsize=7.5, loc="lower left")
    kind = "weak: 524,288 samples per 8 GPUs" if weak else "strong: 524,288 samples in all"
    clean(axis, f"{optimizer} (predicted), {kind}")

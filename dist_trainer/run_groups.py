"""Runs that differ in nothing but their seed, named by what tells them from the others; and what they have in common.

Legend: S seeds (runs of a group), P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_trainer.run_curves import RunCurve

# Settings that do not tell an experiment from another: where, how fast and how safely it ran, and what was shown of it.
INCIDENTAL = (
    *("seed", "run_dir", "resume", "device", "*_threads", "env_groups", "cuda_graphs", "rollout_memory", "*_every"),
    *("checkpoint_minutes", "keep_*", "on_drift", "*max_restarts", "replay_*", "collective_timeout_s", "profile*"),
    *("env.view.*", "env.opponents.*", "env.check", "env.workers", "env.step_timeout_s", "env.worker_memory_mb"),
    "compile_optimizer",
)
WITH_TARGET = ("policy", "optimizer")


@dataclass(frozen=True)
class Band:
    """Of the runs of a group, as far as the shortest of them goes."""

    x: NDArray[np.float64]  # (P,)
    mean: NDArray[np.float64]  # (P,)
    low: NDArray[np.float64]  # (P,) the worst seed
    high: NDArray[np.float64]  # (P,) the best


@dataclass(frozen=True)
class RunGroup:
    name: str
    curves: list[RunCurve]  # (S,) of one environment

    def final(self) -> list[float]:
        """(S,) the latest values."""
        return [float(curve.values[-1]) for curve in self.curves]

    def to_score(self, score: float, axis: str) -> tuple[float, float]:
        """The median over the runs of what it took, steps or seconds; and the most that was tried.

        Runs that never got there count as infinite, so the median is infinite where half of them did not.
        """
        took, tried = [], 0.0
        for curve in self.curves:
            x = getattr(curve, axis)
            at = curve.reached(score)
            took.append(math.inf if at is None else float(x[at]))
            tried = max(tried, float(x[-1]))
        return median(took), tried

    def count(self, score: float) -> int:
        """Runs that got there."""
        return sum(curve.reached(score) is not None for curve in self.curves)

    def band(self, axis: str) -> Band:
        """`axis`: steps or seconds. Values between points are interpolated."""
        xs = [np.asarray(getattr(curve, axis), np.float64) for curve in self.curves]
        begin, end = max(x[0] for x in xs), min(x[-1] for x in xs)
        every = np.unique(np.concatenate(xs))
        x = every[(every >= begin) & (every <= end)]
        if not len(x):  # one run ended before another's first point
            x = np.array([end])
        table = np.stack([np.interp(x, own, curve.values) for own, curve in zip(xs, self.curves, strict=True)])
        return Band(x, table.mean(0), table.min(0), table.max(0))


@dataclass(frozen=True)
class Comparison:
    """Of the runs in one environment."""

    env: str
    metric: str
    score: float | None  # that is asked for; None: nobody knows one
    groups: list[RunGroup]


def group_runs(curves: Sequence[RunCurve]) -> dict[str, list[RunGroup]]:
    """By environment; in the order of the runs."""
    told = [{name: value for name, value in curve.settings.items() if _tells(name)} for curve in curves]
    labels = [_label(settings, told) for settings in told]
    keys = [(curve.env, repr(sorted(settings.items(), key=str))) for curve, settings in zip(curves, told, strict=True)]
    groups: dict[str, list[RunGroup]] = {}
    for key in dict.fromkeys(keys):
        members = [index for index, other in enumerate(keys) if other == key]
        name = labels[members[0]] or curves[members[0]].run.name
        groups.setdefault(key[0], []).append(RunGroup(name, [curves[index] for index in members]))
    return groups


def _tells(name: str) -> bool:
    return not any(fnmatchcase(name, pattern) for pattern in INCIDENTAL)


def _label(own: dict[str, Any], everyone: Sequence[dict[str, Any]]) -> str:
    """What is not the same in all runs of this environment. Optimizers (policies) of different classes have different
    settings: of those only what differs between runs of the same class."""
    parts = []
    here = [other for other in everyone if other["env.name"] == own["env.name"]]
    for name, value in own.items():
        group = name.split(".")[0]
        target = f"{group}._target_"
        if name.startswith("env.") and name != "env.id" and not name.startswith("env.params."):
            continue  # a panel of its own
        others = here
        if group in WITH_TARGET and name != target:
            others = [other for other in here if other.get(target) == own.get(target)]
        if any(other.get(name) != value for other in others):
            parts.append(f"{group}={str(value).rpartition('.')[2]}" if name == target else f"{name}={_short(value)}")
    return " ".join(parts)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

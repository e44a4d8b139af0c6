"""What can be said of algorithms from a few runs in each of many tasks: "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (Agarwal et al., arXiv 2108.13264), as rliable 1.2 computes it.

Scores are normalized: 0 is a random player, 1 the reference. A matrix of scores is of one algorithm.

Legend: R runs of each task, K tasks, B bootstrap replications, P points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # (R, K)
Statistic = Callable[[Scores], float]


def iqm(scores: Scores) -> float:
    """Interquartile mean: of all runs of all tasks without the lowest and the highest quarter (rounded down)."""
    flat = np.sort(scores, axis=None)
    cut = int(0.25 * len(flat))
    return float(flat[cut : len(flat) - cut].mean())


def mean(scores: Scores) -> float:
    return float(scores.mean())


def median(scores: Scores) -> float:
    """Over the tasks, of the mean over their runs."""
    return float(np.median(scores.mean(0)))


def optimality_gap(scores: Scores, target: float = 1.0) -> float:
    """By how much runs stay below `target` on average; what lies above does not make up for it."""
    return float((target - np.minimum(scores, target)).mean())


def probability_of_improvement(x: Scores, y: Scores) -> float:
    """That a run of x beats one of y in a task, the mean over the tasks; ties count half (Mann and Whitney, 1947)."""
    wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])  # (R of x, R of y, K)
    return float(wins.mean())


def performance_profile(scores: Scores, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """(P,) the share of runs that scored above each threshold."""
    return (scores[:, :, None] > np.asarray(thresholds)).mean((0, 1))


def resampled(scores: Scores, generator: np.random.Generator) -> Scores:
    """With replacement, the runs of each task by themselves: a stratified bootstrap sample."""
    return np.take_along_axis(scores, generator.integers(0, len(scores), scores.shape), 0)


def bootstrap_interval(
    statistic: Callable[..., float | NDArray[np.float64]],
    *samples: Scores,
    replications: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high ends of what `statistic(*samples)` returns, by the percentiles of a stratified bootstrap in which
    each algorithm's samples are drawn independently."""
    generator = np.random.default_rng(seed)
    values = np.array([statistic(*(resampled(x, generator) for x in samples)) for _ in range(replications)])
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high


def kaplan_meier(took: Sequence[float], tried: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of runs that have not got there yet (Kaplan and Meier, 1958), as steps: from x[i] on it is share[i].

    Args:
        took: what each run needed; infinite if it never got there.
        tried: how far each run went; one that never got there is unknown from there on, not dropped.

    Returns: x (P,) ascending from 0, share (P,) descending from 1.
    """
    events = sorted(x for x in took if math.isfinite(x))
    ends = [min(got, end) for got, end in zip(took, tried, strict=True)]
    x, share = [0.0], [1.0]
    for time in dict.fromkeys(events):
        at_risk = sum(end >= time for end in ends)
        x.append(time)
        share.append(share[-1] * (1 - events.count(time) / at_risk))
    return np.array(x), np.array(share)


def median_time(took: Sequence[float], tried: Sequence[float]) -> float:
    """When half of the runs have got there; infinite if they have not as far as is known."""
    x, share = kaplan_meier(took, tried)
    there = np.flatnonzero(share <= 0.5)
    return float(x[there[0]]) if len(there) else math.inf


def restricted_mean_time(took: Sequence[float], tried: Sequence[float], horizon: float) -> float:
    """The mean of min(time, horizon): a run that never got there counts as the horizon (Irwin, 1949)."""
    x, share = kaplan_meier(took, tried)
    inside = x < horizon
    ends = np.append(x[inside], horizon)
    return float((np.diff(ends) * share[inside]).sum())

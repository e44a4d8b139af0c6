"""What the results of a benchmark say: numbers with intervals, for the page and for the Markdown table.

Legend: R seeds, K tasks, C contestants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_trainer import statistics
from dist_trainer.benchmark_grid import Contestant, Grid, Task
from dist_trainer.benchmark_results import Result, commits_of, complete_seeds, scores_of
from dist_trainer.statistics import Scores, bootstrap_interval

REPLICATIONS = 2000
THRESHOLDS = np.linspace(0, 1.2, 61)


@dataclass(frozen=True)
class Estimate:
    """`low` and `high` are NaN where there is one seed: how far seeds differ cannot be told from it."""

    point: float
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """Of one contestant, over all tasks."""

    contestant: Contestant
    iqm: Estimate
    median: Estimate
    mean: Estimate
    optimality_gap: Estimate
    profile: NDArray[np.float64]  # (P,) share of runs above each of THRESHOLDS
    profile_band: tuple[NDArray[np.float64], NDArray[np.float64]]  # (P,) each
    failed: int


@dataclass(frozen=True)
class TaskStanding:
    """Of one contestant in one task. Times count runs that never got there as unknown beyond their end."""

    task: Task
    contestant: Contestant
    scores: list[float]  # (R,) in the metric's own units
    reached: int  # runs that got to what is asked
    median_steps: float  # infinite: not half of them
    median_seconds: float
    mean_steps: float  # of min(steps, the task's)
    tried: float  # steps


@dataclass(frozen=True)
class Part:
    """Contestants that are compared with each other, on the seeds that all of them have."""

    name: str  # default | tuned | a setting that was varied
    seeds: list[int]
    standings: list[Standing]
    better: dict[tuple[str, str], Estimate]  # that the first one's run beats the second one's
    tasks: list[TaskStanding]


@dataclass(frozen=True)
class Report:
    grid: Grid
    results: list[Result]
    score: str  # final | curve
    parts: list[Part]
    failures: list[Result]
    commits: list[str]  # of the code


def make_report(grid: Grid, results: Sequence[Result], score: str) -> Report:
    names = dict.fromkeys(contestant.part for contestant in grid.contestants)
    parts = [_part(grid, name, results, score) for name in names]
    failures = [r for r in results if r.failed]
    return Report(grid, list(results), score, [p for p in parts if p.seeds], failures, commits_of(results))


def _part(grid: Grid, name: str, results: Sequence[Result], score: str) -> Part:
    """A setting that was varied is compared with the defaults, too."""
    contestants = grid.part(name)
    if name not in ("default", "tuned"):
        contestants = [*grid.part("default"), *contestants]
    seeds = complete_seeds(grid, contestants, results)
    if not seeds:
        return Part(name, [], [], {}, [])
    matrices = {c.name: scores_of(grid, c, results, seeds, score) for c in contestants}
    failed = {c.name: sum(bool(r.failed) for r in results if r.run.contestant == c) for c in contestants}
    return Part(
        name,
        seeds,
        [_standing(c, matrices[c.name], failed[c.name]) for c in contestants],
        _better(matrices) if name in ("default", "tuned") else {},
        [_task_standing(task, c, results, seeds) for task in grid.tasks for c in contestants],
    )


def _estimate(statistic: statistics.Statistic, scores: Scores) -> Estimate:
    low, high = _interval(statistic, scores)
    return Estimate(statistic(scores), float(low), float(high))


def _interval(
    statistic: Callable[..., float | NDArray[np.float64]], *samples: Scores
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A bootstrap of one seed would have no width, and seem sure."""
    if any(len(scores) < 2 for scores in samples):
        unknown = np.full_like(np.asarray(statistic(*samples), np.float64), math.nan)
        return unknown, unknown
    return bootstrap_interval(statistic, *samples, replications=REPLICATIONS)


def _standing(contestant: Contestant, scores: Scores, failed: int) -> Standing:
    def profile(x: Scores) -> NDArray[np.float64]:
        return statistics.performance_profile(x, THRESHOLDS.tolist())

    return Standing(
        contestant,
        _estimate(statistics.iqm, scores),
        _estimate(statistics.median, scores),
        _estimate(statistics.mean, scores),
        _estimate(statistics.optimality_gap, scores),
        profile(scores),
        _interval(profile, scores),
        failed,
    )


def _better(matrices: Mapping[str, Scores]) -> dict[tuple[str, str], Estimate]:
    found = {}
    for one, x in matrices.items():
        for other, y in matrices.items():
            if one == other:
                continue
            point = statistics.probability_of_improvement(x, y)
            low, high = _interval(statistics.probability_of_improvement, x, y)
            found[one, other] = Estimate(point, float(low), float(high))
    return found


def _task_standing(task: Task, contestant: Contestant, results: Sequence[Result], seeds: Sequence[int]) -> TaskStanding:
    own = [r for r in results if r.run.task == task and r.run.contestant == contestant and r.run.seed in seeds]
    steps, seconds = [r.steps_to_score for r in own], [r.seconds_to_score for r in own]
    # A run that failed early tells nothing about later; one that diverged has no later. Both count as far as the task.
    tried = [task.steps if r.failed or r.curve is None else r.steps for r in own]
    tried_seconds = [math.inf if r.failed else max(r.seconds, 1e-9) for r in own]
    return TaskStanding(
        task,
        contestant,
        [r.score for r in own],
        sum(math.isfinite(x) for x in steps),
        statistics.median_time(steps, tried),
        statistics.median_time(seconds, tried_seconds),
        statistics.restricted_mean_time(steps, tried, min(tried)),
        max(tried),
    )


def surely(estimate: Estimate) -> bool:
    """Whether the interval of a probability leaves no doubt who is better."""
    return estimate.low > 0.5 or estimate.high < 0.5

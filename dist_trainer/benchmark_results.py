"""What the runs of a benchmark have come to: one row for each, and matrices of normalized scores.

Legend: R seeds, K tasks.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_trainer.benchmark_grid import Contestant, Grid, Run
from dist_trainer.benchmark_runs import SCORE_FILE, TRAINING, attempts, is_over, score_of
from dist_trainer.errors import ConfigError
from dist_trainer.run_curves import RunCurve, read_curve
from dist_trainer.run_folder import commits_of_runs
from dist_trainer.statistics import Scores

COLUMNS = (
    *("environment", "contestant", "part", "seed", "metric", "score", "normalized", "curve_mean"),
    *("steps", "seconds", "asked", "steps_to_score", "seconds_to_score", "failed"),
)

NO_EPISODE = "evaluate: no episode has ended"


@dataclass(frozen=True)
class Result:
    """Of a run that is over. A failed one has the random player's score, and never got there."""

    run: Run
    score: float  # of the episodes after training, in the metric's own units
    normalized: float
    curve_mean: float  # normalized, the mean over the training
    curve: RunCurve | None  # None: no episode has ended in the training
    steps_to_score: float  # infinite if it never got there
    seconds_to_score: float
    failed: str = ""  # why

    @property
    def steps(self) -> float:
        return float(self.curve.steps[-1]) if self.curve else 0.0

    @property
    def seconds(self) -> float:
        return float(self.curve.seconds[-1]) if self.curve else 0.0


def read_results(grid: Grid) -> list[Result]:
    return [read_result(run) for run in grid.runs if is_over(run)]


def read_result(run: Run) -> Result:
    known, folder = run.task.known, run.folder
    try:
        curve = read_curve(folder / TRAINING, {"env.name": run.task.env}, known.metric)
    except ConfigError:  # it failed before its first point
        curve = None
    if not (folder / SCORE_FILE).exists():
        return Result(run, known.random, 0.0, 0.0, curve, math.inf, math.inf, attempts(run)[1] or "unknown")
    score = score_of(folder, known.metric)
    if not math.isfinite(score):
        return Result(run, known.random, 0.0, 0.0, curve, math.inf, math.inf, NO_EPISODE)
    if curve is None:
        return Result(run, score, known.normalized(score), 0.0, None, math.inf, math.inf)
    at = curve.reached(run.task.asked)
    return Result(
        run,
        score,
        known.normalized(score),
        known.normalized(mean_over_training(curve)),
        curve,
        math.inf if at is None else float(curve.steps[at]),
        math.inf if at is None else float(curve.seconds[at]),
    )


def commits_of(results: Sequence[Result]) -> list[str]:
    """Of the code that has trained these runs, a resumed one's all."""
    return commits_of_runs([r.run.folder / TRAINING for r in results])


def mean_over_training(curve: RunCurve) -> float:
    """Each point counts for the steps since the one before; what came before the first counts as the first."""
    widths = np.diff(curve.steps, prepend=0)
    return float((curve.values * widths).sum() / widths.sum())


def complete_seeds(grid: Grid, contestants: Sequence[Contestant], results: Sequence[Result]) -> list[int]:
    """Those of which every task has a result of each of these contestants."""
    there = {(result.run.task.env, result.run.contestant.name, result.run.seed) for result in results}
    seeds = sorted({run.seed for run in grid.runs})
    return [
        seed
        for seed in seeds
        if all((task.env, contestant.name, seed) in there for task in grid.tasks for contestant in contestants)
    ]


def scores_of(grid: Grid, contestant: Contestant, results: Sequence[Result], seeds: Sequence[int], kind: str) -> Scores:
    """(R, K) normalized. `kind`: final | curve."""
    by_run = {(r.run.task.env, r.run.seed): r for r in results if r.run.contestant == contestant}
    values = [[by_run[task.env, seed] for task in grid.tasks] for seed in seeds]
    return np.array([[r.normalized if kind == "final" else r.curve_mean for r in row] for row in values])


def write_csv(results: Sequence[Result], file: Path) -> None:
    """Everything that the report is made of, a row for each run."""
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(COLUMNS)
        for r in results:
            task, contestant = r.run.task, r.run.contestant
            rows.writerow(
                [
                    *(task.env, contestant.name, contestant.part, r.run.seed, task.known.metric),
                    *(f"{r.score:.6g}", f"{r.normalized:.6g}", f"{r.curve_mean:.6g}", f"{r.steps:.0f}"),
                    *(f"{r.seconds:.1f}", f"{task.asked:g}", f"{r.steps_to_score:.0f}", f"{r.seconds_to_score:.1f}"),
                    r.failed,
                ]
            )

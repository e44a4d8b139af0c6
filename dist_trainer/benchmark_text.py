"""The report of a benchmark in words and tables, as Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence

import numpy as np

from dist_trainer.benchmark_grid import Contestant
from dist_trainer.benchmark_report import Estimate, Part, Report, TaskStanding, surely
from dist_trainer.benchmark_runs import FAILED_FILE
from dist_trainer.units import compact, duration

Rows = list[list[str]]

TITLES = {"default": "Default settings", "tuned": "Tuned settings"}
HOW = {
    "final": "Scores are of fresh episodes after the training",
    "curve": "Scores are means over the whole training, so that speed counts",
}


TRY_AGAIN = "They are not tried again, unless the file that is named is removed."
FEW = 4  # seeds below which intervals are far too narrow


def title_of(part: Part) -> str:
    return TITLES.get(part.name, f"Sensitivity: {part.name}")


def seeds_of(part: Part) -> str:
    return f"{len(part.seeds)} seed{'s' if len(part.seeds) > 1 else ''}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    known = f" ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})" if math.isfinite(estimate.low) else ""
    return f"{estimate.point:.{digits}f}{known}"


def overall(part: Part) -> Rows:
    """Best first, under a header."""
    ranked = sorted(part.standings, key=lambda standing: -standing.iqm.point)
    header = ["", "interquartile mean", "median", "mean", "optimality gap", "failed runs"]
    return [header] + [
        [
            s.contestant.name,
            interval(s.iqm),
            interval(s.median),
            interval(s.mean),
            interval(s.optimality_gap),
            str(s.failed),
        ]
        for s in ranked
    ]


def who_beats_whom(part: Part) -> Rows:
    """Row against column; an asterisk where the interval leaves out one half. Of fewer than FEW seeds none: between
    equals it stood in 31 % of cases with 2 seeds of one environment, in 19 % with 3, in 5 to 7 % with 5."""
    marks = len(part.seeds) >= FEW
    names = [standing.contestant.name for standing in part.standings]
    rows = [["probability that a run of ... beats one of", *names]]
    for one in names:
        cells = [part.better.get((one, other)) for other in names]
        rows.append([one, *("" if e is None else interval(e) + (" *" if marks and surely(e) else "") for e in cells)])
    return rows


def by_task(part: Part) -> Rows:
    header = [
        "environment",
        "",
        "score: mean (worst to best)",
        "reached",
        "steps to it, median",
        "mean, at most the budget",
        "time, median",
    ]
    return [header] + [_task_row(standing) for standing in part.tasks]


def _task_row(standing: TaskStanding) -> list[str]:
    scores = standing.scores
    steps, seconds = standing.median_steps, standing.median_seconds
    return [
        standing.task.env,
        standing.contestant.name,
        f"{np.mean(scores):.4g} ({min(scores):.4g} to {max(scores):.4g})",
        f"{standing.reached} of {len(scores)} at {standing.task.asked:.4g}",
        compact(steps) if math.isfinite(steps) else f"> {compact(standing.tried)}",
        compact(standing.mean_steps),
        duration(seconds) if math.isfinite(seconds) else "-",
    ]


def summary(report: Report) -> list[str]:
    """Sentences."""
    grid = report.grid
    done, asked = len(report.results), len(grid.runs)
    envs = ", ".join(task.env for task in grid.tasks)
    return [
        f"{done} of {asked} runs in {len(grid.tasks)} environments: {envs}.",
        f"{HOW[report.score]}, normalized: 0 is a random player, 1 the reference player of the catalogue.",
        "Intervals: 95 %, stratified bootstrap over seeds. Runs that failed score 0. In times to a score "
        "those that never got there are censored, not dropped.",
        f"Made on {platform.machine()}, Python {platform.python_version()}.",
    ]


def caveats(report: Report) -> list[str]:
    """What the report does not show."""
    seeds = max((len(part.seeds) for part in report.parts), default=0)
    budgets = ", ".join(f"{task.env} {compact(task.steps)}" for task in report.grid.tasks)
    said = [
        "Intervals say how other seeds would come out, not other environments: "
        f"there are {len(report.grid.tasks)}, and they were chosen.",
        "One seed: no interval can be told, and another seed may turn every order round."
        if seeds == 1
        else f"{seeds} seeds: a percentile bootstrap of so few is somewhat too narrow.",
        f"Only these budgets (steps): {budgets}. Who is ahead early need not be ahead later, or at other batch sizes.",
        "One network and one set of PPO's settings for all; the defaults were found mostly with the default optimizer.",
        "An asterisk stands by chance in about one of 20 pairs of equals; with many pairs expect some."
        if seeds >= FEW
        else f"Fewer than {FEW} seeds: who is better is marked nowhere.",
        "Seconds are of this machine, with as many runs at a time as it was told, and hold for no other.",
    ]
    if not report.grid.part("tuned"):
        said.append(
            "Nobody's settings were tuned for it: it compares defaults, and says nothing of what tuning would do."
        )
    else:
        said.append(searches(report.grid.part("tuned")))
    if len(report.results) < len(report.grid.runs):
        said.append("It is not complete: only seeds that every contestant has finished everywhere are compared.")
    if len(report.commits) > 1:
        shown = ", ".join(commit[:10] for commit in report.commits)
        said.append(f"Its runs are of {len(report.commits)} versions of the code, which may differ: {shown}.")
    return said


def searches(tuned: Sequence[Contestant]) -> str:
    """Whether tuning had the same budget for each."""
    told = "; ".join(f"{contestant.name} {contestant.search or 'unknown'}" for contestant in tuned)
    trials = {contestant.search.partition(" ")[0] for contestant in tuned}
    if "" in trials:
        return f"What tuning has cost is not known of all, so it may have been unequal: {told}."
    verdict = "Tuning had as many trials for each" if len(trials) == 1 else "Tuning had UNEQUAL numbers of trials"
    return f"{verdict}: {told}."


def markdown(report: Report) -> str:
    lines = ["# Benchmark", "", *summary(report), ""]
    for part in report.parts:
        lines += [f"## {title_of(part)} ({seeds_of(part)})", "", *_table(overall(part)), ""]
        if part.better:
            lines += [*_table(who_beats_whom(part)), ""]
        lines += [*_table(by_task(part)), ""]
    lines += ["## Failed runs", "", *([f"- {line}" for line in failures(report)] or ["None."]), ""]
    lines += [f"{TRY_AGAIN}\n"] if report.failures else []
    lines += ["## What this does not show", "", *(f"- {line}" for line in caveats(report))]
    return "\n".join(lines) + "\n"


def failures(report: Report) -> list[str]:
    return [
        f"{r.run.task.env}, {r.run.contestant.name}, seed {r.run.seed}: {r.failed} ({r.run.folder / FAILED_FILE})"
        for r in report.failures
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [header, "|" + "---|" * len(rows[0]), *body]

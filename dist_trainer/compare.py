"""The verb `compare`: runs side by side, as a table and as a picture with bands over seeds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from dist_trainer.cli import apply, parse
from dist_trainer.errors import ConfigError, choices
from dist_trainer.plan_trained import check_writable
from dist_trainer.plan_view import require_modules
from dist_trainer.run_curves import RunCurve, read_curve, read_settings
from dist_trainer.run_groups import Comparison, RunGroup, group_runs
from dist_trainer.scores import load_scores
from dist_trainer.units import compact, duration
from dist_trainer.verb_configs import CompareConfig

AXES = ("steps", "seconds")
NEARLY = 0.95  # of the way from the random to the reference player: the score that is asked for, unless another is
RETURN = "episode_return"
COLUMNS = ("runs", "seeds", "latest", "worst - best", "steps to it", "time to it", "reached")
FOOTNOTE = "Steps and time to the score: medians over seeds; a seed that never got there counts as infinite."
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Row:
    """Of one group. What was never reached is None; then `tried` was not enough."""

    name: str
    seeds: int
    latest: float  # mean over the runs, of their latest values
    worst: float
    best: float
    steps: float | None  # the median over the runs
    steps_tried: float
    seconds: float | None
    seconds_tried: float
    reached: int


def row_of(group: RunGroup, score: float) -> Row:
    latest = group.final()
    (steps, steps_tried), (seconds, seconds_tried) = (group.to_score(score, axis) for axis in AXES)
    return Row(
        group.name,
        *(len(latest), sum(latest) / len(latest), min(latest), max(latest)),
        *(steps if math.isfinite(steps) else None, steps_tried),
        *(seconds if math.isfinite(seconds) else None, seconds_tried),
        group.count(score),
    )


def rows_of(comparison: Comparison) -> list[Row]:
    return [row_of(group, math.inf if comparison.score is None else comparison.score) for group in comparison.groups]


def plan_compare(arguments: Sequence[str]) -> tuple[CompareConfig, list[Path]]:
    """Raises ConfigError."""
    runs = [Path(argument) for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    settings = [argument for argument in arguments if Path(argument) not in runs]
    config: CompareConfig = apply(OmegaConf.structured(CompareConfig), parse(settings))
    if not runs:
        raise ConfigError("RUN", "", "is required: one run folder or more")
    if config.x not in AXES:
        raise ConfigError("x", config.x, choices(AXES, config.x))
    if config.score is not None and not math.isfinite(config.score):
        raise ConfigError("score", config.score, "must be a number")
    for name in ("output", "csv", "json", "markdown"):
        file = getattr(config, name)
        if file is not None:
            check_writable(name, Path(file))
    if config.output is not None:
        if Path(config.output).suffix not in PICTURES:
            raise ConfigError("output", config.output, f"must end with {', '.join(PICTURES)}")
        require_modules("compare", "matplotlib", extra="plots")
    return config, list(dict.fromkeys(runs))


def compare(config: CompareConfig, runs: Sequence[Path]) -> list[Comparison]:
    """Reads the runs. Raises ConfigError if one is no run folder, or has no such curve."""
    known = load_scores()
    curves: list[RunCurve] = []
    for run in runs:
        settings = read_settings(run)
        score = known.get(settings["env.name"])
        curves.append(read_curve(run, settings, config.metric or (score.metric if score else RETURN)))
    found = []
    for env, groups in group_runs(curves).items():
        metric = groups[0].curves[0].metric
        asked, score = config.score, known.get(env)
        if asked is None and score is not None and score.metric == metric:
            asked = score.random + NEARLY * (score.reference - score.random)
        found.append(Comparison(env, metric, asked, groups))
    return found


def cells(row: Row, asked: bool) -> list[str]:
    """As COLUMNS. With a score that nobody knows the last three are empty."""
    steps = f"> {compact(row.steps_tried)}" if row.steps is None else compact(row.steps)
    seconds = f"> {duration(row.seconds_tried)}" if row.seconds is None else duration(row.seconds)
    to_score = [steps, seconds, f"{row.reached} of {row.seeds}"] if asked else ["", "", ""]
    return [row.name, str(row.seeds), f"{row.latest:.4g}", f"{row.worst:.4g} - {row.best:.4g}", *to_score]


def title(comparison: Comparison) -> str:
    score = "" if comparison.score is None else f", score {comparison.score:.4g}"
    return f"{comparison.env}: {comparison.metric}{score}"


def markdown(comparisons: Sequence[Comparison]) -> str:
    lines = []
    for comparison in comparisons:
        lines += [f"**{title(comparison)}**", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        rows = (cells(row, comparison.score is not None) for row in rows_of(comparison))
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join([*lines, FOOTNOTE, ""])


def print_tables(comparisons: Sequence[Comparison], console: Console) -> None:
    for comparison in comparisons:
        table = Table(title=title(comparison), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for index, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0)
        for row in rows_of(comparison):
            table.add_row(*cells(row, comparison.score is not None))
        console.print(table)
    console.print(FOOTNOTE, style="dim")


def write_csv(comparisons: Sequence[Comparison], file: Path) -> None:
    """Every point of every run."""
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["env", "group", "run", "metric", "steps", "seconds", "value"])
        for comparison in comparisons:
            for group in comparison.groups:
                for curve in group.curves:
                    own = [comparison.env, group.name, curve.run, comparison.metric]
                    points = zip(curve.steps.tolist(), curve.seconds.tolist(), curve.values.tolist(), strict=True)
                    writer.writerows([*own, *point] for point in points)


def as_json(comparisons: Sequence[Comparison]) -> list[Mapping[str, object]]:
    return [
        {
            "env": comparison.env,
            "metric": comparison.metric,
            "score": comparison.score,
            "groups": [asdict(row) for row in rows_of(comparison)],
        }
        for comparison in comparisons
    ]


def run_compare(config: CompareConfig, runs: Sequence[Path]) -> int:
    """Raises ConfigError as compare does, and if a file cannot be written."""
    comparisons = compare(config, runs)

    def draw_picture(file: Path) -> None:
        from dist_trainer.compare_picture import draw  # matplotlib is an extra

        draw(comparisons, file, config.x)

    writers: dict[str, Callable[[Path], object]] = {
        "markdown": lambda file: file.write_text(markdown(comparisons)),
        "csv": lambda file: write_csv(comparisons, file),
        "json": lambda file: file.write_text(json.dumps(as_json(comparisons), indent=2) + "\n"),
        "output": draw_picture,
    }
    for name, write in writers.items():
        file = getattr(config, name)
        try:
            if file is not None:
                write(Path(file))
        except OSError as error:
            raise ConfigError(name, file, f"cannot be written: {error.strerror}") from None
    print_tables(comparisons, Console())
    if config.output:
        print(f"{config.output}: mean over seeds, and from the worst seed to the best")
    return 0

"""The verb `benchmark`: runs a grid of trainings, or what is left of it, and says who is better."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from rich.console import Console

from dist_trainer.benchmark_grid import Grid, make_grid
from dist_trainer.benchmark_report import make_report
from dist_trainer.benchmark_results import read_results, write_csv
from dist_trainer.benchmark_runs import SCORE_FILE, Orders, Place, do_runs, is_over
from dist_trainer.benchmark_text import markdown
from dist_trainer.checkpoint_file import write_atomically
from dist_trainer.cli import apply, compose_train, parse
from dist_trainer.errors import ConfigError, choices
from dist_trainer.file_lock import locked
from dist_trainer.gpus import share_devices, visible_devices
from dist_trainer.plan_view import require_modules
from dist_trainer.verb_configs import BenchmarkConfig

STOPPED = 3  # exit status
REPORT = "report"
LOCK_FILE = "benchmark.lock"
SCORES = ("final", "curve")
OWN = [field.name for field in fields(BenchmarkConfig)]
INSTEAD = {
    "env": "envs",
    "optimizer": "optimizers",
    "seed": "seeds",
    "total_env_steps": "budget",
    "run_dir": "folder",
    "resume": "folder",
}


@dataclass(frozen=True)
class BenchmarkPlan:
    config: BenchmarkConfig
    grid: Grid
    settings: list[str]  # of all trainings


def plan_benchmark(arguments: Sequence[str]) -> BenchmarkPlan:
    """Raises ConfigError."""
    own = [argument for argument in arguments if argument.partition("=")[0].partition(".")[0] in OWN]
    settings = [argument for argument in arguments if argument not in own]
    for argument in settings:
        name, _, value = argument.partition("=")
        if name in INSTEAD:
            raise ConfigError(name, value, f"differs from run to run; use {INSTEAD[name]}")
    config: BenchmarkConfig = apply(OmegaConf.structured(BenchmarkConfig), parse(own))
    for name in ("seeds", "learners", "sensitivity_seeds"):
        if getattr(config, name) < 1:
            raise ConfigError(name, getattr(config, name), "must be at least 1")
    if config.workers is not None and config.workers < 0:
        raise ConfigError("workers", config.workers, "must be at least 0")
    if not 0 < config.budget < math.inf:
        raise ConfigError("budget", config.budget, "must be above 0")
    if config.score not in SCORES:
        raise ConfigError("score", config.score, choices(SCORES, config.score))
    grid = make_grid(config)
    for contestant in grid.contestants:
        for task in grid.tasks:  # a mistake is told now, not by the last run
            compose_train([f"env={task.env}", *contestant.settings, *task.train, *settings])
    if config.report:
        require_modules("benchmark", "matplotlib", extra="plots")
    return BenchmarkPlan(config, grid, settings)


def grid_text(arguments: Sequence[str]) -> str:
    """What `--cfg job` prints: benchmark.yaml. Raises ConfigError if it could not begin."""
    return yaml.safe_dump(_note_of(plan_benchmark(arguments)), sort_keys=False)


def run_benchmark(arguments: Sequence[str]) -> int:
    """Exit status: 0 if every run is over, 1 if all of them have failed, 3 if some are left. Raises ConfigError."""
    plan = plan_benchmark(arguments)
    config, grid = plan.config, plan.grid
    console, folder = Console(), Path(config.folder)
    stop = _stop_flag()

    def say(text: str) -> None:
        over = sum(is_over(run) for run in grid.runs)
        console.print(f"{over} of {len(grid.runs)}  {text}", soft_wrap=True, highlight=False)

    if config.workers != 0:
        _note_grid(plan, folder)
        do_runs(grid.runs, places(config), Orders(plan.settings, config.learners, lambda: bool(stop), say))
    over = sum(is_over(run) for run in grid.runs)
    if config.report and over:
        write_report(config, grid, folder / REPORT, console)
    if over == len(grid.runs):
        return 0 if any((run.folder / SCORE_FILE).exists() for run in grid.runs) else 1
    console.print(f"{len(grid.runs) - over} runs are left; the same command goes on", highlight=False)
    return STOPPED


def _stop_flag() -> list[int]:
    """Filled by signals. Trainings are processes in sessions of their own, which Ctrl-C does not reach."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: asked.append(number))
    return asked


def places(config: BenchmarkConfig) -> list[Place]:
    """One for each run at a time: by default one for each GPU, or core, that its learners need."""
    cores, devices = len(os.sched_getaffinity(0)), visible_devices("auto")
    count = config.workers or max(1, (len(devices) or cores) // config.learners)
    threads = max(1, cores // (count * config.learners))
    return [Place(threads, own) for own in share_devices(devices, count, config.learners)]


def _note_grid(plan: BenchmarkPlan, folder: Path) -> None:
    """Into the folder, and refuses to mix what cannot be compared. Raises ConfigError."""
    file, own = folder / "benchmark.yaml", _note_of(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK_FILE):
            before = yaml.safe_load(file.read_text()) if file.exists() else {}
            for name, value in own.items():
                if before.get(name, value) != value:
                    raise ConfigError(
                        name, value, f"{folder} holds runs with {name}={before[name]}; use another folder"
                    )
            write_atomically(file, yaml.safe_dump({**before, **own}).encode())
    except OSError as error:
        raise ConfigError("folder", folder, f"cannot be written: {error.strerror}") from None


def _note_of(plan: BenchmarkPlan) -> dict[str, Any]:
    """What must stay as it is: of all runs, of those of each environment, of those of each contestant. Others of both
    may be added."""
    tasks = {
        f"env {task.env}": [f"steps={task.steps:g}", f"greedy={task.greedy}", *task.train, *task.evaluate]
        for task in plan.grid.tasks
    }
    contestants = {contestant.name: list(contestant.settings) for contestant in plan.grid.contestants}
    return {"budget": plan.config.budget, "settings": sorted(plan.settings), **tasks, **contestants}


def write_report(config: BenchmarkConfig, grid: Grid, folder: Path, console: Console) -> None:
    from dist_trainer.benchmark_page import page
    from dist_trainer.benchmark_pictures import pictures  # matplotlib is an extra

    results = read_results(grid)
    report = make_report(grid, results, config.score)
    html = page(report, pictures(report))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK_FILE):
            write_csv(results, folder / "runs.csv")
            (folder / "report.md").write_text(markdown(report))
            (folder / "index.html").write_text(html)
    except OSError as error:
        raise ConfigError("folder", folder, f"cannot be written: {error.strerror}") from None
    console.print(f"{folder / 'index.html'}, {folder / 'report.md'}, {folder / 'runs.csv'}", highlight=False)

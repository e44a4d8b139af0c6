"""The runs of a benchmark: environments x contestants x seeds, each with a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dist_trainer.config_files import SUITES, group_choices, group_files
from dist_trainer.errors import ConfigError, choices
from dist_trainer.scores import EnvScore, load_scores
from dist_trainer.sweep_plan import as_argument
from dist_trainer.verb_configs import BenchmarkConfig

SEARCH = re.compile(r"^# Search: (\d+ trials, \d+ steps), \d+ s$", re.MULTILINE)  # see sweep_results.budget_line
HALF_WAY = 0.5  # normalized score to which time is counted where nothing says what "solved" is


@dataclass(frozen=True)
class Task:
    """An environment and what is asked of it."""

    env: str
    known: EnvScore  # its metric, and what the random and the reference player reach
    steps: float
    solved: float | None = None
    greedy: bool = False
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ("episodes=200",)

    @property
    def asked(self) -> float:
        """The score to which time is counted."""
        half_way = self.known.random + HALF_WAY * (self.known.reference - self.known.random)
        return half_way if self.solved is None else self.solved


@dataclass(frozen=True)
class Contestant:
    """An optimizer with its settings. `part`: of which comparison: default, tuned, or the setting that was varied."""

    name: str
    optimizer: str
    settings: tuple[str, ...]
    part: str = "default"
    seeds: int | None = None  # fewer than the others have
    factor: float = 1.0  # on the default of the setting that was varied
    search: str = ""  # what finding a tuned one's settings has cost, if its file says so

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "-").replace("=", "-")


@dataclass(frozen=True)
class Run:
    task: Task
    contestant: Contestant
    seed: int
    folder: Path


@dataclass(frozen=True)
class Grid:
    tasks: list[Task]
    contestants: list[Contestant]
    runs: list[Run] = field(default_factory=list)

    def part(self, name: str) -> list[Contestant]:
        return [contestant for contestant in self.contestants if contestant.part == name]


def load_suite(name: str) -> dict[str, Task]:
    """By environment, benchmark/NAME.yaml of configs/ or of a user's folder. Raises ConfigError."""
    files = group_files(SUITES)
    if name not in files:
        raise ConfigError("suite", name, choices(files, name))
    known, tasks = load_scores(), {}
    for env, entry in yaml.safe_load(files[name].read_text()).items():
        if env not in known:
            raise ConfigError("suite", name, f"env={env} has no known scores; see benchmarks/env_scores.py")
        try:
            tasks[env] = Task(env, known[env], **{key: _frozen(value) for key, value in entry.items()})
        except TypeError as error:
            raise ConfigError("suite", name, f"entry {env}: {error}") from None
    return tasks


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def make_grid(config: BenchmarkConfig) -> Grid:
    """Raises ConfigError."""
    tasks = [_scaled(task, config.budget) for task in _chosen(config.envs, load_suite(config.suite))]
    contestants = [*_defaults(config), *_tuned(config), *_varied(config)]
    runs = [
        Run(task, contestant, seed, Path(config.folder) / "runs" / task.env / contestant.folder / str(seed))
        for seed in range(1, config.seeds + 1)  # first one of everything, then another of everything
        for task in tasks
        for contestant in contestants
        if seed <= (contestant.seeds or config.seeds)
    ]
    return Grid(tasks, contestants, runs)


def _chosen(envs: Any, suite: Mapping[str, Task]) -> list[Task]:
    if envs == "all":
        return list(suite.values())
    if not isinstance(envs, str | list):
        raise ConfigError("envs", envs, "must be all, or a list such as [cartpole,breakout]")
    names = [envs] if isinstance(envs, str) else envs
    for name in names:
        if name not in suite:
            raise ConfigError("envs", name, "is not in the suite; " + choices([*suite, "all"], str(name)))
    if not names:
        raise ConfigError("envs", envs, "must name an environment")
    return [suite[name] for name in dict.fromkeys(names)]


def _scaled(task: Task, budget: float) -> Task:
    return Task(**{**vars(task), "steps": task.steps * budget})


def _optimizers(names: Sequence[str], field_name: str) -> None:
    known = group_choices("optimizer")
    for name in names:
        if name not in known:
            raise ConfigError(field_name, name, choices(known, name))


def _defaults(config: BenchmarkConfig) -> list[Contestant]:
    _optimizers(config.optimizers, "optimizers")
    if not config.optimizers:
        raise ConfigError("optimizers", config.optimizers, "must name one at least")
    return [Contestant(name, name, (f"optimizer={name}",)) for name in dict.fromkeys(config.optimizers)]


def _tuned(config: BenchmarkConfig) -> list[Contestant]:
    """From files such as `sweep` writes."""
    _optimizers(list(config.tuned), "tuned")
    found = []
    for name, file in config.tuned.items():
        settings = (f"optimizer={name}", *_settings_of(name, Path(file)))
        search = SEARCH.search(Path(file).read_text())
        told = search.group(1) if search else ""
        found.append(Contestant(f"{name} tuned", name, settings, "tuned", search=told))
    return found


def _settings_of(optimizer: str, file: Path) -> list[str]:
    """Of a yaml file, as words of a command line.

    What `sweep` writes also names the file of each group: the environment is the run's own, the optimizer must be this.
    """
    setting = f"tuned.{optimizer}"
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(setting, file, f"cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(setting, file, "must hold settings, such as ppo: {gamma: 0.99}")
    groups = _groups_of(content.pop("defaults", []))
    if groups.pop("optimizer", optimizer) != optimizer:
        raise ConfigError(setting, file, "holds settings of another optimizer")
    groups.pop("env", None)
    return [as_argument(key, value) for key, value in [*groups.items(), *_leaves(content, "")]]


def _groups_of(defaults: Any) -> dict[str, str]:
    """The files of a Hydra defaults list."""
    entries = [entry for entry in defaults if isinstance(entry, dict)] if isinstance(defaults, list) else []
    return {str(key).rpartition("/")[2]: str(file) for entry in entries for key, file in entry.items()}


def _leaves(content: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _varied(config: BenchmarkConfig) -> list[Contestant]:
    """Each optimizer with one of its numbers multiplied by a factor."""
    found = []
    for setting, factors in config.sensitivity.items():
        if not isinstance(factors, list) or not all(type(x) in (int, float) and x > 0 for x in factors):
            raise ConfigError(f"sensitivity.{setting}", factors, "must be a list of factors above 0, such as [0.25,4]")
        for name in config.optimizers:
            own = _default_number(name, setting)
            if own is None:
                continue
            for factor in factors:
                value = own * factor
                words = (f"optimizer={name}", f"{setting}={value:.6g}")
                label = f"{name} {setting}={value:.4g}"
                found.append(Contestant(label, name, words, setting, config.sensitivity_seeds, factor))
        if not any(contestant.part == setting for contestant in found):
            raise ConfigError("sensitivity", setting, "is a number other than 0 of none of the optimizers")
    return found


def _default_number(optimizer: str, setting: str) -> float | None:
    """Of the optimizer's yaml, or of the trainer's defaults. None if it is none, or 0."""
    from dist_trainer.cli import compose_train  # only here: it reads all of configs/

    value: Any = vars(compose_train([f"optimizer={optimizer}", "env=cartpole"])[0])
    for part in setting.split("."):
        value = value if isinstance(value, dict) else vars(value)
        if part not in value:
            return None
        value = value[part]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value else None

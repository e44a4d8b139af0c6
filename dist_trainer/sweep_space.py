"""What a sweep tries: knobs, each a setting with its range, declared in configs/sweep/NAME.yaml or a file like those.

knobs:
  optimizer: {choice: [muon, adamw]}                        a file of a group
  optimizer.lr:                                             one range for each condition
    - {log: [0.003, 0.1], when: {optimizer: muon}}
    - {log: [1.0e-4, 0.01], when: {optimizer: adamw}}
  ppo.entropy_coef: {log: [1.0e-4, 0.1]}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from dist_trainer.config_files import SPACES, group_files
from dist_trainer.errors import ConfigError, choices

KINDS_HELP = """\
KNOB: {KIND: RANGE}, KNOB being any setting by its name, or a group such as optimizer. Kinds:
  float: [LOW, HIGH]       log: [LOW, HIGH]            evenly; evenly in the logarithm
  near_one: [LOW, HIGH]    1 - x evenly in the logarithm: for discounts
  int: [LOW, HIGH]         power_of_two: [LOW, HIGH]   choice: [VALUE, ...]     bool
and beside the kind when: {KNOB: VALUE or [VALUE, ...]}, a condition on a knob further up; a knob may have a list of
ranges, each with its own"""
KINDS = ("float", "log", "near_one", "int", "power_of_two", "bool", "choice")
Value = bool | int | float | str | None


class Suggests(Protocol):
    """What an optuna.Trial has, and whoever only wants to know the range."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Knob:
    """One setting, one range, and the condition under which it is one."""

    setting: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def name(self) -> str:
        """Of the sampler's parameter: a setting with several ranges is several parameters."""
        prefix = {"near_one": "1 - ", "power_of_two": "log2 "}.get(self.kind, "")
        condition = ", ".join(f"{name}={'|'.join(map(str, values))}" for name, values in self.when)
        return f"{prefix}{self.setting}" + (f" ({condition})" if condition else "")

    @property
    def labels(self) -> list[Value]:
        """Of the choices, which may be lists: what optuna can store."""
        return [value if isinstance(value, Value) else str(value) for value in self.values]

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        return all(name in chosen and chosen[name] in values for name, values in self.when)

    def suggest(self, trial: Suggests) -> Any:
        if self.kind in ("bool", "choice"):
            return self.values[self.labels.index(trial.suggest_categorical(self.name, self.labels))]
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        if self.kind == "power_of_two":
            return 2 ** trial.suggest_int(self.name, *_exponents(self.low, self.high))
        if self.kind == "near_one":
            return 1.0 - trial.suggest_float(self.name, 1.0 - self.high, 1.0 - self.low, log=True)
        return trial.suggest_float(self.name, self.low, self.high, log=self.kind == "log")

    def parameter_of(self, value: Any) -> Value:
        """The sampler's parameter for this value of the setting. Raises ValueError if it is not in the range."""
        if self.kind in ("bool", "choice"):
            return self.labels[self.values.index(value)]
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"{value} is not from {self.low} to {self.high}")
        if self.kind == "power_of_two":
            if not math.log2(value).is_integer():
                raise ValueError(f"{value} is no power of two")
            return int(math.log2(value))
        if self.kind == "near_one":
            return 1.0 - value
        return int(value) if self.kind == "int" else float(value)

    def ends(self) -> list[Any]:
        """Values at both ends, or all choices: what can be checked without a trial."""
        if self.values:
            return list(self.values)
        if self.kind == "power_of_two":
            return [2**exponent for exponent in _exponents(self.low, self.high)]
        return [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]


@dataclass(frozen=True)
class Space:
    knobs: tuple[Knob, ...]

    def suggest(self, trial: Suggests) -> dict[str, Any]:
        """A value for each setting whose knob applies, in the order of the file."""
        chosen: dict[str, Any] = {}
        for knob in self.knobs:
            if knob.applies(chosen):
                chosen[knob.setting] = knob.suggest(trial)
        return chosen

    def parameters_of(self, settings: Mapping[str, Any]) -> dict[str, Value]:
        """The sampler's parameters for a configuration, where the space contains it."""
        chosen: dict[str, Any] = {}
        found: dict[str, Value] = {}
        for knob in self.knobs:
            if knob.applies(chosen) and knob.setting in settings:
                try:
                    found[knob.name] = knob.parameter_of(settings[knob.setting])
                except ValueError:
                    continue
                chosen[knob.setting] = settings[knob.setting]
        return found


def load_space(name: str) -> tuple[Space, dict[str, Any]]:
    """The space, and its knobs as the file has them. Raises ConfigError."""
    path = space_file(name)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError("sweep.space", name, f"cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or list(content) != ["knobs"] or not isinstance(content["knobs"], dict):
        raise ConfigError("sweep.space", name, "must be a yaml file with `knobs:` and nothing else")
    return read_space(content["knobs"]), content["knobs"]


def space_file(name: str) -> Path:
    """Raises ConfigError if there is none of this name; a path is taken as it is."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    files = group_files(SPACES)
    if name not in files:
        raise ConfigError("sweep.space", name, f"no such file in configs/{SPACES}; " + choices(files, name))
    return files[name]


def read_space(declared: Mapping[str, Any]) -> Space:
    """Raises ConfigError that names the knob."""
    knobs: list[Knob] = []
    for setting, ranges in declared.items():
        for described in ranges if isinstance(ranges, list) else [ranges]:
            knobs.append(_knob(str(setting), described, {knob.setting: knob for knob in knobs}))
    if not knobs:
        raise ConfigError("sweep.space", "", "has no knobs")
    names = [knob.name for knob in knobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(name, "", "has two ranges for the same condition")
    return Space(tuple(knobs))


def _knob(setting: str, described: Any, before: Mapping[str, Knob]) -> Knob:
    if described == "bool":
        described = {"bool": None}
    if not isinstance(described, dict):
        raise ConfigError(setting, described, f"must be {{KIND: RANGE}}; {choices(KINDS, '')}")
    kinds = [key for key in described if key != "when"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise ConfigError(setting, ", ".join(kinds), f"must have one kind; {choices(KINDS, ''.join(kinds[:1]))}")
    kind, when = kinds[0], _conditions(setting, described.get("when") or {}, before)
    given = described[kind]
    if kind == "bool":
        return Knob(setting, kind, values=(False, True), when=when)
    if not isinstance(given, list):
        raise ConfigError(setting, given, f"{kind} must be followed by a list")
    if kind == "choice":
        return Knob(setting, kind, values=_checked_choices(setting, given), when=when)
    low, high = _checked_range(setting, kind, given)
    return Knob(setting, kind, low, high, when=when)


def _conditions(setting: str, when: Any, before: Mapping[str, Knob]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if not isinstance(when, dict):
        raise ConfigError(setting, when, "when must be {KNOB: VALUE}")
    found = []
    for name, wanted in when.items():
        if name not in before:
            raise ConfigError(f"{setting}: when", name, f"must be a knob further up; {choices(before, str(name))}")
        values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
        strangers = [value for value in values if before[name].values and value not in before[name].values]
        if strangers:
            valid = choices(map(str, before[name].values), str(strangers[0]))
            raise ConfigError(f"{setting}: when {name}", strangers[0], valid)
        found.append((str(name), values))
    return tuple(found)


def _checked_choices(setting: str, given: list[Any]) -> tuple[Any, ...]:
    if len(given) < 1 or len({str(value) for value in given}) < len(given):
        raise ConfigError(setting, given, "choice must be a list of different values")
    for value in given:
        if isinstance(value, dict):
            raise ConfigError(setting, value, "a choice must be a single value, or a list of numbers")
    return tuple(given)


def _checked_range(setting: str, kind: str, given: list[Any]) -> tuple[float, float]:
    numbers = [x for x in given if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)]
    if len(given) != 2 or len(numbers) != 2:
        raise ConfigError(
            setting, given, f"{kind} must be [LOW, HIGH], two numbers (of exponents with a point: 1.0e-4)"
        )
    low, high = numbers
    if low >= high:
        raise ConfigError(setting, given, f"{kind} must be [LOW, HIGH] with LOW below HIGH")
    limits: dict[str, tuple[Callable[[], bool], str]] = {
        "log": (lambda: low > 0, "must be above 0"),
        "near_one": (lambda: low >= 0 and high < 1, "must be at least 0 and below 1"),
        "int": (lambda: low == int(low) and high == int(high), "must be whole numbers"),
        "power_of_two": (lambda: low >= 1, "must be at least 1"),
    }
    fits, valid = limits.get(kind, (lambda: True, ""))
    if not fits():
        raise ConfigError(setting, given, f"{kind}: {valid}")
    if kind == "power_of_two" and _exponents(low, high)[0] > _exponents(low, high)[1]:
        raise ConfigError(setting, given, f"has no power of two; nearest: {2 ** math.floor(math.log2(low))}")
    return float(low), float(high)


def _exponents(low: float, high: float) -> tuple[int, int]:
    return math.ceil(math.log2(low)), math.floor(math.log2(high))

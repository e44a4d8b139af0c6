"""What a sweep will do: everything that can be checked before the first trial."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from dist_trainer.cli import Setting, apply, check_key, compose_train, parse
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import GROUPS
from dist_trainer.errors import ConfigError, choices
from dist_trainer.plan import plan_train
from dist_trainer.plan_view import require_modules
from dist_trainer.scores import load_scores
from dist_trainer.sweep_space import Knob, Space, load_space
from dist_trainer.verb_configs import SweepConfig

SAMPLERS = ("auto", "gp", "tpe", "cost", "random")
PRUNERS = ("median", "halving", "none")
COSTS = ("seconds", "env_steps")
RETURN = "episode_return"
# Of trainings that nobody looks at one by one; whatever the command says comes behind, and counts.
QUIET = ("replay_minutes=0", "histograms_every=0", "diagnostics_every=0", "keep_checkpoints=1", "keep_best=false")
OF_A_WORKER = ("run_dir", "resume", "torch_threads", "env_threads", "env_groups")


@dataclass(frozen=True)
class SweepPlan:
    """A study that can begin or go on."""

    config: SweepConfig
    space: Space
    settings: tuple[str, ...]  # of all trainings, as they were given
    base: Mapping[str, Any]  # what they come to: values by names with dots, and the groups' files
    folder: Path
    metric: str
    definition: Mapping[str, Any]  # for study.yaml

    def arguments(self, chosen: Mapping[str, Any]) -> list[str]:
        """Of a training with these values."""
        return [*QUIET, *self.settings, *(as_argument(name, value) for name, value in chosen.items())]


def plan_sweep(arguments: Sequence[str]) -> SweepPlan:
    """Raises ConfigError, also where optuna is missing."""
    own = [argument for argument in arguments if argument.startswith("sweep.")]
    settings = tuple(argument for argument in arguments if argument not in own)
    typed: dict[str, SweepConfig] = apply(OmegaConf.create({"sweep": OmegaConf.structured(SweepConfig)}), parse(own))
    config = typed["sweep"]
    validate_sweep(config)
    require_sweep_modules()
    space, declared = load_space(config.space)
    train, groups = compose_train([*QUIET, *settings])
    for name in ("run_dir", "resume"):
        if getattr(train, name) is not None:
            raise ConfigError(name, getattr(train, name), "a sweep makes run folders of its own; see sweep.folder")
    base = {**leaves(dataclasses.asdict(train)), **groups}
    plan_train([*QUIET, *settings], config.learners)
    check_knobs(space, settings, groups)
    scores = load_scores().get(train.env.name)
    metric = config.metric or (scores.metric if scores else RETURN)
    if config.sampler == "cost" and all(knob.setting != "total_env_steps" for knob in space.knobs):
        valid = "weighs costs, and this space has no knob total_env_steps; see configs/sweep/cost.yaml"
        raise ConfigError("sweep.sampler", config.sampler, valid)
    folder = Path(config.folder or f"runs/sweep-{train.env.name}-{groups['optimizer']}")
    return SweepPlan(
        config, space, settings, base, folder, metric, _definition(config, train, groups, declared, metric)
    )


def require_sweep_modules() -> None:
    """Raises ConfigError that says how to install them."""
    require_modules("sweep", "optuna", "scipy", extra="sweep")


def study_text(arguments: Sequence[str]) -> str:
    """What `--cfg job` prints: study.yaml. Raises ConfigError if the sweep could not begin."""
    return yaml.safe_dump(dict(plan_sweep(arguments).definition), sort_keys=False)


def _definition(
    config: SweepConfig, train: TrainConfig, groups: Mapping[str, str], declared: Mapping[str, Any], metric: str
) -> dict[str, Any]:
    settings = {name: value for name, value in dataclasses.asdict(train).items() if name not in OF_A_WORKER}
    score = {"metric": metric, "window": config.window, "seeds": config.seeds, "cost": config.cost}
    score["reports"] = config.reports  # their numbers are compared
    files = {group: file for group, file in groups.items() if group != "machine"}
    return {"sweep": score, "groups": files, "knobs": dict(declared), "train": settings}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their names with dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def check_knobs(space: Space, settings: Sequence[str], groups: Mapping[str, str]) -> None:
    """Every knob is a setting, of a type that its range fits, whatever files of the groups it is combined with.

    What a range's values mean is for each trial to find out. Raises ConfigError.
    """
    files = {knob.setting: knob.values for knob in space.knobs if knob.setting in GROUPS}
    for knob in space.knobs:
        _check_is_knob(knob)
    for combination in itertools.product(*files.values()):
        chosen = dict(zip(files, combination, strict=True))
        given = [*settings, *(as_argument(name, value) for name, value in chosen.items())]
        train: Any = OmegaConf.to_container(OmegaConf.structured(compose_train(given)[0]))
        for knob in space.knobs:
            relevant = [(name, values) for name, values in knob.when if name in files]
            if knob.setting in files or any(chosen[name] not in values for name, values in relevant):
                continue
            for value in knob.ends():
                check_key(train, Setting(knob.setting, value))
                compose_train([*given, as_argument(knob.setting, value)])


def _check_is_knob(knob: Knob) -> None:
    """Raises ConfigError."""
    if knob.setting in ("seed", *OF_A_WORKER):
        raise ConfigError(knob.setting, knob.kind, "is no knob: a sweep sets it itself")
    if knob.setting in ("env", "env.name"):
        valid = "is no knob: scores of different environments cannot be compared"
        raise ConfigError(knob.setting, knob.kind, valid)
    if knob.setting in GROUPS and knob.kind != "choice":
        raise ConfigError(knob.setting, knob.kind, f"must be a choice of files of configs/{knob.setting}")


def as_argument(name: str, value: Any) -> str:
    """For the command line, as its grammar reads it back."""
    return f"{name}={_written(value)}"


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return repr(value) if isinstance(value, float) else str(value)


def validate_sweep(config: SweepConfig) -> None:
    """Raises ConfigError."""

    def require(ok: bool, name: str, valid: str) -> None:
        if not ok:
            raise ConfigError(f"sweep.{name}", getattr(config, name), valid)

    for name, valid in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("cost", COSTS)):
        require(getattr(config, name) in valid, name, choices(valid, str(getattr(config, name))))
    for name in ("trials", "startup", "reports", "workers", "learners", "seeds"):
        require(getattr(config, name) >= 1, name, "must be at least 1")
    for name in ("retries", "seed"):
        require(getattr(config, name) >= 0, name, "must be at least 0")
    for name in ("stall_minutes", "stop_s"):
        require(math.isfinite(getattr(config, name)) and getattr(config, name) > 0, name, "must be above 0")
    require(math.isfinite(config.patience_s) and config.patience_s >= 5, "patience_s", "must be at least 5")
    require(0 < config.window <= 1, "window", "must be above 0 and at most 1")

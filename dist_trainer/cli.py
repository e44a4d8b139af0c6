"""From the command line to a checked configuration. Imports hydra but not torch, so that mistakes show at once."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dist_trainer.checkpoint_file import find_checkpoint, read_checkpoint
from dist_trainer.config import EvaluateConfig, TrainConfig, validate_evaluate, validate_train
from dist_trainer.envs import EnvSpec, env_spec
from dist_trainer.errors import ConfigError, choices
from dist_trainer.run_folder import CONFIG_FILE, check_run_dir
from dist_trainer.target import check_module

T = TypeVar("T")
GROUPS = ("env", "policy", "optimizer")


def config_dir() -> Path:
    """`configs/`: beside the package in a checkout, inside it where it was installed."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package.parent / "configs", package / "configs") if (path / "train.yaml").exists())


def group_choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def _parse(arguments: Sequence[str]) -> list[Override]:
    """Raises ConfigError where an argument is no override."""
    parser = OverridesParser.create()
    parsed = []
    for argument in arguments:
        try:
            parsed.append(parser.parse_override(argument))
        except HydraException:
            raise ConfigError("argument", repr(argument), "must be SETTING=VALUE; see --help") from None
    return parsed


def _one_line(error: Exception) -> str:
    noise = ("full_key", "object_type", "reference_type")
    return " ".join(
        line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().startswith(noise)
    )


def _check_keys(defaults: DictConfig, overrides: Sequence[Override]) -> None:
    """Every override must name an existing setting, or an existing choice of a group."""
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(
                key, override.input_line, "must be SETTING=VALUE; settings cannot be removed or swept here"
            )
        if key in GROUPS:
            if value not in group_choices(key):
                raise ConfigError(
                    key, value, f"no such file in configs/{key}; " + choices(group_choices(key), str(value))
                )
            continue
        node: Any = OmegaConf.to_container(defaults)
        prefix = ""
        for part in key.split("."):
            if not isinstance(node, dict):
                raise ConfigError(key, value, f"{prefix.rstrip('.')} is a single value")
            if part not in node:
                raise ConfigError(key, value, "no such setting; " + choices([prefix + name for name in node], key))
            node, prefix = node[part], f"{prefix}{part}."


def _check_types(defaults: DictConfig, config: DictConfig) -> None:
    """Groups with a _target_ have no dataclass: a value must be of the type of its default in the yaml."""
    for group in ("policy", "optimizer"):
        values: Any = OmegaConf.to_container(config[group])
        plain_defaults: Any = OmegaConf.to_container(defaults[group])
        for name, default in plain_defaults.items():
            value = values[name]
            widened = float(value) if type(value) is int and type(default) is float else value
            if default is not None and type(widened) is not type(default):
                wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}
                kind = wanted.get(type(default).__name__, f"a {type(default).__name__}")
                raise ConfigError(f"{group}.{name}", value, f"must be {kind}; the default is {default}")


def compose_train(arguments: Sequence[str]) -> tuple[TrainConfig, DictConfig, dict[str, str]]:
    """The typed configuration, the same as a tree, and the chosen file of each group. Raises ConfigError."""
    overrides = _parse(arguments)
    groups = [override for override in overrides if override.key_or_group in GROUPS]
    store = ConfigStore.instance()
    store.store(name="schema", node=TrainConfig)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            for override in groups:
                _check_keys(OmegaConf.create(), [override])
            defaults = compose("train", [override.input_line or "" for override in groups])
            _check_keys(defaults, overrides)
            config = compose("train", list(arguments), return_hydra_config=True)
        chosen = {group: config.hydra.runtime.choices[group] for group in GROUPS}
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        _check_types(defaults, config)
        typed: Any = OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise _as_config_error(error) from None
    return typed, config, chosen


def _as_config_error(error: Exception) -> ConfigError:
    cause: BaseException | None = error
    while cause and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    field = str(getattr(cause, "full_key", None) or "configuration")
    if isinstance(cause, MissingMandatoryValue):
        return ConfigError(field, "", "is required")
    message = _one_line(cause if isinstance(cause, Exception) else error)
    value = re.search(r"[Vv]alue '(.*?)'", message)
    return ConfigError(field, value.group(1) if value else "", message)


def _typed_from(schema: type[T], overrides: Sequence[Override], base: DictConfig) -> T:
    """`base` with overrides, checked against the dataclass. Raises ConfigError."""
    _check_keys(base, overrides)
    try:
        for override in overrides:
            OmegaConf.update(base, override.key_or_group, override.value())
        typed: Any = OmegaConf.to_object(base)
    except OmegaConfBaseException as error:
        raise _as_config_error(error) from None
    assert isinstance(typed, schema)
    return typed


def load_train_config(run_dir: Path) -> TrainConfig:
    """The configuration that a run folder was made with. Raises ConfigError."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError("run folder", run_dir, f"is not one: it has no {CONFIG_FILE}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(path))
        typed: Any = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError("run folder", path, _one_line(error)) from None
    return typed


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """A run that can start."""

    config: TrainConfig
    default_name: tuple[str, str]  # policy and optimizer, for the run folder's name
    resume_from: Path | None  # checkpoint file


def plan_train(arguments: Sequence[str], world_size: int) -> TrainPlan:
    """Everything that can be checked before torch is imported and learners connect. Raises ConfigError."""
    overrides = _parse(arguments)
    resume = next((str(override.value()) for override in overrides if override.key_or_group == "resume"), None)
    if resume:
        config, checkpoint = _plan_resume(resume, [o for o in overrides if o.key_or_group != "resume"])
        names = ("", "")
    else:
        config, _, chosen = compose_train(arguments)
        names, checkpoint = (chosen["policy"], chosen["optimizer"]), None
    validate_train(config, world_size)
    for group, settings in (("policy", config.policy), ("optimizer", config.optimizer)):
        check_module(group, str(settings["_target_"]))
    check_policy_fits(config, env_spec(config.env))
    if not resume and config.run_dir:
        check_run_dir(config.run_dir)
    return TrainPlan(config, names, checkpoint)


def _plan_resume(resume: str, overrides: Sequence[Override]) -> tuple[TrainConfig, Path]:
    checkpoint = find_checkpoint(resume, "resume")
    read_checkpoint(checkpoint)  # damaged files are refused now
    run_dir = checkpoint.parent.parent if Path(resume).is_file() else Path(resume)
    saved = load_train_config(run_dir)
    # What these say is in the checkpoint: changing it would make another run of this one.
    fixed = ("env", "policy", "total_envs", "horizon", "seed", "dtype", "run_dir")
    for override in overrides:
        key = override.key_or_group
        if key in GROUPS or key.split(".")[0] in fixed or key == "optimizer._target_":
            raise ConfigError(key, override.value(), "cannot change when a run is resumed; start a new one")
    config = _typed_from(TrainConfig, overrides, OmegaConf.structured(saved))
    return dataclasses.replace(config, run_dir=str(run_dir)), checkpoint


def check_policy_fits(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises ConfigError if the policy has no head for the environment's actions."""
    kinds = config.policy.get("action_kinds", [])
    if spec.action_kind not in kinds:
        valid = (
            f"{config.env.name} has {spec.action_kind} actions, which this policy does not list; choose another policy"
        )
        raise ConfigError("policy.action_kinds", kinds, valid)


def plan_evaluate(arguments: Sequence[str]) -> tuple[EvaluateConfig, TrainConfig, Path]:
    """What to evaluate, the configuration it was trained with, and the checkpoint file. Raises ConfigError."""
    config = _typed_from(EvaluateConfig, _parse(arguments), OmegaConf.structured(EvaluateConfig))
    validate_evaluate(config)
    checkpoint = find_checkpoint(config.checkpoint, "checkpoint")
    read_checkpoint(checkpoint)
    return config, load_train_config(checkpoint.parent.parent), checkpoint


def job_text(arguments: Sequence[str]) -> str:
    """What `train --cfg job` prints: the resolved configuration."""
    return OmegaConf.to_yaml(compose_train(arguments)[1])


def launched_world_size() -> int:
    """The number of learners that torchrun announces. Raises ConfigError where it is no number."""
    value = os.environ.get("WORLD_SIZE", "1")
    if not value.isdigit() or int(value) < 1:
        raise ConfigError("WORLD_SIZE", value, "the launcher must set a number of at least 1")
    return int(value)

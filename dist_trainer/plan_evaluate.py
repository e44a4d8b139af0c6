"""What `evaluate` will do: everything that can be checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

from dist_trainer.cli import Setting, apply, parse
from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError
from dist_trainer.plan_trained import check_writable, find_trained_checkpoint, load_trained, opponents
from dist_trainer.pools import env_spec
from dist_trainer.validation import validate_evaluate
from dist_trainer.verb_configs import EvaluateConfig


@dataclass(frozen=True)
class Rival:
    trained: TrainConfig
    checkpoint: Path


@dataclass(frozen=True)
class EvaluatePlan:
    config: EvaluateConfig
    trained: TrainConfig  # the configuration of the run, its environment as it is to be evaluated in
    checkpoint: Path
    rivals: dict[str, Rival] = field(default_factory=dict)  # by the name that was given


def plan_evaluate(arguments: Sequence[str]) -> EvaluatePlan:
    """Raises ConfigError. Settings of env.params change the environment: to other levels, or another size."""
    settings = parse(arguments)
    elsewhere = [setting for setting in settings if setting.key.startswith("env.params.")]
    base = OmegaConf.structured(EvaluateConfig)
    config: EvaluateConfig = apply(base, [setting for setting in settings if setting not in elsewhere])
    validate_evaluate(config)
    checkpoint = find_trained_checkpoint(config.checkpoint, config.best)
    if config.json:
        check_writable("json", Path(config.json))
    trained = load_trained(checkpoint, config.library, elsewhere)
    if any(setting.key.removeprefix("env.params.") in trained.env.opponents for setting in elsewhere):
        config = replace(config, opponents=False)  # the one that was asked for
    opponents(trained.env)
    return EvaluatePlan(config, trained, checkpoint, _rivals(config, trained, elsewhere))


def _rivals(config: EvaluateConfig, trained: TrainConfig, elsewhere: Sequence[Setting]) -> dict[str, Rival]:
    """Raises ConfigError if one cannot play there."""
    spec, found = env_spec(trained.env), {}
    if config.against and spec.teams < 2:
        valid = f"must be empty: the agents of env={trained.env.name}, with these parameters, do not play in teams"
        raise ConfigError("against", config.against, valid)
    for name in config.against:
        checkpoint = find_trained_checkpoint(name, False, "against")
        other = load_trained(checkpoint, config.library, elsewhere)
        if other.env.name != trained.env.name or env_spec(other.env) != spec:
            seen = "with other observations, actions or agents" if other.env.name == trained.env.name else ""
            valid = f"was trained in env={other.env.name} {seen}".rstrip() + f"; must be in env={trained.env.name}"
            raise ConfigError("against", name, valid)
        found[name] = Rival(other, checkpoint)
    return found

"""A trained policy as a command names it: which checkpoint, of which environment. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from dist_trainer.checkpoint_search import find_checkpoint, is_checkpoint
from dist_trainer.cli import Setting, apply, load_env_config, load_train_config
from dist_trainer.config import EnvConfig, TrainConfig, ViewConfig
from dist_trainer.config_files import group_files
from dist_trainer.errors import ConfigError
from dist_trainer.pools import env_spec


def find_trained_checkpoint(checkpoint: str, best: bool, setting: str = "checkpoint") -> Path:
    """`checkpoint`: a run folder or one of its checkpoints, the value of `setting`. Raises ConfigError."""
    if best and is_checkpoint(Path(checkpoint)):
        raise ConfigError("best", True, "acts only where checkpoint names a run folder, not one of its checkpoints")
    return find_checkpoint(checkpoint, setting, best=best)


def load_trained(checkpoint: Path, library: str | None, elsewhere: Sequence[Setting] = ()) -> TrainConfig:
    """The configuration of the run, its environment with the settings `elsewhere` of env.*. Raises ConfigError."""
    trained = load_train_config(checkpoint.parent.parent, library=library and str(Path(library).resolve()))
    env_spec(trained.env)
    trained = dataclasses.replace(trained, env=as_told_now(trained.env))
    return _elsewhere(trained, elsewhere) if elsewhere else trained


def as_told_now(env: EnvConfig) -> EnvConfig:
    """How it is looked at and measured, where the run does not say, is as in the yaml of the environment's name."""
    if env.name not in group_files("env"):
        return env
    yaml = load_env_config(env.name)
    view = yaml.view if env.view == ViewConfig() else env.view
    return dataclasses.replace(env, view=view, opponents=env.opponents or yaml.opponents)


def opponents(env: EnvConfig) -> dict[str, EnvConfig]:
    """By a name such as opponent=4: the environment with each of the values of `env.opponents`. Raises ConfigError."""
    found = {}
    for parameter, values in env.opponents.items():
        if not isinstance(values, list):
            raise ConfigError(f"env.opponents.{parameter}", values, "must be a list of the parameter's values")
        for value in values:
            found[f"{parameter}={value}"] = dataclasses.replace(env, params={**env.params, parameter: value})
    for other in found.values():
        env_spec(other)
    return found


def _elsewhere(trained: TrainConfig, settings: Sequence[Setting]) -> TrainConfig:
    """Raises ConfigError, also if the policy would see or do other things there."""
    changed: TrainConfig = apply(OmegaConf.structured(trained), settings)
    before, after = (
        dataclasses.replace(env_spec(c.env), num_agents=1, teams=1, picture=None) for c in (trained, changed)
    )
    if before != after:
        valid = "changes the shape of observations or actions, which must be those that the policy was trained with"
        raise ConfigError(settings[-1].key, settings[-1].value, valid)
    return changed


def check_writable(name: str, file: Path) -> None:
    """Raises ConfigError. Tries, because permission bits say nothing to root; leaves no new file behind."""
    is_new = not file.exists()
    try:
        file.open("a").close()
    except OSError as error:
        raise ConfigError(name, file, f"cannot be written: {error.strerror}") from None
    if is_new:
        file.unlink()

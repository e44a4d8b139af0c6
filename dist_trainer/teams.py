"""Who plays against whom: by environments and rows.

Legend: E environments, A agents of each, N = E * A rows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import TrainConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError


def check_teams(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises ConfigError where there is nobody to play against, or no telling who has won."""
    if config.self_play.past and not (spec.teams > 1 and spec.metrics):
        valid = f"must be 0: the agents of env={config.env.name}, with these parameters, do not play in teams"
        raise ConfigError("self_play.past", config.self_play.past, valid)


def past_envs(share: float, first_env: int, num_envs: int) -> NDArray[np.bool_]:
    """(E,) where a past policy plays: this share of the global environments, evenly spread, for any slice of them."""
    return np.array([_so_many(share, env + 1) > _so_many(share, env) for env in range(first_env, first_env + num_envs)])


def in_turn(share: float, first_env: int, num_envs: int, spec: EnvSpec) -> NDArray[np.bool_]:
    """(N,) a whole team in each of the environments of past_envs, in the next of them the next team."""
    found = np.zeros((num_envs, spec.teams, spec.num_agents // spec.teams), np.bool_)
    for env in np.flatnonzero(past_envs(share, first_env, num_envs)):
        found[env, _so_many(share, first_env + int(env)) % spec.teams] = True
    return found.reshape(-1)


def _so_many(share: float, envs: int) -> int:
    """Of the first `envs` environments."""
    return math.floor(share * envs + 1e-9)

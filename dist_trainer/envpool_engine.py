"""EnvPool's environments (env=envpool): Atari, MuJoCo and others, stepped by C++ threads (arXiv 2206.10558).

`env.params` is what envpool.make takes beside the id. EnvPool resets an environment in the step after the last of its
episode, which counts for nothing here (foreign_pool.Outcome). Of an episode that ends by its rules in the very step of
its time limit EnvPool 1.2.5 says that it was truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import envpool
import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError
from dist_trainer.foreign_pool import Outcome
from dist_trainer.gymnasium_engine import spec_of_spaces, to_space


def _make(config: EnvConfig, num_envs: int, **settings: Any) -> Any:
    """Raises ConfigError with EnvPool's reason."""
    try:
        made = envpool.make(str(config.id), env_type="gymnasium", num_envs=num_envs, **config.params, **settings)
    except Exception as error:
        raise ConfigError("env.id", config.id, f"envpool cannot make it: {' '.join(str(error).split())}") from error
    if made.config["max_num_players"] != 1:
        raise ConfigError("env.id", config.id, "has several agents; envpool's environments of one can be used")
    return made


def spec_of(config: EnvConfig) -> EnvSpec:
    made = _make(config, 1)
    return spec_of_spaces(str(config.id), made.observation_space, made.action_space)


class EnvpoolEngine:
    """A foreign_pool.Engine. EnvPool takes seeds only when it makes environments: they are made again to begin."""

    resets_at_once = False

    def __init__(self, config: EnvConfig, num_envs: int, threads: int, cores: Sequence[int]):
        self._config, self._num_envs, self._threads = config, num_envs, threads
        self._first_core = cores[0] if cores else -1  # EnvPool pins to this and the following ones
        self._ids = np.arange(num_envs, dtype=np.int32)
        self._pool: Any = None

    def begin(self, seeds: list[int]) -> NDArray[Any]:
        self._pool = None  # ends its threads first
        self._pool = _make(
            self._config,
            self._num_envs,
            seed=seeds,
            num_threads=self._threads,
            thread_affinity_offset=self._first_core,
        )
        observations, infos = self._pool.reset()
        return self._in_order(observations, infos)

    def send(self, actions: NDArray[Any]) -> None:
        self._pool.send(to_space(actions, self._pool.action_space), self._ids)

    def recv(self) -> Outcome:
        observations, rewards, terminated, truncated, infos = self._pool.recv()
        ordered = [self._in_order(array, infos) for array in (observations, rewards, terminated, truncated)]
        return Outcome(ordered[0], ordered[1], ordered[2], ordered[3])

    def _in_order(self, array: NDArray[Any], infos: dict[str, Any]) -> NDArray[Any]:
        """Of the environments, whoever was done first."""
        ids = infos["env_id"]
        return array if (ids == self._ids).all() else array[np.argsort(ids)]

    def close(self) -> None:
        self._pool = None

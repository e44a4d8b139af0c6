"""The pool that a configuration asks for: of our C++ environments, or over another engine.

Engines are optional dependencies, imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dist_trainer import envs
from dist_trainer.config import FOREIGN_ENVS, EnvConfig
from dist_trainer.envs import EnvPool, EnvSpec, WorkSpan
from dist_trainer.errors import ConfigError
from dist_trainer.foreign_pool import Engine, ForeignPool


class Pool(Protocol):
    """What envs.EnvPool says of itself."""

    spec: EnvSpec
    num_envs: int
    keeps_state: bool
    incoming: NDArray[np.uint8]
    incoming_layout: dict[str, tuple[int, str, tuple[int, ...]]]
    observations: NDArray[Any]
    final_observations: NDArray[Any]
    actions: NDArray[Any]
    noise: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    legal: NDArray[np.bool_]
    resting: NDArray[np.bool_]
    silent: NDArray[np.bool_]
    statistics: NDArray[np.float64]

    @property
    def rows(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    def reset(self) -> None: ...
    def send(self) -> None: ...
    def recv(self) -> None: ...
    def take_faults(self) -> list[str]: ...
    def take_statistics(self) -> NDArray[np.float64]: ...
    def trace(self, on: bool) -> None: ...
    def take_spans(self) -> list[WorkSpan]: ...
    def snapshot(self) -> NDArray[np.uint8]: ...
    def restore(self, rows: NDArray[np.uint8]) -> None: ...


def default_params(name: str) -> dict[str, float]:
    """Every parameter that the environment declares; other engines declare none. Raises ConfigError if there is no such
    environment."""
    return {} if name in FOREIGN_ENVS else envs.default_params(name)


def env_spec(config: EnvConfig) -> EnvSpec:
    """Raises ConfigError if there is no such environment, or it does not take these parameters."""
    if config.name not in FOREIGN_ENVS:
        return envs.env_spec(config)
    _require_engine(config)
    if config.name == "gymnasium":
        from dist_trainer import gymnasium_engine

        return gymnasium_engine.spec_of(config)
    from dist_trainer import envpool_engine

    return envpool_engine.spec_of(config)


def make_pool(
    config: EnvConfig, *, num_envs: int, first_env: int, seed: int, threads: int, cores: Sequence[int] = ()
) -> Pool:
    """See envs.EnvPool. Raises what it raises, and ConfigError if an engine is not installed."""
    if config.name not in FOREIGN_ENVS:
        return EnvPool(config, num_envs=num_envs, first_env=first_env, seed=seed, threads=threads, cores=cores)
    spec = env_spec(config)
    engine: Engine
    if config.name == "gymnasium":
        from dist_trainer.gymnasium_engine import GymnasiumEngine

        engine = GymnasiumEngine(config, num_envs)
    else:
        from dist_trainer.envpool_engine import EnvpoolEngine

        engine = EnvpoolEngine(config, num_envs, threads, cores)
    return ForeignPool(config, spec, engine, num_envs=num_envs, first_env=first_env, seed=seed)


def _require_engine(config: EnvConfig) -> None:
    """Raises ConfigError that says how to install it."""
    if not config.id:
        raise ConfigError("env.id", config.id, f"is required with env={config.name}, such as env.id=CartPole-v1")
    try:
        __import__(config.name)
    except ImportError as error:
        how = f"needs the extra of that name: pip install 'dist_trainer[{config.name}]' ({error})"
        raise ConfigError("env", config.name, how) from None

"""Gymnasium's vector environments (env=gymnasium): any with one agent, a Box to see and numbers to choose.

`env.params` is what gymnasium.make_vec takes beside the id. Its `vectorization_mode` is sync with env.workers=threads
(one environment after the other, in the learner's process) and async with processes (each in one of its own);
vector_entry_point takes an environment's own vectorized form, where it has one.

gymnasium >= 1.1 says when a vector environment resets (`autoreset_mode`): within the step that ends an episode, and
hands over the final observation; or in the step after, which counts for nothing here (foreign_pool.Outcome).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError
from dist_trainer.foreign_pool import Outcome


def spec_of_spaces(name: str, seen: spaces.Space[Any], taken: spaces.Space[Any]) -> EnvSpec:
    """Of one agent. Raises ConfigError if they are of a kind that the policies cannot see or choose."""
    if not isinstance(seen, spaces.Box):
        raise ConfigError("env.id", name, f"shows a {type(seen).__name__}; only a Box can be seen: flatten it")
    if not seen.shape or 0 in seen.shape:
        raise ConfigError("env.id", name, f"shows a Box of shape {seen.shape}; must have at least one axis: reshape it")
    sizes: list[int] = []
    low = high = np.zeros(0)
    if isinstance(taken, spaces.Discrete):
        kind, sizes = "discrete", [int(taken.n)]
    elif isinstance(taken, spaces.MultiDiscrete) and taken.nvec.ndim == 1:
        kind, sizes = "multi_discrete", [int(n) for n in taken.nvec]
    elif isinstance(taken, spaces.Box):
        kind, low, high = "continuous", taken.low.reshape(-1), taken.high.reshape(-1)
        if not len(low) or not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            valid = "must have finite bounds, the lower ones below the upper: wrap it (RescaleAction, ClipAction)"
            raise ConfigError("env.id", name, f"takes {taken}; {valid}")
    else:
        raise ConfigError("env.id", name, f"takes a {type(taken).__name__}; must be Discrete, MultiDiscrete or a Box")
    return EnvSpec(
        observation_shape=tuple(seen.shape),
        observation_is_bytes=seen.dtype == np.uint8,
        action_kind=kind,
        action_sizes=tuple(sizes),
        action_low=tuple(map(float, low)),
        action_high=tuple(map(float, high)),
        num_agents=1,
        metrics=(),
    )


def to_space(actions: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """(N, C) as an array of the space's own shape, type and first number."""
    if isinstance(space, spaces.Discrete):
        return actions[:, 0].astype(space.dtype) + space.start
    if isinstance(space, spaces.MultiDiscrete):
        return actions.astype(space.dtype) + space.start
    return actions.reshape(-1, *(space.shape or ())).astype(space.dtype)


def _make(config: EnvConfig, num_envs: int) -> VectorEnv[Any, Any, Any]:
    """Raises ConfigError with Gymnasium's reason."""
    mode = {"threads": "sync", "processes": "async"}[config.workers]
    settings = {"vectorization_mode": mode, **config.params}
    if settings["vectorization_mode"] in ("sync", "async"):
        settings["vector_kwargs"] = {"autoreset_mode": AutoresetMode.SAME_STEP, **settings.get("vector_kwargs", {})}
    try:
        made = gymnasium.make_vec(str(config.id), num_envs=num_envs, **settings)
    except Exception as error:
        raise ConfigError("env.id", config.id, f"gymnasium cannot make it: {' '.join(str(error).split())}") from error
    when = made.metadata.get("autoreset_mode")
    if when not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        made.close()
        raise ConfigError("env.id", config.id, f"its autoreset_mode is {when}; must be SAME_STEP or NEXT_STEP")
    return made


def spec_of(config: EnvConfig) -> EnvSpec:
    made = _make(config, 1)
    try:
        return spec_of_spaces(str(config.id), made.single_observation_space, made.single_action_space)
    finally:
        made.close()


class GymnasiumEngine:
    """A foreign_pool.Engine."""

    def __init__(self, config: EnvConfig, num_envs: int):
        self._env = _make(config, num_envs)
        self.resets_at_once = self._env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        self._actions: NDArray[Any] | None = None

    def begin(self, seeds: list[int]) -> NDArray[Any]:
        """A vectorized form of its own takes one seed for all."""
        env: Any = self._env
        each = isinstance(env, AsyncVectorEnv | SyncVectorEnv)
        observations, _ = env.reset(seed=seeds if each else seeds[0])
        return np.asarray(observations)

    def send(self, actions: NDArray[Any]) -> None:
        self._actions = to_space(actions, self._env.single_action_space)
        if isinstance(self._env, AsyncVectorEnv):
            self._env.step_async(self._actions)

    def recv(self) -> Outcome:
        env = self._env
        results: Any = env.step_wait() if isinstance(env, AsyncVectorEnv) else env.step(self._actions)
        observations, rewards, terminated, truncated, infos = results
        if not self.resets_at_once:
            return Outcome(observations, rewards, terminated, truncated)

        def final(rows: NDArray[np.int64]) -> NDArray[Any]:
            return np.stack([infos["final_obs"][row] for row in rows])

        return Outcome(observations, rewards, terminated, truncated, final)

    def close(self) -> None:
        self._env.close()

"""Reference players: one module per environment, `play(episodes, seed)`, whose scores say what a good player reaches.

A module is named as its environment's yaml. Its first line of documentation says who plays. `METRIC`, if the score is
not the episode's return, names one of the environment's metrics; `PARAMS`, if any, are parameters of the environment
that the score is measured with. benchmarks/env_scores.py runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_trainer.cli import compose_train
from dist_trainer.envs import EnvPool, statistics_names

# (N, C) the next actions of all rows of a pool, from what it shows.
Choose = Callable[[EnvPool], NDArray[Any]]


class EpisodesTooLong(RuntimeError):
    """Some environments did not finish an episode within so many steps."""


def play_through_pool(
    env: str,
    choose: Callable[[EnvPool], Choose],
    episodes: int,
    seed: int,
    *,
    metric: str = "episode_return",
    max_steps: int = 1_000_000,
    params: Mapping[str, float] | None = None,
) -> list[float]:
    """(episodes,) the metric of the first episode of each of as many environments; with several agents their mean.

    `env` names a yaml of configs/env; `choose(pool)` makes the player, which may keep what it remembers. Raises
    EpisodesTooLong, ConfigError and whatever the pool raises.
    """
    settings = [f"env={env}", *(f"env.params.{name}={value}" for name, value in (params or {}).items())]
    config = compose_train(settings)[0].env
    pool = EnvPool(config, num_envs=episodes, first_env=0, seed=seed, threads=1)
    pool.reset()
    player = choose(pool)
    first = np.zeros_like(pool.statistics)  # (episodes, 3 + metrics) when the first episode of each was over
    for _ in range(max_steps):
        pool.actions[:] = player(pool)
        pool.send()
        pool.recv()
        over = (first[:, 0] == 0) & (pool.statistics[:, 0] >= pool.spec.num_agents)
        first[over] = pool.statistics[over]
        if first[:, 0].all():
            at = 1 + statistics_names(pool.spec).index(metric)
            values: list[float] = (first[:, at] / first[:, 0]).tolist()
            return values
    unfinished = int((first[:, 0] == 0).sum())
    raise EpisodesTooLong(f"{unfinished} of {episodes} environments of {env} took more than {max_steps} steps")


def uniform_player(pool: EnvPool) -> Choose:
    """Chooses uniformly among the legal actions (of boxes: between their bounds), by the pool's keyed noise."""
    spec = pool.spec
    if spec.action_kind == "continuous":
        low, high = np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)
        return lambda pool: low + (high - low) * pool.noise
    sizes = np.array(spec.action_sizes)
    if not spec.has_legal:
        return lambda pool: np.floor(pool.noise * sizes).astype(np.int32)
    bounds = np.cumsum(sizes)[:-1]

    def among_legal(pool: EnvPool) -> NDArray[Any]:
        chosen = np.empty_like(pool.actions)
        for component, legal in enumerate(np.split(pool.legal, bounds, axis=1)):  # (N, size of this component)
            rank = np.floor(pool.noise[:, component] * legal.sum(1)).astype(np.int64)  # (N,) among the legal ones
            chosen[:, component] = (legal.cumsum(1) > rank[:, None]).argmax(1)
        return chosen

    return among_legal

"""Steers right all the way down; which action that is in each row it has tried out before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool, default_params


def way_down(pool: EnvPool, size: int) -> list[int]:
    """(size,) actions. In a cell of the diagonal, the one whose reward is not 0 steers right."""
    known: list[int] = []
    for _ in range(size):
        pool.reset()
        for action in [*known, 1]:
            pool.actions[:] = action
            pool.send()
            pool.recv()
        known.append(int(pool.rewards[0] != 0))
    pool.reset()
    return known


def play(episodes: int, seed: int, **params: float) -> list[float]:
    size = int({**default_params("deepsea"), **params}["size"])

    def player(pool: EnvPool) -> Choose:
        actions = way_down(pool, size)

        def choose(pool: EnvPool) -> NDArray[Any]:
            cell = pool.observations.argmax(1)  # (N,) row * size + column
            return np.array(actions, np.int32)[cell // size][:, None]

        return choose

    return play_through_pool("deepsea", player, episodes, seed, params=params)

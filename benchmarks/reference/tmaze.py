"""Remembers the cue, walks to the junction and turns the way that the cue said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC = "success"
FORWARD, LEFT, RIGHT = 0, 1, 2
CUE_LEFT, CUE_RIGHT, AT_JUNCTION = 0, 1, 3  # entries of the observation


def player(pool: EnvPool) -> Choose:
    turn = np.full(pool.rows, LEFT, np.int32)

    def choose(pool: EnvPool) -> NDArray[Any]:
        seen = pool.observations
        turn[seen[:, CUE_LEFT] == 1] = LEFT
        turn[seen[:, CUE_RIGHT] == 1] = RIGHT
        return np.where(seen[:, AT_JUNCTION] == 1, turn, FORWARD)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("tmaze", player, episodes, seed, metric=METRIC)

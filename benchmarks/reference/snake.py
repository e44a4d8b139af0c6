"""A greedy bot: of the squares beside its head that do not kill, it enters the one that is nearest to food in view.

It keeps away from squares that another head may enter too, where it has a choice. It sees what the agents see.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC, EPISODES = "length", 16  # boards, of 256 snakes each
SIDE, MIDDLE = 11, 5
NEXT = np.array([(MIDDLE - 1, MIDDLE), (MIDDLE, MIDDLE - 1), (MIDDLE, MIDDLE + 1)])  # (row, column) ahead, left, right
NO_FOOD, BESIDE_A_HEAD, KILLS = 50.0, 100.0, 1000.0


def distances() -> NDArray[np.float64]:
    """(3, 121) steps from the square of each action to each square in view, as if nothing were in the way."""
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    return np.abs(rows - NEXT[:, :1]) + np.abs(columns - NEXT[:, 1:]).astype(np.float64)


def player(pool: EnvPool) -> Choose:
    apart = distances()

    def choose(pool: EnvPool) -> NDArray[Any]:
        food, kills, heads = (pool.observations.reshape(-1, 3, SIDE, SIDE) > 0).swapaxes(0, 1)
        cost = np.full((len(food), 3), NO_FOOD)
        flat = food.reshape(len(food), -1)
        for action, steps in enumerate(apart):
            cost[:, action] = np.where(flat, steps, NO_FOOD).min(1)
        others = heads.copy()
        others[:, MIDDLE, MIDDLE] = False
        near = np.zeros_like(others)
        near[:, 1:] |= others[:, :-1]
        near[:, :-1] |= others[:, 1:]
        near[:, :, 1:] |= others[:, :, :-1]
        near[:, :, :-1] |= others[:, :, 1:]
        cost += BESIDE_A_HEAD * near[:, NEXT[:, 0], NEXT[:, 1]] + KILLS * kills[:, NEXT[:, 0], NEXT[:, 1]]
        return cost.argmin(1)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("snake", player, episodes, seed, metric=METRIC)

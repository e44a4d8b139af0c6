"""Follows the ball, two frames ahead of where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC = "score"
STAY, LEFT, RIGHT = 0, 1, 2
HALF_WIDTH, FASTEST = 72.0, 3.5  # the units of the observation's positions and speeds
STEP = 12.0  # the paddle's way in one step: 4 frames of 3; it hits balls up to 13 from its middle


def player(pool: EnvPool) -> Choose:
    def choose(pool: EnvPool) -> NDArray[Any]:
        paddle, ball, _, sideways = pool.observations.T[:4]
        away = (ball - paddle) * HALF_WIDTH + 2 * sideways * FASTEST
        return np.select([away > STEP / 2, away < -STEP / 2], [RIGHT, LEFT], STAY)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("breakout", player, episodes, seed, metric=METRIC)

"""Full torque, its sign by a linear rule of velocities and of how far the links are out (by cross-entropy search)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

EPISODES = 1000
# To brake the first link's turn alone scores -82; these weights were searched for on episodes of other seeds.
VELOCITY1, VELOCITY2, OUT1, OUT2, OUT_TIP = -1.2, 0.7, -0.9, -0.4, -1.0


def player(_: EnvPool) -> Choose:
    def choose(pool: EnvPool) -> NDArray[Any]:
        cosine1, sine1, cosine2, sine2, velocity1, velocity2 = pool.observations.T
        tip = sine1 * cosine2 + cosine1 * sine2  # sine of theta1 + theta2
        rule = VELOCITY1 * velocity1 + VELOCITY2 * velocity2 + OUT1 * sine1 + OUT2 * sine2 + OUT_TIP * tip
        return np.where(rule > 0, 2, 0).astype(np.int32)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("acrobot", player, episodes, seed)

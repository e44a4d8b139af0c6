"""A linear-quadratic regulator of the pole's equations linearized upright, pushing to the side that it asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

GRAVITY, MASS_POLE, TOTAL_MASS, HALF_LENGTH, TIME_STEP = 9.8, 0.1, 1.1, 0.5, 0.02


def gain() -> NDArray[np.float64]:
    """(4,) of (position, velocity, angle, angular velocity), by Riccati's iteration with unit costs."""
    # For small angles: angular acceleration = (g angle - force / M) / k, acceleration = (force - m l (that)) / M.
    k = HALF_LENGTH * (4 / 3 - MASS_POLE / TOTAL_MASS)
    lever = MASS_POLE * HALF_LENGTH / TOTAL_MASS
    a = np.eye(4)
    a[0, 1] = a[2, 3] = TIME_STEP
    a[3, 2], a[1, 2] = TIME_STEP * GRAVITY / k, -TIME_STEP * lever * GRAVITY / k
    b = TIME_STEP / TOTAL_MASS * np.array([[0.0], [1 + lever / k], [0.0], [-1 / k]])
    cost = np.eye(4)
    for _ in range(2000):
        feedback = np.linalg.solve(1 + b.T @ cost @ b, b.T @ cost @ a)  # (1, 4)
        cost = np.eye(4) + a.T @ cost @ (a - b @ feedback)
    return feedback[0]


def player(_: EnvPool) -> Choose:
    towards = -gain()

    def choose(pool: EnvPool) -> NDArray[Any]:
        return (pool.observations @ towards > 0)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("cartpole", player, episodes, seed)

"""Optimal control by backward induction on a fine grid of angles and velocities, for an episode without an end."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.grid_planning import Array, Axis, Plan, plan
from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

EPISODES = 1000  # which differ much by how they start
TORQUES = tuple(np.linspace(-2, 2, 17))
STEPS = 120  # until nothing is left to be gained: swinging up takes 40 to 80


def model(angle: Array, velocity: Array, torque: float) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Of Gymnasium's Pendulum-v1: g 10, m 1, l 1, steps of 0.05 s, velocities up to 8. Angles in [-pi, pi)."""
    reward = -(angle**2 + 0.1 * velocity**2 + 0.001 * torque**2)
    faster = np.clip(velocity + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
    return angle + 0.05 * faster, faster, reward, np.zeros(angle.shape, bool)


@cache
def make_plan() -> Plan:
    return plan(Axis(-np.pi, np.pi, 151, wraps=True), Axis(-8, 8, 121), model, TORQUES, STEPS)


def player(_: EnvPool) -> Choose:
    best = make_plan()

    def choose(pool: EnvPool) -> NDArray[Any]:
        cosine, sine, velocity = pool.observations.T.astype(np.float64)
        return best.best_actions(np.arctan2(sine, cosine), velocity)[:, None].astype(np.float32)

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("pendulum", player, episodes, seed)

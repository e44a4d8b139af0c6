"""Optimal control by backward induction on a fine grid of positions and velocities."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.grid_planning import Array, Axis, Plan, plan
from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

EPISODES = 1000
PUSHES = (-1.0, 0.0, 1.0)
STEPS = 150  # more than the best way out of anywhere takes


def model(position: Array, velocity: Array, push: float) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Of Gymnasium's MountainCar-v0."""
    faster = np.clip(velocity + 0.001 * push - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    there = np.clip(position + faster, -1.2, 0.6)
    faster = np.where((there == -1.2) & (faster < 0), 0, faster)
    return there, faster, -np.ones(position.shape), (there >= 0.5) & (faster >= 0)


@cache
def make_plan() -> Plan:
    return plan(Axis(-1.2, 0.6, 201), Axis(-0.07, 0.07, 161), model, PUSHES, STEPS)


def player(_: EnvPool) -> Choose:
    best = make_plan()

    def choose(pool: EnvPool) -> NDArray[Any]:
        position, velocity = pool.observations.T.astype(np.float64)
        return (best.best_actions(position, velocity) + 1).astype(np.int32)[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("mountaincar", player, episodes, seed)

"""A linear-quadratic regulator of the equations linearized in hovering; it flies to its waypoint and sees no other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC = "in_time"
Array = NDArray[np.float64]
GRAVITY, INERTIA, ARM = 9.81, 0.04, 0.25  # mass 1
SUBSTEP, SUBSTEPS = 0.02, 2
COSTS = np.diag([1.0, 1.0, 0.5, 0.2, 0.2, 0.1])  # of x, y, angle and their rates
THRUST_COST = 0.05
FARTHEST = 2.5  # metres at which the waypoint is taken to lie if it is farther: the linearization holds near hovering


def linearized() -> tuple[Array, Array]:
    """(6, 6), (6, 2): of (x, y, angle, vx, vy, rate) over one step, thrusts beyond hovering in N."""
    velocities = np.eye(6)  # semi-implicit Euler: first velocities, then places
    velocities[3, 2] = -SUBSTEP * GRAVITY
    thrusts = np.zeros((6, 2))
    thrusts[4] = SUBSTEP
    thrusts[5] = SUBSTEP * ARM / INERTIA * np.array([-1, 1])
    places = np.eye(6)
    places[:3, 3:] = SUBSTEP * np.eye(3)
    one, push = places @ velocities, places @ thrusts
    a, b = np.eye(6), np.zeros((6, 2))
    for _ in range(SUBSTEPS):
        a, b = one @ a, one @ b + push
    return a, b


def gains() -> Array:
    """(2, 6) by Riccati's iteration."""
    a, b = linearized()
    value = COSTS
    for _ in range(2000):
        feedback = np.asarray(np.linalg.solve(THRUST_COST * np.eye(2) + b.T @ value @ b, b.T @ value @ a), np.float64)
        value = COSTS + a.T @ value @ (a - b @ feedback)
    return feedback


def read(observations: NDArray[np.float32]) -> Array:
    """(N, 22) -> (N, 6): the state, with the waypoint as the origin."""
    goal, velocity = 2 * observations[:, :2], 2 * observations[:, 2:4]
    angle, rate = np.arctan2(observations[:, 4], observations[:, 5]), 2 * observations[:, 6]
    return np.column_stack([-goal, angle, velocity, rate]).astype(np.float64)


def commands(observations: NDArray[np.float32], feedback: Array) -> NDArray[np.float32]:
    """(N, 22), (2, 6) -> (N, 2): actions."""
    state = read(observations)
    distance = np.linalg.norm(state[:, :2], axis=1, keepdims=True)
    state[:, :2] *= np.minimum(1, FARTHEST / np.maximum(distance, 1e-6))
    return (-state @ feedback.T / (GRAVITY / 2)).astype(np.float32)


def player(_: EnvPool) -> Choose:
    feedback = gains()
    return lambda pool: commands(pool.observations, feedback)


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("quadrotors", player, episodes, seed, metric=METRIC)

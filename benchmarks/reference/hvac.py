"""The LQG regulator of the same linear model: a Kalman filter, and the gains of the finite-horizon Riccati equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool, default_params

EPISODES = 4000  # whose weather differs much
Array = NDArray[np.float64]
HOURS, STEPS_PER_DAY, OPENS, CLOSES = 0.25, 96, 8, 18
AIR, WALL, GAIN, WEATHER = range(4)  # entries of the state; then what flows in the pipe, next to arrive first, and 1
SETPOINT, START, UNOCCUPIED = 21.0, 20.0, 0.1


@dataclass(frozen=True)
class Model:
    """x[k+1] = A[k] x[k] + B u[k] + w, y[k] = C x[k] + v, cost x[k+1]' Q[k+1] x[k+1] + r u[k]^2, for k = 0 .. T - 1.

    n state entries; y: the thermometer and the weather."""

    a: Array  # (T, n, n)
    b: Array  # (n,)
    c: Array  # (2, n)
    process: Array  # (n, n) covariance of w
    sensor: Array  # (2, 2) covariance of v
    cost: Array  # (T + 1, n, n)
    energy_weight: float
    mean: Array  # (n,) of the first state
    covariance: Array  # (n, n) of the first state


def occupied(step: NDArray[Any]) -> NDArray[np.bool_]:
    hour = step % STEPS_PER_DAY * HOURS
    return (hour >= OPENS) & (hour < CLOSES)


def daily_temperature(step: NDArray[Any]) -> Array:
    """Outside, without the weather's deviation."""
    return 6 + 5 * np.sin(2 * np.pi * (step % STEPS_PER_DAY * HOURS - 9) / 24)


def make_model(params: Mapping[str, float]) -> Model:
    """`params` of the environment, all of them."""
    delay, steps = int(params["delay"]), int(params["days"]) * STEPS_PER_DAY
    n, one, time = 5 + delay, 4 + delay, np.arange(steps + 1)
    air, wall = HOURS / 2, HOURS / 12  # K of a kW in one step
    a, b = np.zeros((steps, n, n)), np.zeros(n)
    a[:, AIR, [AIR, WALL, GAIN, WEATHER, WEATHER + 1]] = 1 - 1.1 * air, air, air, 0.1 * air, air
    a[:, AIR, one] = air * (2 * occupied(time[:-1]) + 0.1 * daily_temperature(time[:-1]))
    a[:, WALL, [AIR, WALL, WEATHER]] = wall, 1 - 1.1 * wall, 0.1 * wall
    a[:, WALL, one] = wall * 0.1 * daily_temperature(time[:-1])
    a[:, GAIN, GAIN], a[:, WEATHER, WEATHER], a[:, one, one] = 0.88, 0.98, 1
    for place in range(WEATHER + 1, one - 1):
        a[:, place, place + 1] = 1
    b[one - 1] = 1
    c = np.zeros((2, n))
    c[0, AIR] = c[1, WEATHER] = 1
    error = np.zeros(n)
    error[[AIR, one]] = 1, -SETPOINT
    weight = np.where(occupied(time), 1, UNOCCUPIED)
    mean = np.zeros(n)
    mean[[AIR, WALL, one]] = START, START, 1
    still = np.zeros(n - 4)
    return Model(
        a=a,
        b=b,
        c=c,
        process=np.diag([0.2**2, 0, 1.5**2 * (1 - 0.88**2), 4**2 * (1 - 0.98**2), *still]),
        sensor=np.diag([params["sensor_noise"] ** 2, 0]),
        cost=weight[:, None, None] * np.outer(error, error),
        energy_weight=params["energy_weight"],
        mean=mean,
        covariance=np.diag([2.0**2, 2.0**2, 1.5**2, 4.0**2, *still]),
    )


@dataclass(frozen=True)
class Regulator:
    """u[k] = -feedback[k] xhat[k], where xhat[k] = x + filter[k] (y[k] - C x), x the prediction."""

    feedback: Array  # (T, n)
    filter: Array  # (T, n, 2)
    expected_cost: float  # of an episode, with powers without bounds


def regulate(model: Model) -> Regulator:
    """Astrom, Introduction to Stochastic Control Theory (1970), chapter 8: separation of filter and feedback."""
    steps = len(model.a)
    feedback, filters = np.zeros_like(model.a[:, 0]), np.zeros((*model.a.shape[:2], 2))
    value, expected = model.cost[steps], 0.0
    error_costs = np.zeros_like(model.a)  # of an estimate that is off, at each step
    for k in reversed(range(steps)):
        expected += float(np.trace(value @ model.process))
        curvature = model.energy_weight + model.b @ value @ model.b
        feedback[k] = model.b @ value @ model.a[k] / curvature
        error_costs[k] = curvature * np.outer(feedback[k], feedback[k])
        running = model.cost[k] if k else 0  # the first state has no cost
        value = running + model.a[k].T @ value @ model.a[k] - error_costs[k]
    expected += float(model.mean @ value @ model.mean + np.trace(value @ model.covariance))
    spread = model.covariance
    for k in range(steps):
        seen = model.c @ spread @ model.c.T + model.sensor
        filters[k] = np.linalg.solve(seen, model.c @ spread).T
        spread = spread - filters[k] @ model.c @ spread
        expected += float(np.trace(error_costs[k] @ spread))
        spread = model.a[k] @ spread @ model.a[k].T + model.process
    return Regulator(feedback, filters, expected)


def read(pool: EnvPool, step: int) -> Array:
    """(E, 2): what the thermometer shows, and the weather's deviation."""
    outside = 20 * pool.observations[:, 1].astype(np.float64) - daily_temperature(np.array(step))
    return np.stack([SETPOINT + 2 * pool.observations[:, 0].astype(np.float64), outside], 1)


def make_player(params: Mapping[str, float]) -> Callable[[EnvPool], Choose]:
    """For the first episode of each environment, all from the start; `params` as of make_model."""

    def player(pool: EnvPool) -> Choose:
        model = make_model(params)
        regulator = regulate(model)
        predicted = np.tile(model.mean, (pool.rows, 1))  # (E, n)
        step = 0

        def choose(pool: EnvPool) -> NDArray[Any]:
            nonlocal predicted, step
            k = step % len(model.a)
            estimate = predicted + (read(pool, k) - predicted @ model.c.T) @ regulator.filter[k].T
            power = np.clip(-estimate @ regulator.feedback[k], pool.spec.action_low[0], pool.spec.action_high[0])
            predicted = estimate @ model.a[k].T + power[:, None] * model.b
            step += 1
            return power[:, None].astype(np.float32)

        return choose

    return player


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("hvac", make_player(default_params("hvac")), episodes, seed)

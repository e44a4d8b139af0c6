"""The closed form of Almgren and Chriss, told the hidden volatility: a bound more than a player."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool, default_params

Array = NDArray[np.float64]
DAYS, USUAL_VOLATILITY, PERMANENT, TEMPORARY = 5.0, 0.95, 2.5e-7, 2.5e-6  # table 1 of the paper


def pace(volatility: Array, sales_left: int, params: dict[str, float]) -> Array:
    """(E,) dollars per share and root of a day -> (E,) what to sell now, in multiples of the even pace.

    Equation 18: with m sales left, sinh(kappa (m - 1) tau) / sinh(kappa m tau) of the shares are kept.
    """
    tau = DAYS / params["steps"]
    urgency = params["risk_aversion"] * volatility**2 / (TEMPORARY - PERMANENT * tau / 2)
    kappa_tau = np.arccosh(1 + urgency * tau**2 / 2)
    result: Array = sales_left * (1 - np.sinh(kappa_tau * (sales_left - 1)) / np.sinh(kappa_tau * sales_left))
    return result


def hidden_volatility(pool: EnvPool) -> Array:
    """(E,) the first member of the C++ struct."""
    return pool.snapshot()[:, :8].copy().view(np.float64)[:, 0]


def player(pool: EnvPool) -> Choose:
    """For the first episode of each environment, all from the start."""
    params = default_params("execution")
    volatility = hidden_volatility(pool)
    step = 0

    def choose(_: EnvPool) -> NDArray[Any]:
        nonlocal step
        sales_left = int(params["watch"] + params["steps"]) - step
        step += 1
        return pace(volatility, max(1, min(sales_left, int(params["steps"]))), params)[:, None].astype(np.float32)

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("execution", player, episodes, seed)

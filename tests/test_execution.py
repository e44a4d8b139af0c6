"""Optimal execution against the model's own definition: a simulated market, and a quadratic program."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import execution
from tests.pools import make_pool

Array = NDArray[np.float64]
SHARES, DAYS, VOLATILITY, PERMANENT, TEMPORARY = 1e6, 5.0, 0.95, 2.5e-7, 2.5e-6  # Almgren and Chriss, table 1
MOVES = 4
Player = Callable[[int, NDArray[np.float32]], Any]  # step, observations (E, 7) -> paces (E,)


def play(
    player: Player, *, envs: int = 2000, steps: int = 20, risk_aversion: float = 1e-6
) -> tuple[Array, NDArray[np.float32]]:
    """One episode in each: returns (E,), observations (steps + 1, E, 7)."""
    pool = make_pool("execution", num_envs=envs, steps=steps, risk_aversion=risk_aversion)
    buffers = pool.buffers()
    returns, seen = np.zeros(envs), [buffers["observations"].copy()]
    for step in range(5 + steps):
        assert not buffers["terminated"].any()
        buffers["actions"][:, 0] = player(step, seen[-1])
        pool.send()
        pool.recv()
        returns += buffers["rewards"]
        seen.append(buffers["observations"].copy())
    assert buffers["terminated"].all() and not buffers["truncated"].any()
    return returns, np.array(seen)


def hidden(envs: int) -> Array:
    """(E,) the volatilities of the first episodes."""
    return make_pool("execution", num_envs=envs).snapshot()[:, :8].copy().view(np.float64)[:, 0]


def objective(n: int, sigma: float, risk_aversion: float) -> Array:
    """(n, n) matrix M, so that E[cost] + lambda Var[cost] = sales' M sales; equations 4 and 5 of the paper."""
    tau = DAYS / n
    kept = np.tril(np.ones((n, n)))  # x = X - kept @ sales = rest @ sales, since the sales sum to X
    rest = np.ones((n, n)) - kept
    mean = PERMANENT * (rest + rest.T) / 2 + TEMPORARY / tau * np.eye(n)
    variance = sigma**2 * tau * rest.T @ rest
    return mean + risk_aversion * variance


def sold(paces: Array) -> Array:
    """(E, steps) -> (E, steps) shares."""
    shares = np.minimum(1, paces / np.arange(paces.shape[1], 0, -1))
    shares[:, -1] = 1
    left = np.cumprod(1 - shares, 1)
    result: Array = SHARES * (np.concatenate([np.ones((len(left), 1)), left[:, :-1]], 1) - left)
    return result


def follow(paces: Array) -> Player:
    """(E, steps); while only watching is possible it tries to sell."""
    return lambda step, _: paces[:, step - 5] if step >= 5 else np.full(len(paces), 3.0)


@pytest.mark.parametrize(("steps", "risk_aversion"), [(20, 1e-6), (5, 1e-6), (7, 1e-5), (30, 0.0)])
def test_returns_are_costs_beside_the_cheapest_plan(steps: int, risk_aversion: float) -> None:
    """That of a quadratic program which knows nothing of hyperbolic functions; for it, for random plans, for none."""
    envs, rng = 200, np.random.default_rng(0)
    matrices = np.array([objective(steps, sigma, risk_aversion) for sigma in hidden(envs)])  # (E, steps, steps)
    best = np.linalg.solve(matrices, np.ones((envs, steps, 1)))[..., 0]  # first-order conditions, up to a factor
    best *= SHARES / best.sum(1, keepdims=True)
    assert best.min() > 0
    best_paces = best / (SHARES - np.cumsum(best, 1) + best) * np.arange(steps, 0, -1)
    playable = best_paces.max(1) < 8
    assert playable.mean() > 0.3
    for paces in (best_paces, rng.uniform(0, 3, best.shape), rng.uniform(0, 8, best.shape), np.zeros(best.shape)):
        returns, _ = play(follow(paces), envs=envs, steps=steps, risk_aversion=risk_aversion)
        plan = sold(np.minimum(8, paces))
        cost, cheapest = (np.einsum("ei,eij,ej->e", sales, matrices, sales) for sales in (plan, best))
        assert -returns == pytest.approx(cost / cheapest, rel=2e-5)
        if paces is best_paces:
            assert returns[playable] == pytest.approx(-1, abs=1e-5)


def test_rewards_are_mean_and_variance_of_what_selling_costs_in_a_simulated_market() -> None:
    """Of selling evenly: the price moves at random, is pressed by every sale, and pays less for larger ones."""
    steps, markets = 20, 400_000
    tau, rng = DAYS / steps, np.random.default_rng(0)
    sigma = hidden(1)[0]
    price, cost = np.zeros(markets), np.zeros(markets)  # relative to the first
    sale = SHARES / steps
    for _ in range(steps):
        cost -= sale * (price - TEMPORARY * sale / tau)
        price += sigma * np.sqrt(tau) * rng.standard_normal(markets) - PERMANENT * sale
    simulated = cost.mean() + 1e-6 * cost.var()
    weights = np.linalg.solve(objective(steps, sigma, 1e-6), np.ones(steps))
    best = SHARES**2 / weights.sum()  # of the quadratic program: 1' M^-1 1 in closed form
    returns, _ = play(lambda *_: 1.0, envs=1)
    assert -returns[0] * best == pytest.approx(simulated, rel=0.01)


def test_a_pace_of_1_sells_evenly_and_the_last_step_sells_what_is_left() -> None:
    _, seen = play(lambda *_: 1.0, envs=3)
    evenly = np.concatenate([np.ones(5), np.linspace(1, 0.05, 20)])
    assert seen[:-1, :, 6] == pytest.approx(np.stack([evenly] * 3, 1), abs=1e-6)
    _, idle = play(lambda *_: 0.0, envs=3)
    assert idle[:-1, :, 6] == pytest.approx(1)
    _, hasty = play(lambda step, _: 8.0 * (step > 16), envs=3)
    assert hasty[17, :, 6] == pytest.approx(1) and hasty[18, :, 6] == pytest.approx(0)  # 8 steps were left
    assert hasty[0, 0, 4:6].tolist() == pytest.approx([5 / 6, 1.25]) and hasty[5, 0, 4:6].tolist() == [0, 1]


def test_moves_show_the_volatility_and_the_pressure_of_sales() -> None:
    envs = 4000
    sigmas = hidden(envs) / VOLATILITY
    assert 1 / 3 < sigmas.min() < 0.336 and 2.97 < sigmas.max() < 3
    assert np.log(sigmas).mean() == pytest.approx(0, abs=4 * np.log(3) / np.sqrt(3 * envs))
    assert np.log(sigmas).std() == pytest.approx(np.log(3) / np.sqrt(3), rel=0.02)
    _, seen = play(lambda *_: 1.0, envs=envs)
    standard = seen[:6, :, :MOVES] / sigmas[:, None]  # before any sale
    assert standard.std() == pytest.approx(1, rel=0.01) and abs(standard.mean()) < 0.01
    flat = standard.transpose(0, 2, 1).reshape(-1, envs)
    assert np.abs(np.corrcoef(flat) - np.eye(len(flat))).max() < 0.08  # 5 standard deviations
    unit = VOLATILITY * np.sqrt(DAYS / 20 / MOVES)
    pressed = (seen[6:-1, :, :MOVES] / sigmas[:, None]).mean()
    assert pressed == pytest.approx(-PERMANENT * SHARES / 20 / MOVES / unit * (1 / sigmas).mean(), abs=0.01)


def estimate_from(moves: Array, weight: float) -> Array:
    """(E, n) -> (E,) volatility, the usual one counted as `weight` moves."""
    return VOLATILITY * np.clip(np.sqrt((np.square(moves).sum(1) + weight) / (moves.shape[1] + weight)), 1 / 3, 3)


def test_who_remembers_the_moves_comes_within_1_percent_and_nobody_else_within_4() -> None:
    params = {"steps": 20.0, "risk_aversion": 1e-6}
    remembered: list[Array] = []

    def paced(volatility: Array, step: int) -> Array:
        return execution.pace(volatility, min(20, 25 - step), params)

    def with_memory(step: int, seen: NDArray[np.float32]) -> Array:
        remembered.append(seen[:, :MOVES].astype(np.float64))
        return paced(estimate_from(np.concatenate(remembered, 1), 0), step)

    def last_moves(weight: float) -> Player:
        return lambda step, seen: paced(estimate_from(seen[:, :MOVES].astype(np.float64), weight), step)

    def blind(factor: float) -> Player:
        return lambda step, _: paced(np.array([factor * VOLATILITY]), step)

    assert -1.01 < play(with_memory)[0].mean() < -1.001
    assert max(play(last_moves(weight))[0].mean() for weight in (0, 2, 4, 8)) < -1.04
    assert max(play(blind(factor))[0].mean() for factor in (0.7, 0.9, 1.1, 1.3, 1.5)) < -1.15


def test_the_reference_is_told_the_volatility() -> None:
    assert execution.play(200, 7) == pytest.approx([-1.0] * 200, abs=1e-5)

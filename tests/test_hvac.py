"""The building against the linear model of its reference, and that regulator against estimation and control in bulk."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import hvac, play_through_pool
from dist_trainer.envs import default_params
from tests.pools import make_pool

Array = NDArray[np.float64]
PARAMS = default_params("hvac")


def hidden(pool_bytes: NDArray[np.uint8], delay: int, step: int) -> Array:
    """(E, n) the model's state, from the first members of the C++ struct."""
    members = pool_bytes[:, : 4 * 22].copy().view(np.float32).astype(np.float64)
    pipe = members[:, 5 : 5 + delay]
    return np.column_stack([members[:, :4], np.roll(pipe, -(step % delay), 1), np.ones(len(members))])


@pytest.mark.parametrize("delay", [1, 2, 5])
def test_a_day_follows_the_linear_model(delay: int) -> None:
    """Walls, pipe and reward to rounding; what is left of air, gains and weather is white noise of the model's size."""
    envs = 500
    model = hvac.make_model(PARAMS | {"delay": delay})
    pool = make_pool("hvac", num_envs=envs, delay=delay)
    buffers = pool.buffers()
    rng, noise, sensed = np.random.default_rng(0), [], []
    state = hidden(pool.snapshot(), delay, 0)
    assert state.mean(0) == pytest.approx(model.mean, abs=0.8)
    assert state.std(0) == pytest.approx(np.sqrt(np.diag(model.covariance)), rel=0.15)
    for k in range(96):
        shown = hvac.SETPOINT + 2 * buffers["observations"][:, 0].astype(np.float64)
        inside = np.abs(shown - hvac.SETPOINT) < 7.99
        sensed.append((shown - state[:, 0])[inside])
        outside = 20 * buffers["observations"][:, 1] - hvac.daily_temperature(np.array(k))
        assert outside == pytest.approx(state[:, hvac.WEATHER], abs=1e-4)
        power = rng.uniform(-4, 8, envs)
        buffers["actions"][:, 0] = power
        pool.send()
        pool.recv()
        if k == 95:
            assert buffers["terminated"].all()
            break
        after = hidden(pool.snapshot(), delay, k + 1)
        rest = after - state @ model.a[k].T - power[:, None] * model.b
        exact = np.diag(model.process) == 0
        assert rest[:, exact] == pytest.approx(0, abs=1e-5)
        cost = np.einsum("ei,ij,ej->e", after, model.cost[k + 1], after) + model.energy_weight * power**2
        assert -buffers["rewards"] == pytest.approx(cost, rel=1e-4, abs=1e-4)
        noise.append(rest[:, ~exact])
        state = after
    each = np.array(noise) / np.sqrt(np.diag(model.process)[~exact])  # (95, E, 3)
    assert np.abs(each.mean((0, 1))).max() < 0.025 and each.std((0, 1)) == pytest.approx(1, rel=0.02)
    assert np.abs(np.corrcoef(each.reshape(-1, 3).T) - np.eye(3)).max() < 0.025
    assert np.abs((each[1:] * each[:-1]).mean((0, 1))).max() < 0.025
    assert np.concatenate(sensed).std() == pytest.approx(PARAMS["sensor_noise"], rel=0.05)


def test_the_feedback_is_the_best_plan_of_all_orders_at_once() -> None:
    """Without noise: by least squares over the whole plan, in which no Riccati equation appears."""
    model = hvac.make_model(PARAMS)
    steps, start = 96, np.array([18.0, 22.0, -1.0, 3.0, 2.0, -1.0, 1.0])
    free, push = start, np.zeros((len(start), steps))  # state = free + push @ orders
    rows, targets = [np.sqrt(model.energy_weight) * np.eye(steps)], [np.zeros(steps)]
    for k in range(steps):
        free, push = model.a[k] @ free, model.a[k] @ push
        push[:, k] = model.b
        weight = np.sqrt(model.cost[k + 1][hvac.AIR, hvac.AIR])
        rows.append(weight * push[None, hvac.AIR])
        targets.append(np.array([weight * (hvac.SETPOINT - free[hvac.AIR])]))
    plan = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]
    regulator = hvac.regulate(model)
    state = start
    for k in range(steps):
        order = -regulator.feedback[k] @ state
        assert order == pytest.approx(plan[k], abs=1e-6)
        state = model.a[k] @ state + model.b * order


def test_the_filter_is_the_mean_given_all_that_was_seen() -> None:
    """By conditioning one Gaussian of all states and all observations, orders being 0."""
    model = hvac.make_model(PARAMS)
    steps, n = 12, len(model.b)
    # All is linear in independent sources: the first state, the noise of each step, the noise of each reading.
    covariance = [model.covariance, *[model.process] * steps, *[model.sensor] * steps]
    sizes = [len(part) for part in covariance]
    sources = np.zeros((sum(sizes), sum(sizes)))
    ends = np.cumsum(sizes)
    for part, end in zip(covariance, ends, strict=True):
        sources[end - len(part) : end, end - len(part) : end] = part
    state, mean = np.eye(n, sum(sizes)), model.mean
    seen, means = [], []
    rng = np.random.default_rng(0)
    predicted = model.mean
    regulator = hvac.regulate(model)
    readings: list[Array] = []
    for k in range(steps):
        reading = model.c @ state
        reading[:, ends[steps + k] : ends[steps + k] + 2] = np.eye(2)
        seen.append(reading)
        means.append(model.c @ mean)
        readings.append(model.c @ mean + rng.standard_normal(2))
        maps, surprise = np.concatenate(seen), np.concatenate(readings) - np.concatenate(means)
        gain = np.linalg.solve(maps @ sources @ maps.T, maps @ sources @ state.T).T
        estimate = predicted + regulator.filter[k] @ (readings[-1] - model.c @ predicted)
        assert estimate == pytest.approx(mean + gain @ surprise, abs=1e-6)
        predicted = model.a[k] @ estimate
        state, mean = model.a[k] @ state, model.a[k] @ mean
        state[:, ends[k] : ends[k] + n] = np.eye(n)


@pytest.mark.parametrize("changes", [{}, {"delay": 4.0, "sensor_noise": 1.0}])
def test_the_reference_costs_what_theory_says(changes: dict[str, float]) -> None:
    params = PARAMS | changes
    returns = play_through_pool("hvac", hvac.make_player(params), 3000, 3, params=changes)
    error = np.std(returns) / np.sqrt(len(returns))
    expected = hvac.regulate(hvac.make_model(params)).expected_cost
    assert -np.mean(returns) == pytest.approx(expected, abs=4 * error)
    assert error < 0.01 * expected


def test_metrics_are_discomfort_and_energy() -> None:
    pool = make_pool("hvac", num_envs=50)
    buffers = pool.buffers()
    discomfort = np.zeros(50)
    for k in range(96):
        assert (buffers["observations"][:, 5:] == [8 <= (k // 4 + hours) % 24 < 18 for hours in range(4)]).all()
        before = hidden(pool.snapshot(), 2, k)[:, hvac.AIR]
        discomfort += np.abs(before - 21) * (8 <= k // 4 < 18)
        buffers["actions"][:] = -3 if k % 2 else 5
        pool.send()
        pool.recv()
    episodes, _, length, uneasy, energy = pool.take_statistics()
    assert [episodes, length] == [50, 50 * 96]
    assert uneasy == pytest.approx(discomfort.sum() / 40, rel=1e-4) and energy == pytest.approx(50 * 96)

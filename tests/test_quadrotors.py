"""The swarm beside a twin in Python, step by step from the same states; its regulator; flights known in advance."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import quadrotors
from dist_trainer import _cpp_envs
from tests.pools import make_pool

Array = NDArray[np.float64]
STATE = ("x", "y", "angle", "vx", "vy", "rate")
DRONE = np.dtype(
    [(name, np.float32) for name in (*STATE, "goal_x", "goal_y")]
    + [(name, np.int32) for name in ("steps_left", "reached", "late", "crashes", "crashed")]
    + [("cost", np.float32)]
)
GRAVITY, ARENA, TIME = 9.81, 20.0, 0.04
Drones = NDArray[Any]  # (A,) of DRONE


def drones_of(snapshot: NDArray[np.uint8], env: int, agents: int) -> Drones:
    return snapshot[env, : agents * DRONE.itemsize].copy().view(DRONE)


def put(pool: _cpp_envs.Pool, drones: Drones, env: int = 0) -> None:
    """Changes the drones of one environment."""
    snapshot = pool.snapshot()
    snapshot[env, : drones.nbytes] = drones.view(np.uint8)
    pool.restore(snapshot)


def advance(pool: _cpp_envs.Pool, actions: Any) -> None:
    pool.buffers()["actions"][:] = actions
    pool.send()
    pool.recv()


def fly(drones: Drones, thrusts: Array) -> Array:
    """(A,) of DRONE, (A, 2) in N -> (A, 6): x, y, angle and their rates after a step."""
    x, y, angle, vx, vy, rate = (drones[name].astype(np.float64) for name in STATE)
    left, right = thrusts.T
    for _ in range(2):
        vx -= 0.02 * (left + right) * np.sin(angle)
        vy += 0.02 * ((left + right) * np.cos(angle) - GRAVITY)
        rate += 0.02 * 0.25 * (right - left) / 0.04
        x, y, angle = x + 0.02 * vx, y + 0.02 * vy, angle + 0.02 * rate
    return np.stack([x, y, angle, vx, vy, rate], 1)


def gaps_to_others(flown: Array) -> Array:
    """(A, 6) -> (A,) metres to the nearest other one, if there is one."""
    gaps = np.hypot(*(flown[:, None, :2] - flown[None, :, :2]).transpose(2, 0, 1))
    np.fill_diagonal(gaps, np.inf)
    result: Array = gaps.min(1)
    return result


def check_step(before: Drones, thrusts: Array, after: Drones, rewards: NDArray[np.float32]) -> None:
    """`thrusts` (A, 2) in N."""
    flown = fly(before, thrusts)
    to_others, to_walls, to_upside_down = gaps_to_others(flown), np.abs(flown[:, :2]).max(1), np.abs(flown[:, 2])
    goals = np.stack([before["goal_x"], before["goal_y"]], 1)
    was = np.hypot(before["x"] - goals[:, 0], before["y"] - goals[:, 1])
    now = np.hypot(*(flown[:, :2] - goals).T)
    boundaries = [to_others - 0.5, to_walls - 9.75, to_upside_down - np.pi / 2, now - 0.4]
    if np.abs(boundaries).min() < 1e-4:
        return  # rounding could decide
    crashed = (to_others < 0.5) | (to_walls > 9.75) | (to_upside_down > np.pi / 2)
    reached = ~crashed & (now < 0.4)
    late = ~crashed & ~reached & (before["steps_left"] == 1)
    assert rewards == pytest.approx(np.where(crashed, -20, was - now + 2 * reached), abs=1e-4)
    assert (after["crashed"] == crashed).all()
    for name, happened in (("crashes", crashed), ("reached", reached), ("late", late)):
        assert (after[name] - before[name] == happened).all()
    for column, name in enumerate(STATE):
        assert after[name][~crashed] == pytest.approx(flown[~crashed, column], abs=1e-4)
        assert name in "xy" or (after[name][crashed] == 0).all()
    new = crashed | reached | late
    kept = np.stack([after["goal_x"], after["goal_y"]], 1) == goals
    assert kept[~new].all() and not kept[new].any()
    assert (after["steps_left"] == np.where(new, 100, before["steps_left"] - 1)).all()
    state = np.stack([before["x"] - goals[:, 0], before["y"] - goals[:, 1], *(before[name] for name in STATE[2:])], 1)
    cost = np.einsum("ai,ij,aj->a", state, quadrotors.COSTS, state)
    cost += quadrotors.THRUST_COST * np.square(thrusts - GRAVITY / 2).sum(1)
    assert after["cost"] - before["cost"] == pytest.approx(cost, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("agents", [1, 16, 40])
def test_the_swarm_equals_a_slow_twin(agents: int) -> None:
    """Flown by the regulator, more or less disturbed, so that all happens: arrivals, delays, crashes of all kinds."""
    envs = 6
    pool = make_pool("quadrotors", num_envs=envs, agents=agents)
    buffers = pool.buffers()
    rng, feedback = np.random.default_rng(0), quadrotors.gains()
    disturbance = np.repeat([0.0, 0.1, 0.3, 0.5, 0.7, 1.0], agents)[:, None]
    for _ in range(300):
        commands = -quadrotors.read(buffers["observations"]) @ feedback.T / (GRAVITY / 2) * 0.5
        actions = np.clip(commands + disturbance * rng.standard_normal(commands.shape), -1, 1).astype(np.float32)
        before = pool.snapshot()
        advance(pool, actions)
        after = pool.snapshot()
        thrusts = (actions.astype(np.float64) + 1) * GRAVITY / 2
        for env in range(envs):
            rows = slice(env * agents, (env + 1) * agents)
            drones = (drones_of(snapshot, env, agents) for snapshot in (before, after))
            check_step(next(drones), thrusts[rows], next(drones), buffers["rewards"][rows])
    final = np.concatenate([drones_of(after, env, agents) for env in range(envs)])
    assert final["reached"].sum() > 3 * agents and final["late"].sum() > 0 and final["crashes"].sum() > agents


def test_the_linearization_is_the_derivative_of_a_step() -> None:
    pool = make_pool("quadrotors", num_envs=1, agents=1)
    start = drones_of(pool.snapshot(), 0, 1)
    for name, value in (("x", 0), ("y", 0), ("goal_x", 5), ("goal_y", 0), ("steps_left", 100)):
        start[name] = value
    columns, size = [], 1e-2
    for index in range(8):
        ends = []
        for sign in (-1, 1):
            drone, action = start.copy(), np.zeros(2)
            if index < 6:
                drone[STATE[index]] = sign * size
            else:
                action[index - 6] = sign * size / (GRAVITY / 2)
            put(pool, drone)
            advance(pool, action)
            after = drones_of(pool.snapshot(), 0, 1)
            ends.append([float(after[name][0]) for name in STATE])
        columns.append((np.array(ends[1]) - np.array(ends[0])) / (2 * size))
    a, b = quadrotors.linearized()
    measured = np.array(columns).T
    assert measured == pytest.approx(np.hstack([a, b]), abs=1e-3)


def test_observations_show_the_waypoint_and_the_nearest_neighbours() -> None:
    agents = 5
    pool = make_pool("quadrotors", num_envs=1, agents=agents)
    for _ in range(10):
        advance(pool, np.random.default_rng(1).uniform(-0.2, 0.2, (agents, 2)))
    drones, seen = drones_of(pool.snapshot(), 0, agents), pool.buffers()["observations"]
    place = np.stack([drones["x"], drones["y"]], 1)
    velocity = np.stack([drones["vx"], drones["vy"]], 1)
    goal = np.stack([drones["goal_x"], drones["goal_y"]], 1)
    assert 2 * seen[:, :2] == pytest.approx(goal - place, abs=1e-5)
    assert 2 * seen[:, 2:4] == pytest.approx(velocity, abs=1e-5)
    assert np.arctan2(seen[:, 4], seen[:, 5]) == pytest.approx(drones["angle"], abs=1e-5)
    assert seen[:, 7] == pytest.approx(0.9, abs=1e-5)
    assert ARENA * seen[:, 8:10] == pytest.approx(place, abs=1e-5)
    for i in range(agents):
        away = place - place[i]
        distance = np.hypot(*away.T)
        nearest = np.argsort(distance)[1:4]
        scale = 2 / (0.5 + distance[nearest, None])
        expected = np.hstack([away[nearest] * scale, (velocity[nearest] - velocity[i]) / 2 * scale])
        assert seen[i, 10:].reshape(3, 4) == pytest.approx(expected, abs=1e-4)
    alone = make_pool("quadrotors", num_envs=1, agents=2).buffers()["observations"]
    assert (alone[:, 14:] == 0).all() and alone[:, 10:12].any()


def test_without_thrust_it_falls_and_hovering_it_stays() -> None:
    pool = make_pool("quadrotors", num_envs=2, agents=1)
    high = drones_of(pool.snapshot(), 0, 1)
    high["y"], high["goal_y"], high["steps_left"] = 9, 9, 1000
    put(pool, high)
    before = drones_of(pool.snapshot(), 1, 1)
    for _ in range(25):  # a second
        advance(pool, [[-1, -1], [0, 0]])
    snapshot = pool.snapshot()
    fallen, hovering = drones_of(snapshot, 0, 1), drones_of(snapshot, 1, 1)
    assert fallen["vy"] == pytest.approx(-GRAVITY, rel=1e-4)
    assert fallen["y"] == pytest.approx(9 - GRAVITY / 2, abs=0.11)  # Euler's method: half a step late
    for name in "xy":
        assert hovering[name] == pytest.approx(before[name], abs=1e-4)


def test_all_are_truncated_together_and_every_waypoint_counts_once() -> None:
    pool = make_pool("quadrotors", num_envs=4, max_steps=300)
    feedback = quadrotors.gains()
    for step in range(300):
        assert not pool.buffers()["truncated"].any() and step < 300
        before = pool.snapshot()
        advance(pool, -0.5 * quadrotors.read(pool.buffers()["observations"]) @ feedback.T / (GRAVITY / 2))
    assert pool.buffers()["truncated"].all()
    drones = np.concatenate([drones_of(before, env, 16) for env in range(4)])  # one step before the end
    ended = np.maximum(1, drones["reached"] + drones["late"] + drones["crashes"])
    episodes, _, length, in_time, crashed, cost = pool.take_statistics()
    assert [episodes, length] == [64, 64 * 300]
    assert in_time == pytest.approx((drones["reached"] / ended).sum(), abs=1)
    assert crashed == pytest.approx((drones["crashes"] / ended).sum(), abs=1)
    assert cost == pytest.approx((drones["cost"] / 300).sum(), rel=0.02)


def test_the_regulator_alone_is_always_in_time() -> None:
    pool = make_pool("quadrotors", num_envs=50, agents=1)
    feedback = quadrotors.gains()
    for _ in range(500):
        advance(pool, quadrotors.commands(pool.buffers()["observations"], feedback))
    episodes, _, _, in_time, crashed, _ = pool.take_statistics()
    assert episodes == 50 and in_time > 0.97 * 50 and crashed == 0

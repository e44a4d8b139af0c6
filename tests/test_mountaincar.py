"""MountainCar is Gymnasium's MountainCar-v0, bit for bit."""

import numpy as np
import pytest

from benchmarks.reference import mountaincar
from tests.classic_control import SideBySide, State, same_bits
from tests.pools import make_pool


def test_random_episodes_equal_gymnasium() -> None:
    rng = np.random.default_rng(0)
    both = SideBySide("mountaincar", "MountainCar-v0", 2, seed=1)
    for _ in range(20):
        held = int(rng.integers(3))

        def choose(_: State, held: int = held) -> int:
            return held if rng.random() < 0.5 else int(rng.integers(3))

        assert both.play(choose, same_bits) == (200, -200, True)
    assert list(both.pool.take_statistics())[:3] == [20, -4000, 4000]


def test_swinging_episodes_equal_gymnasium() -> None:
    """They hit the wall on the left, reach the highest speed downhill, and the flag."""
    both = SideBySide("mountaincar", "MountainCar-v0", 2, seed=2)
    lengths, walls, fastest = [], 0, 0.0

    def swing(state: State) -> int:
        nonlocal walls, fastest
        walls += state[0] == -1.2
        fastest = max(fastest, abs(state[1]))
        return 2 if state[1] >= 0 else 0

    for _ in range(30):
        length, total, truncated = both.play(swing, same_bits)
        assert not truncated and total == -length
        lengths.append(length)
    assert walls > 3 and fastest > 0.05 and len(set(lengths)) > 5 and max(lengths) < 200


def test_every_state_steps_like_gymnasiums() -> None:
    rng = np.random.default_rng(1)
    both = SideBySide("mountaincar", "MountainCar-v0", 2, seed=1)
    both.theirs.reset(seed=0)
    fast = 0
    for _ in range(500):
        state = np.array([rng.uniform(-1.2, 0.6), rng.uniform(-0.07, 0.07)])
        row = both.pool.snapshot()
        row[0, :16] = state.view(np.uint8)
        both.pool.restore(row)
        both.inside.state = state
        action = int(rng.integers(3))
        both.buffers["actions"][:] = action
        both.pool.send()
        both.pool.recv()
        _, _, terminated, _, _ = both.inside.step(action)
        assert both.buffers["terminated"][0] == terminated
        if not terminated and not both.buffers["truncated"][0]:
            same_bits(both.state(), np.array(both.inside.state, np.float64))
            fast += int(abs(both.state()[1]) == 0.07)
    assert fast > 3


def test_episodes_begin_like_gymnasiums() -> None:
    starts = make_pool("mountaincar", num_envs=4000).snapshot()[:, :16].copy().view(np.float64)  # (E, 2)
    assert starts[:, 0].min() >= np.float32(-0.6) and starts[:, 0].max() <= np.float32(-0.4)
    assert starts[:, 0].mean() == pytest.approx(-0.5, abs=0.004)
    assert starts[:, 0].std() == pytest.approx(0.2 / 12**0.5, abs=0.002)
    assert not starts[:, 1].any()


def test_the_reference_solves_it() -> None:
    returns = mountaincar.play(200, 7)
    assert -110 < np.mean(returns) < -90 and min(returns) > -130


def test_it_may_begin_anywhere() -> None:
    pool = make_pool("mountaincar", anywhere=0.5, num_envs=64)
    starts = pool.buffers()["observations"].copy()
    usual = (starts[:, 1] == 0) & (starts[:, 0] >= -0.6) & (starts[:, 0] < -0.4)
    assert 0 < usual.sum() < len(starts)
    assert (np.abs(starts[~usual, 1]) < 0.07).all() and np.ptp(starts[~usual, 0]) > 0.5

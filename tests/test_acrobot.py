"""Acrobot is Gymnasium's Acrobot-v1, to 1e-8 in each step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.classic_control import SideBySide, State
from tests.pools import make_pool


def near(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Angles may be cut at pi on different sides; what is shown is float32."""
    if len(ours) == 4:
        turns = 2 * np.pi * np.round((ours - theirs) / (2 * np.pi)) * [1, 1, 0, 0]
        assert np.abs(ours - theirs - turns).max() < 1e-8
    else:
        assert ours.dtype == theirs.dtype == np.float32
        assert np.abs(ours - theirs).max() < 4e-6  # float32 near the highest velocity, 9 pi


def test_episodes_equal_gymnasium() -> None:
    """Random ones are truncated; pumping with the second link's velocity swings up, through all speeds."""
    rng = np.random.default_rng(0)
    both = SideBySide("acrobot", "Acrobot-v1", 4, seed=1)

    def pump(state: State) -> int:
        return int(rng.integers(3)) if rng.random() < 0.2 else 2 if state[3] > 0 else 0

    results = [both.play(lambda _: int(rng.integers(3)), near) for _ in range(4)]
    assert any(truncated and length == 500 for length, _, truncated in results)
    for _ in range(25):
        length, total, truncated = both.play(pump, near)
        assert truncated == (length == 500) and total == -length + (not truncated)
        results.append((length, total, truncated))
    assert sum(not truncated for *_, truncated in results) > 15
    episodes, returns, lengths = both.pool.take_statistics()[:3]
    assert (episodes, lengths) == (len(results), sum(length for length, *_ in results))
    assert returns == sum(total for _, total, _ in results)


def test_velocities_are_bounded_like_gymnasiums() -> None:
    """From states beyond what is reached: every entry of the state at random."""
    rng = np.random.default_rng(1)
    both = SideBySide("acrobot", "Acrobot-v1", 4, seed=1)
    both.theirs.reset(seed=0)
    bounded = 0
    for _ in range(300):
        state = rng.uniform(-1, 1, 4) * [np.pi, np.pi, 4 * np.pi, 9 * np.pi]
        row = both.pool.snapshot()
        row[0, :32] = state.view(np.uint8)
        both.pool.restore(row)
        assert both.state().tobytes() == state.tobytes()
        both.inside.state = state
        action = int(rng.integers(3))
        both.buffers["actions"][:] = action
        both.pool.send()
        both.pool.recv()
        _, _, terminated, _, _ = both.inside.step(action)
        assert both.buffers["terminated"][0] == terminated
        if not terminated:
            near(both.state(), both.inside.state)
            bounded += int((np.abs(both.state()[2:]) == [4 * np.pi, 9 * np.pi]).any())
    assert bounded > 20


def test_episodes_begin_like_gymnasiums() -> None:
    starts = make_pool("acrobot", num_envs=4000).snapshot()[:, :32].copy().view(np.float64)  # (E, 4)
    assert np.abs(starts).max() <= 0.1
    assert np.abs(starts.mean(0)).max() < 0.005 and np.abs(starts.std(0) - 0.1 / 3**0.5).max() < 0.003
    assert np.abs(np.corrcoef(starts.T) - np.eye(4)).max() < 0.08

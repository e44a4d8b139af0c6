"""The T-maze: only a memory of the first observation tells which way to turn."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dist_trainer import _cpp_envs

FORWARD, LEFT, RIGHT = 0, 1, 2
EPISODES, RETURNS, LENGTHS, SUCCESS = range(4)  # entries of the statistics
ENVS = 256


def make_pool(corridor: int) -> _cpp_envs.Pool:
    pool = _cpp_envs.Pool(name="tmaze", params={"corridor": corridor}, num_envs=ENVS, first_env=0, seed=5, threads=1)
    pool.reset()
    return pool


def play(corridor: int, steps: int, turn: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> list[float]:
    """Walks forward and, at the junction, takes `turn` of the side that the cue was on; returns the statistics."""
    pool = make_pool(corridor)
    buffers = pool.buffers()
    observations = buffers["observations"]
    cue = np.zeros(ENVS, np.int64)
    for _ in range(steps):
        shown = observations[:, :2].any(axis=1)
        cue[shown] = np.where(observations[shown, 0] == 1, LEFT, RIGHT)
        buffers["actions"][:, 0] = np.where(observations[:, 3] == 1, turn(cue), FORWARD)
        pool.send()
        pool.recv()
    return pool.take_statistics()


@pytest.mark.parametrize("corridor", [1, 20])
def test_the_cue_is_in_the_first_observation_only(corridor: int) -> None:
    pool = make_pool(corridor)
    buffers = pool.buffers()
    observations = buffers["observations"]
    for _ in range(3):  # episodes
        assert (observations[:, :2].sum(axis=1) == 1).all()
        assert 0.3 < observations[:, 1].mean() < 0.7
        for position in range(corridor + 1):
            at_junction = float(position == corridor)
            assert (observations[:, 2:] == [1 - at_junction, at_junction]).all()
            assert position == 0 or not observations[:, :2].any()
            assert not (buffers["terminated"].any() and position > 0)
            buffers["actions"][:] = RIGHT if at_junction else FORWARD
            pool.send()
            pool.recv()
        assert buffers["terminated"].all() and not buffers["truncated"].any()
        assert set(buffers["rewards"].tolist()) == {4.0, float(np.float32(-0.1))}


def test_waiting_hides_the_cue_too_and_ends_in_truncation() -> None:
    corridor = 3
    pool = make_pool(corridor)
    buffers = pool.buffers()
    limit = 10 * corridor + 20
    for step in range(1, limit + 1):
        buffers["actions"][:] = LEFT  # does nothing in the corridor
        pool.send()
        pool.recv()
        assert not buffers["terminated"].any() and (buffers["rewards"] == np.float32(-0.1)).all()
        assert (buffers["truncated"] == (step == limit)).all()
        assert (buffers["observations"][:, :2].any(axis=1) == (step == limit)).all()
    assert (buffers["final_observations"] == [0, 0, 1, 0]).all()
    assert pool.take_statistics() == pytest.approx([ENVS, -0.1 * ENVS * limit, ENVS * limit, 0])


def test_a_player_with_memory_always_turns_the_right_way() -> None:
    statistics = play(20, 210, lambda cue: cue)
    assert statistics == [ENVS * 10, 4 * ENVS * 10, ENVS * 210, ENVS * 10]


def test_a_player_who_turns_against_the_cue_never_does() -> None:
    statistics = play(20, 210, lambda cue: LEFT + RIGHT - cue)
    assert statistics == pytest.approx([ENVS * 10, -0.1 * ENVS * 10, ENVS * 210, 0])


def test_a_player_without_memory_is_right_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    for turn in (lambda cue: np.full_like(cue, LEFT), lambda cue: rng.integers(LEFT, RIGHT + 1, cue.shape)):
        statistics = play(20, 210, turn)
        assert statistics[EPISODES] == ENVS * 10
        assert 0.46 < statistics[SUCCESS] / statistics[EPISODES] < 0.54  # 4 standard deviations
        assert statistics[RETURNS] == pytest.approx(4.1 * statistics[SUCCESS] - 0.1 * statistics[EPISODES])
        assert statistics[LENGTHS] == ENVS * 210

"""Pendulum is Gymnasium's Pendulum-v1, bit for bit."""

from typing import Any

import numpy as np
import pytest

from benchmarks.reference import pendulum
from tests.classic_control import SideBySide, State, same_bits
from tests.pools import make_pool


def torque(value: float) -> Any:
    return np.array([value], np.float32)


def test_random_episodes_equal_gymnasium() -> None:
    rng = np.random.default_rng(0)
    both = SideBySide("pendulum", "Pendulum-v1", 2, seed=1)
    total = 0.0
    for _ in range(20):
        strength = rng.uniform(0.5, 3)  # beyond the bounds too, where both clip

        def push(_: State, strength: float = strength) -> Any:
            return torque(rng.uniform(-strength, strength))

        length, returned, truncated = both.play(push, same_bits)
        assert (length, truncated) == (200, True)
        total += returned
    statistics = both.pool.take_statistics()
    assert (statistics[0], statistics[2]) == (20, 4000) and statistics[1] == pytest.approx(total, rel=1e-6)


def test_swung_episodes_equal_gymnasium() -> None:
    """Always pushed the way that it turns: over many turns, at the highest velocity."""
    both = SideBySide("pendulum", "Pendulum-v1", 2, seed=2)
    fastest, farthest = 0.0, 0.0

    def push(state: State) -> Any:
        nonlocal fastest, farthest
        farthest, fastest = max(farthest, abs(state[0])), max(fastest, abs(state[1]))
        return torque(2 if state[1] >= 0 else -2)

    for _ in range(10):
        both.play(push, same_bits)
    assert fastest == 8 and farthest > 20


def test_episodes_begin_like_gymnasiums() -> None:
    starts = make_pool("pendulum", num_envs=4000).snapshot()[:, :16].copy().view(np.float64)  # (E, 2)
    assert np.abs(starts).max(0).tolist() == pytest.approx([np.pi, 1], abs=0.003)
    assert starts.mean(0).tolist() == pytest.approx([0, 0], abs=0.12)
    assert starts.std(0).tolist() == pytest.approx([np.pi / 3**0.5, 1 / 3**0.5], rel=0.03)


def test_the_reference_solves_it() -> None:
    assert -160 < np.mean(pendulum.play(400, 7)) < -130

"""Repeat-copy against a slow twin written from its rules, and players that remember more or less."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import repeat_copy
from tests.pools import make_pool

Seen = NDArray[np.float32]


def play(
    choose: Callable[[int, Seen], Any], *, envs: int, length: int, symbols: int, repeats: int
) -> tuple[NDArray[np.float64], Seen]:
    """One episode in each: rewards (steps, E), observations (steps, E, symbols + 1); each as the twin says."""
    pool = make_pool("repeat_copy", num_envs=envs, threads=2, length=length, symbols=symbols, repeats=repeats)
    buffers = pool.buffers()
    steps = length * (1 + repeats)
    rewards, seen = [], []
    for step in range(steps):
        seen.append(buffers["observations"].copy())
        buffers["actions"][:, 0] = choose(step, seen[-1])
        pool.send()
        pool.recv()
        rewards.append(buffers["rewards"].astype(np.float64))
        assert buffers["terminated"].all() == buffers["terminated"].any() == (step == steps - 1)
        assert not buffers["truncated"].any()
    return np.array(rewards), np.array(seen)


@pytest.mark.parametrize(("length", "symbols", "repeats"), [(5, 4, 2), (1, 2, 1), (64, 26, 16), (7, 3, 4)])
def test_episodes_equal_a_slow_twin(length: int, symbols: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    said = rng.integers(symbols, size=(length * (1 + repeats), 30))
    rewards, seen = play(lambda step, _: said[step], envs=30, length=length, symbols=symbols, repeats=repeats)
    for env in range(30):
        sequence = []
        for step in range(length):
            [symbol] = np.flatnonzero(seen[step, env])
            assert symbol < symbols and seen[step, env, symbol] == 1 and rewards[step, env] == 0
            sequence.append(symbol)
        expected = sequence * repeats
        for step in range(length, length * (1 + repeats)):
            assert seen[step, env].tolist() == [0] * symbols + [1]
            right = said[step, env] == expected[step - length]
            assert rewards[step, env] == pytest.approx(right / (length * repeats), rel=1e-6)


def test_sequences_are_uniform_and_new_in_each_episode() -> None:
    _, seen = play(lambda *_: 0, envs=4000, length=5, symbols=4, repeats=1)
    shown = seen[:5, :, :4].argmax(2)  # (5, E)
    for place in range(5):
        assert np.abs(np.bincount(shown[place], minlength=4) / 4000 - 0.25).max() < 0.03
    assert np.abs(np.corrcoef(shown) - np.eye(5)).max() < 0.07
    pool = make_pool("repeat_copy", num_envs=50, length=1, symbols=26, repeats=1)
    firsts = []
    for _ in range(20):
        firsts.append(pool.buffers()["observations"].argmax(1))
        for _ in range(2):
            pool.send()
            pool.recv()
    assert len({tuple(first) for first in firsts}) == 20


def test_only_a_memory_does_better_than_chance() -> None:
    def one_symbol(step: int, seen: Seen) -> Any:
        return 2

    kept = np.zeros(4000, np.int64)

    def last_symbol(step: int, seen: Seen) -> Any:  # remembers one of five
        if step < 5:
            kept[:] = seen[:, :4].argmax(1)
        return kept

    blind, _ = play(one_symbol, envs=4000, length=5, symbols=4, repeats=2)
    assert blind.sum(0).mean() == pytest.approx(0.25, abs=0.02)
    short, _ = play(last_symbol, envs=4000, length=5, symbols=4, repeats=2)
    assert short.sum(0).mean() == pytest.approx(0.2 + 0.8 * 0.25, abs=0.02)
    assert repeat_copy.play(20, 7) == pytest.approx([1.0] * 20)

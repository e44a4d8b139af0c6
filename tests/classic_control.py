"""Gymnasium's classic control beside the pools: what the tests of Acrobot, MountainCar and Pendulum share."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from tests.pools import make_pool

State = NDArray[np.float64]
# What to do next by the state, in the values of Gymnasium's action space.
Choose = Callable[[State], Any]
# Compares the state behind both, and what both show.
Compare = Callable[[NDArray[Any], NDArray[Any]], None]


class SideBySide:
    """A pool of one environment, and the state of `size` doubles behind what it shows; and Gymnasium's environment."""

    def __init__(self, name: str, gym_id: str, size: int, *, seed: int):
        self.pool = make_pool(name, num_envs=1, seed=seed)
        self.buffers = self.pool.buffers()
        self.size = size
        self.theirs: gymnasium.Env[Any, Any] = gymnasium.make(gym_id)
        self.inside: Any = self.theirs.unwrapped

    def state(self) -> State:
        """The first members of the C++ struct."""
        return self.pool.snapshot()[0, : 8 * self.size].copy().view(np.float64)

    def play(self, choose: Choose, compare: Compare) -> tuple[int, float, bool]:
        """One episode in both: its length, its return and whether it was truncated.

        Each step starts both from our state, so that differences do not add up: `compare` sees those of one step.
        """
        self.theirs.reset(seed=0)
        total = 0.0
        for length in range(1, 10_000):
            state = self.state()
            self.inside.state = state.copy()
            action = choose(state)
            self.buffers["actions"][:] = action
            self.pool.send()
            self.pool.recv()
            observation, reward, terminated, truncated, _ = self.theirs.step(action)
            assert self.buffers["rewards"][0] == np.float32(reward)
            assert self.buffers["terminated"][0] == terminated
            assert self.buffers["truncated"][0] == (truncated and not terminated)
            total += float(reward)
            if truncated and not terminated:
                compare(self.buffers["final_observations"][0], observation)
            if terminated or truncated:
                return length, total, bool(truncated and not terminated)
            compare(self.state(), np.asarray(self.inside.state))
            compare(self.buffers["observations"][0], observation)
        raise AssertionError("an episode without an end")


def same_bits(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    assert ours.tobytes() == theirs.tobytes(), (ours, theirs)

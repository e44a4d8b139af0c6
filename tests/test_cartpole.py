"""CartPole is Gymnasium's CartPole-v1, bit for bit."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from numpy.typing import NDArray

from dist_trainer import _cpp_envs

State = NDArray[np.float64]
Policy = Callable[[State], int]


class CartPole:
    """A pool of one environment, and the state behind its observation."""

    def __init__(self, seed: int):
        self.pool = _cpp_envs.Pool(name="cartpole", params={}, num_envs=1, first_env=0, seed=seed, threads=1)
        self.buffers = self.pool.buffers()
        self.pool.reset()

    def state(self) -> State:
        """Position, velocity, angle, angular velocity: the first members of the C++ struct."""
        return self.pool.snapshot()[0, :32].copy().view(np.float64)

    def step(self, action: int) -> None:
        self.buffers["actions"][:] = action
        self.pool.send()
        self.pool.recv()


def play_side_by_side(ours: CartPole, theirs: gymnasium.Env[Any, Any], policy: Policy) -> tuple[int, bool]:
    """One episode in both, compared bit for bit at every step; returns its length and whether it was truncated."""
    theirs.reset(seed=0)
    inside = theirs.unwrapped
    assert isinstance(inside, CartPoleEnv)
    start = ours.buffers["observations"][0].astype(np.float64)
    inside.state = start  # exact: start states are drawn as float32
    assert ours.state().tobytes() == start.tobytes()
    for length in range(1, 501):
        action = policy(ours.state())
        ours.step(action)
        observation, reward, terminated, truncated, _ = theirs.step(action)
        assert ours.buffers["rewards"][0] == reward
        assert ours.buffers["terminated"][0] == terminated
        assert ours.buffers["truncated"][0] == (truncated and not terminated)
        if ours.buffers["truncated"][0]:
            assert ours.buffers["final_observations"][0].tobytes() == observation.tobytes()
        if terminated or truncated:
            return length, not terminated
        assert ours.state().tobytes() == np.asarray(inside.state).tobytes()
        assert ours.buffers["observations"][0].tobytes() == observation.tobytes()
    raise AssertionError("an episode of CartPole-v1 has at most 500 steps")


def balance(state: State) -> int:
    return int(state @ np.array([0.1, 0.5, 5.0, 1.0]) > 0)


def test_random_episodes_equal_gymnasium() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = CartPole(seed=1), gymnasium.make("CartPole-v1")
    lengths = []
    for _ in range(50):
        bias = rng.uniform(0.2, 0.8)  # lopsided pushing leads through other states than fair coins do

        def push(_: State, bias: float = bias) -> int:
            return int(rng.random() < bias)

        length, truncated = play_side_by_side(ours, theirs, push)
        assert not truncated
        lengths.append(length)
    assert len(set(lengths)) > 10
    assert list(ours.pool.take_statistics()) == [50, sum(lengths), sum(lengths)]


def test_balanced_episodes_are_truncated_like_gymnasiums() -> None:
    ours, theirs = CartPole(seed=2), gymnasium.make("CartPole-v1")
    for _ in range(5):
        assert play_side_by_side(ours, theirs, balance) == (500, True)


def test_episodes_also_end_at_the_edge_of_the_track() -> None:
    """Leaning on one side while balancing drives the cart out, so that the position ends the episode, not the angle."""
    ours, theirs = CartPole(seed=3), gymnasium.make("CartPole-v1")
    last: list[State] = []

    def drift(state: State) -> int:
        last.append(state)
        return int(state[2] - 0.1 + 0.3 * state[3] > 0)

    length, truncated = play_side_by_side(ours, theirs, drift)
    assert not truncated and length > 50
    assert abs(last[-1][2]) < 0.19 and last[-1][0] > 2.2


def test_start_states_differ_and_lie_in_the_documented_range() -> None:
    pool = _cpp_envs.Pool(name="cartpole", params={}, num_envs=1000, first_env=0, seed=0, threads=1)
    pool.reset()
    starts = pool.buffers()["observations"]
    assert np.abs(starts).max() < 0.05 and np.abs(starts).max() > 0.0499
    assert np.abs(starts.mean(axis=0)).max() < 0.005
    assert len(np.unique(starts[:, 0])) > 990

"""The pool refuses what is wrong by name: actions, calls out of turn, parameters, sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from tests.pools import ALL, ENVS, assert_same_streams, make_pool, stream


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("name", "action", "message"),
    [
        ("cartpole", 2, "cartpole: action component 0 of environment 103 is 2, must be 0 to 1"),
        ("cartpole", -1, "cartpole: action component 0 of environment 103 is -1, must be 0 to 1"),
        ("probe_multi_discrete", 4, "probe_multi_discrete: action component 0 of environment 101 is 4, must be 0 to 3"),
        (
            "probe_continuous",
            np.nan,
            "probe_continuous: action component 0 of environment 103 is nan, must be a number",
        ),
    ],
)
def test_an_invalid_action_is_refused_by_name(name: str, action: float, message: str, threads: int) -> None:
    pool = make_pool(name, first_env=100, threads=threads)
    rows = pool.snapshot()
    buffers = pool.buffers()
    buffers["actions"][3] = action
    pool.send()
    with pytest.raises(IndexError, match=message):
        pool.recv()
    # Some environments have stepped and some not: the pool says so, until it is put into a state as a whole.
    for call in (pool.send, pool.snapshot):
        with pytest.raises(RuntimeError, match=r"last step failed: call reset\(\) or restore\(\) first"):
            call()
    pool.restore(rows)
    assert_same_streams(stream(name, [pool], 20), stream(name, [make_pool(name, first_env=100)], 20))


@pytest.mark.parametrize("threads", [1, 2])
def test_calls_out_of_turn_are_refused(threads: int) -> None:
    pool = _cpp_envs.Pool(name="tmaze", params={}, num_envs=ENVS, first_env=0, seed=0, threads=threads)
    for call in (pool.send, pool.snapshot):
        with pytest.raises(RuntimeError, match="pool that is new"):
            call()
    pool.reset()
    rows = pool.snapshot()
    with pytest.raises(RuntimeError, match=r"recv\(\) without a send\(\)"):
        pool.recv()
    pool.send()
    calls: list[Callable[[], object]] = [pool.send, pool.reset, pool.snapshot, pool.take_statistics]
    for refused in [*calls, lambda: pool.restore(rows)]:
        with pytest.raises(RuntimeError, match=r"while a step is in flight: call recv\(\) first"):
            refused()
    pool.recv()
    with pytest.raises(RuntimeError, match=r"recv\(\) without a send\(\)"):
        pool.recv()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("cartpole", {"max_steps": 0}, r"env\.params\.max_steps=0: must be a whole number from 1 to 1000000"),
        ("cartpole", {"max_steps": 10.5}, r"env\.params\.max_steps=10\.5: must be a whole number from 1 to 1000000"),
        ("cartpole", {"max_steps": float("nan")}, r"env\.params\.max_steps=-?nan: must be a whole number"),
        ("breakout", {"lives": 11}, r"env\.params\.lives=11: must be a whole number from 1 to 10"),
        ("breakout", {"balls": 3}, r"env\.params\.balls.*no such parameter; valid: lives, frame_skip, max_steps"),
        ("solitaire", {}, r"env\.name=solitaire: no such environment; valid: acrobot, breakout, cartpole, .*tmaze"),
    ],
)
def test_bad_parameters_are_named_with_what_is_valid(name: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cpp_envs.spec(name, params)
    with pytest.raises(ValueError, match=message):
        _cpp_envs.Pool(name=name, params=params, num_envs=1, first_env=0, seed=0, threads=1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1"),
        ({"first_env": -1}, "first_env must be at least 0"),
        ({"threads": 0}, "threads must be 1 to 1024"),
        ({"threads": 100_000}, "threads must be 1 to 1024"),
    ],
)
def test_bad_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cpp_envs.Pool(name="cartpole", params={}, **({"num_envs": 1, "first_env": 0, "seed": 0, "threads": 1} | sizes))


@pytest.mark.parametrize("name", ALL)
def test_default_parameters_are_valid(name: str) -> None:
    spec = _cpp_envs.spec(name, _cpp_envs.default_params(name))
    assert spec.observation_shape == list(make_pool(name).buffers()["observations"].shape[1:])

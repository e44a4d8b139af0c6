"""Pools for tests: made, stepped with random actions, and compared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_trainer import _cpp_envs

ENVS = 12
ALL = _cpp_envs.env_names()
Buffers = dict[str, NDArray[Any]]


def make_pool(
    name: str,
    *,
    num_envs: int = ENVS,
    first_env: int = 0,
    seed: int = 1,
    threads: int = 1,
    processes: _cpp_envs.ProcessConfig | None = None,
    **params: float,
) -> _cpp_envs.Pool:
    pool = _cpp_envs.Pool(
        name=name,
        params=params,
        num_envs=num_envs,
        first_env=first_env,
        seed=seed,
        threads=threads,
        processes=processes,
    )
    pool.reset()
    return pool


def process_config(
    *, step_timeout_s: float = 60, max_restarts: int = 10, memory_bytes: int = 0
) -> _cpp_envs.ProcessConfig:
    program = str(Path(_cpp_envs.__file__).with_name("env_worker"))
    return _cpp_envs.ProcessConfig(
        program=program, step_timeout_s=step_timeout_s, max_restarts=max_restarts, memory_bytes=memory_bytes
    )


def choose_actions(name: str, buffers: Buffers) -> NDArray[np.float64]:
    """Random legal actions as a function of the pool's noise; continuous ones go beyond the bounds now and then."""
    action, noise = _cpp_envs.spec(name, {}).action, buffers["noise"]
    if action.kind == "continuous":
        low, high = np.array(action.low), np.array(action.high)
        return low + (high - low) * (1.2 * noise.astype(np.float64) - 0.1)
    if "legal" in buffers:
        parts = np.split(buffers["legal"], np.cumsum(action.sizes)[:-1], axis=1)  # of each component
        chosen = [
            (part.cumsum(1) > np.floor(u * part.sum(1))[:, None]).argmax(1)
            for part, u in zip(parts, noise.T.astype(np.float64), strict=True)
        ]
        return np.stack(chosen, 1).astype(np.float64)
    return np.floor(noise.astype(np.float64) * action.sizes)


def step(name: str, pool: _cpp_envs.Pool) -> Buffers:
    buffers = pool.buffers()
    buffers["actions"][:] = choose_actions(name, buffers)
    pool.send()
    pool.recv()
    return buffers


def contents(buffers: Buffers) -> Buffers:
    """A copy of what is defined: final observations only of the rows that were truncated."""
    copy = {key: buffer.copy() for key, buffer in buffers.items() if key != "actions"}
    copy["final_observations"][~copy["truncated"]] = 0
    return copy


def stream(name: str, pools: list[_cpp_envs.Pool], steps: int) -> Iterator[Buffers]:
    """What the pools show, one after the other, now and after each step."""
    for index in range(steps + 1):
        parts = [contents(step(name, pool) if index else pool.buffers()) for pool in pools]
        yield {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def assert_same_streams(left: Iterator[Buffers], right: Iterator[Buffers]) -> None:
    for index, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        for key in ours:
            assert ours[key].tobytes() == theirs[key].tobytes(), f"{key} differs at step {index}"

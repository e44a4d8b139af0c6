"""The pool's memory: one block for what goes to the policy, pages that can be locked, and nothing that outlives it."""

import gc
import mmap
import os

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool

ALL = _cpp_envs.env_names()


def make_pool(name: str, num_envs: int, threads: int = 1) -> EnvPool:
    pool = EnvPool(EnvConfig(name=name), num_envs=num_envs, first_env=0, seed=1, threads=threads)
    pool.reset()
    return pool


# --- The block that goes to the policy -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 13, 1000])
@pytest.mark.parametrize("name", ALL)
def test_a_copy_of_the_block_holds_what_the_policy_needs(name: str, num_envs: int) -> None:
    """Read back by the layout alone, as a device would read its copy."""
    pool = make_pool(name, num_envs)
    for _ in range(6):
        if pool.spec.has_legal:  # of each component the first that is
            parts = np.split(pool.legal, np.cumsum(pool.spec.action_sizes)[:-1], axis=1)
            pool.actions[:] = np.stack([part.argmax(1) for part in parts], 1)
        pool.send()
        pool.recv()
    copied = pool.incoming.tobytes()
    optional = {name for name in ("legal", "resting") if getattr(pool.spec, f"has_{name}")}
    assert set(pool.incoming_layout) == {"observations", "noise", "rewards", "terminated", "truncated"} | optional
    for field, (offset, dtype, shape) in pool.incoming_layout.items():
        buffer = getattr(pool, field)
        assert (offset % 64, np.dtype(dtype), shape) == (0, buffer.dtype, buffer.shape)
        read = np.frombuffer(copied, dtype, count=buffer.size, offset=offset).reshape(shape)
        np.testing.assert_array_equal(read, buffer)


@pytest.mark.parametrize("name", ALL)
def test_the_block_and_the_actions_have_pages_of_their_own(name: str) -> None:
    """So that each can be locked in memory (cudaHostRegister takes whole pages) without touching the other."""
    pool = make_pool(name, 7)
    others = [pool.final_observations, pool.statistics]
    for locked in (pool.incoming, pool.actions):
        start = locked.ctypes.data
        assert start % mmap.PAGESIZE == 0
        pages = range(start, start + -(-locked.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        assert all(buffer.ctypes.data not in pages for buffer in others)
    assert pool.incoming.nbytes % mmap.PAGESIZE == 0
    assert pool.actions.ctypes.data >= pool.incoming.ctypes.data + pool.incoming.nbytes


# --- Its lifetime ----------------------------------------------------------------------------------------------------


def mappings(of: str = "memfd:dist_trainer") -> int:
    with open("/proc/self/maps") as maps:
        return sum(of in line for line in maps)


def threads_running() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("in_flight", [False, True])
def test_memory_is_nameless_and_goes_with_the_pool(in_flight: bool) -> None:
    gc.collect()
    mapped, named, running = mappings(), mappings("/dev/shm/"), threads_running()
    pool = make_pool("breakout", 1000, threads=3)
    assert mappings() == mapped + 1 and mappings("/dev/shm/") == named
    assert threads_running() == running + 2  # the caller is the third
    assert not [name for name in os.listdir("/dev/shm") if "dist_trainer" in name]
    if in_flight:
        pool.send()
    del pool
    gc.collect()
    assert mappings() == mapped and threads_running() == running


@pytest.mark.parametrize("buffer", ["observations", "incoming", "actions"])
def test_a_buffer_keeps_its_memory_alive(buffer: str) -> None:
    gc.collect()
    mapped = mappings()
    view = getattr(make_pool("cartpole", 12), buffer)
    gc.collect()
    assert mappings() == mapped + 1
    view[:] = view  # readable and writable
    del view
    gc.collect()
    assert mappings() == mapped

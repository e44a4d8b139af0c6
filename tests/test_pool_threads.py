"""The pool's threads: which cores they run on, what they do while nobody needs them, and that nothing is lost."""

import os
import time

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool, cores_to_pin

ALLOWED = sorted(os.sched_getaffinity(0))


def make_pool(name: str, num_envs: int, threads: int, cores: list[int] | None = None) -> EnvPool:
    pool = EnvPool(EnvConfig(name=name), num_envs=num_envs, first_env=0, seed=1, threads=threads, cores=cores or [])
    pool.reset()
    return pool


def threads_of_process() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


# --- Waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [False, True])
def test_an_idle_pool_uses_no_processor_time(in_flight: bool) -> None:
    """Neither while the policy thinks, between recv and send, nor when a step is done and nobody has asked for it."""
    pool = make_pool("cartpole", 64, threads=2)
    for _ in range(100):
        pool.send()
        pool.recv()
    if in_flight:
        pool.send()
        time.sleep(0.1)
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.05  # a thread that spins would take 0.3
    if in_flight:
        pool.recv()


def test_send_does_not_wait_for_the_step_if_there_are_threads() -> None:
    """The others finish the step while the caller does something else."""
    alone, threaded = make_pool("breakout", 4000, threads=1), make_pool("breakout", 4000, threads=2)
    alone.send()
    alone.recv()
    threaded.send()
    deadline = time.monotonic() + 30
    while not np.array_equal(threaded.noise, alone.noise):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    threaded.recv()
    np.testing.assert_array_equal(threaded.observations, alone.observations)


# --- Nothing is lost or done twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_envs", "threads", "steps"),
    [(1, 3, 300), (5, 8, 300), (7, 2, 300), (130, 3, 300), (4097, 5, 300), (100_000, 2, 30)],
)
def test_threads_that_come_early_late_or_not_at_all_change_nothing(num_envs: int, threads: int, steps: int) -> None:
    """Threads spin, sleep or are late, by how long the caller takes before and after send(). With many environments the
    caller sleeps too, until the last of the others is through."""
    alone, threaded = make_pool("cartpole", num_envs, 1), make_pool("cartpole", num_envs, threads)
    pauses = np.random.default_rng(0).choice([0, 0, 0, 1e-5, 5e-5, 5e-4], (steps, 2))
    for before, after in pauses:
        for pool in (alone, threaded):
            pool.actions[:] = pool.noise > 0.5
        alone.send()
        alone.recv()
        time.sleep(before)
        threaded.send()
        time.sleep(after)
        threaded.recv()
        assert threaded.incoming.tobytes() == alone.incoming.tobytes()
    assert threaded.snapshot().tobytes() == alone.snapshot().tobytes()
    assert threaded.take_statistics().tolist() == alone.take_statistics().tolist()


@pytest.mark.parametrize("wrong", [0, 2000, 4095])
def test_a_mistake_in_any_thread_reaches_the_caller(wrong: int) -> None:
    pool = make_pool("cartpole", 4096, threads=3)
    pool.actions[wrong] = 9
    pool.send()
    with pytest.raises(IndexError, match=f"environment {wrong} is 9, must be 0 to 1"):
        pool.recv()
    pool.reset()  # and the threads go on
    pool.send()
    pool.recv()
    assert (pool.rewards == 1).all()


# --- Cores -----------------------------------------------------------------------------------------------------------


def test_threads_run_on_the_cores_they_are_given() -> None:
    """Thread i on core i; the caller is the first of them and stays as it is."""
    threads = min(3, len(ALLOWED))
    before = threads_of_process()
    pool = make_pool("cartpole", 100, threads, ALLOWED[:threads])
    pinned = sorted(threads_of_process() - before)
    assert [os.sched_getaffinity(thread) for thread in pinned] == [{core} for core in ALLOWED[1:threads]]
    assert sorted(os.sched_getaffinity(0)) == ALLOWED
    assert pool.num_envs == 100


def test_without_cores_threads_may_run_anywhere() -> None:
    before = threads_of_process()
    pool = make_pool("cartpole", 100, threads=3)
    free = threads_of_process() - before
    assert len(free) == 2 and all(sorted(os.sched_getaffinity(thread)) == ALLOWED for thread in free)
    assert pool.num_envs == 100


@pytest.mark.parametrize(
    ("cores", "error", "message"),
    [
        ([0], ValueError, "cores must be one for each of the 2 threads, or none; there are 1"),
        ([0, -1], ValueError, "cores: -1 must be at least 0"),
        ([0, 1_000_000], RuntimeError, "cannot pin a thread to core 1000000: Invalid argument"),
    ],
)
def test_cores_that_cannot_be_had_are_refused(cores: list[int], error: type[Exception], message: str) -> None:
    before = threads_of_process()
    with pytest.raises(error, match=message):
        _cpp_envs.Pool(name="cartpole", params={}, num_envs=8, first_env=0, seed=0, threads=2, cores=cores)
    assert threads_of_process() == before


@pytest.mark.parametrize(
    ("mask", "threads", "local_size", "expected"),
    [
        (range(8, 24), 4, 4, [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]),
        (range(8, 24), 3, 4, [[8, 9, 10], [12, 13, 14], [16, 17, 18], [20, 21, 22]]),
        ([1, 3, 5, 7, 9], 2, 2, [[1, 3], [5, 7]]),  # one is left over
        (range(8, 24), 5, 4, [[], [], [], []]),  # two learners' threads would meet
        (range(3), 1, 4, [[], [], [], []]),  # more learners than cores
        (range(64), 32, 2, [list(range(32)), list(range(32, 64))]),  # the whole machine, all of it in use
        (range(64), 31, 2, [[], []]),  # a part of it: other runs would choose the same
    ],
)
def test_learners_of_a_machine_pin_to_cores_of_their_own(
    mask: range | list[int], threads: int, local_size: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(mask))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [cores_to_pin(threads, rank, local_size) for rank in range(local_size)] == expected

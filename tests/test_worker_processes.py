"""Worker processes: the same numbers as threads, and processes that start, wait and end as they should."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool
from tests.pools import ALL, assert_same_streams, choose_actions, contents, make_pool, process_config, step, stream

ALLOWED = sorted(os.sched_getaffinity(0))


def children() -> set[int]:
    """Processes that threads of this one have started, those that ended and were not reaped included."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker process outlives its parent"
        time.sleep(0.01)


def workers_of(num_envs: int = 200, threads: int = 2, name: str = "cartpole") -> tuple[_cpp_envs.Pool, set[int]]:
    """A pool, and the ids of its processes."""
    before = children()
    pool = make_pool(name, num_envs=num_envs, threads=threads, processes=process_config())
    return pool, children() - before


# --- The same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", ALL)
def test_processes_and_threads_give_the_same_streams(name: str, workers: int) -> None:
    threads = make_pool(name, num_envs=133, first_env=5)
    processes = make_pool(name, num_envs=133, first_env=5, threads=workers, processes=process_config())
    assert_same_streams(stream(name, [threads], 120), stream(name, [processes], 120))
    assert threads.take_statistics() == processes.take_statistics()
    assert threads.snapshot().tobytes() == processes.snapshot().tobytes()
    assert processes.take_faults() == []


@pytest.mark.parametrize("name", ALL)
def test_a_snapshot_of_one_kind_goes_on_in_the_other(name: str) -> None:
    for before, after in ((None, process_config()), (process_config(), None)):
        original = make_pool(name, threads=2, processes=before)
        for _ in range(37):  # in the middle of episodes
            step(name, original)
        other = make_pool(name, threads=3, processes=after)
        other.restore(original.snapshot())
        for key in ("observations", "noise"):
            assert contents(other.buffers())[key].tobytes() == contents(original.buffers())[key].tobytes()
        for _ in range(60):
            ours, theirs = contents(step(name, original)), contents(step(name, other))
            assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)
        assert original.take_statistics() == other.take_statistics()


@pytest.mark.parametrize(("num_envs", "workers"), [(1, 3), (5, 8), (1000, 3), (20_000, 2)])
def test_workers_that_come_early_late_or_not_at_all_change_nothing(num_envs: int, workers: int) -> None:
    """They spin, sleep or are late, by how long the caller takes before and after send()."""
    alone = make_pool("cartpole", num_envs=num_envs)
    pool = make_pool("cartpole", num_envs=num_envs, threads=workers, processes=process_config())
    pauses = np.random.default_rng(0).choice([0, 0, 0, 1e-5, 5e-5, 5e-4, 2e-3], (100, 2))
    for before, after in pauses:
        for each in (alone, pool):
            each.buffers()["actions"][:] = each.buffers()["noise"] > 0.5
        alone.send()
        alone.recv()
        time.sleep(before)
        pool.send()
        time.sleep(after)
        pool.recv()
        assert pool.incoming().tobytes() == alone.incoming().tobytes()
    assert pool.snapshot().tobytes() == alone.snapshot().tobytes()


def test_an_invalid_action_is_refused_by_name() -> None:
    pool = make_pool("cartpole", first_env=100, threads=3, processes=process_config())
    rows = pool.snapshot()
    pool.buffers()["actions"][3] = 2
    pool.send()
    with pytest.raises(IndexError, match="action component 0 of environment 103 is 2, must be 0 to 1"):
        pool.recv()
    with pytest.raises(RuntimeError, match=r"last step failed: call reset\(\) or restore\(\) first"):
        pool.send()
    pool.restore(rows)
    assert_same_streams(stream("cartpole", [pool], 20), stream("cartpole", [make_pool("cartpole", first_env=100)], 20))
    assert pool.take_faults() == []  # the caller's mistake, not the environment's


# --- Their life ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [False, True])
def test_they_end_with_the_pool_and_leave_nothing(in_flight: bool) -> None:
    gc.collect()
    files, shared = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    pool, pids = workers_of(threads=3)
    assert len(pids) == 3 and all(is_alive(pid) for pid in pids)
    if in_flight:
        pool.send()
    del pool
    gc.collect()
    assert not children() & pids  # reaped
    assert set(os.listdir("/proc/self/fd")) == files and set(os.listdir("/dev/shm")) == shared


CHILD = """
import sys, time
from tests.test_worker_processes import workers_of
pool, pids = workers_of(threads=3)
print(*pids, flush=True)
while True:
    pool.send()
    pool.recv()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
def test_they_end_with_their_parent(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = {int(pid) for pid in parent.stdout.readline().split()}
        assert len(pids) == 3 and all(is_alive(pid) for pid in pids)
        parent.send_signal(how)
        parent.wait()
    wait_until_gone(pids)


def test_they_ignore_signals_that_are_sent_to_the_whole_group() -> None:
    pool, pids = workers_of()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        for pid in pids:
            os.kill(pid, number)
    for _ in range(20):
        step("cartpole", pool)
    assert pool.take_faults() == [] and all(is_alive(pid) for pid in pids)


def test_they_keep_no_file_of_their_parent_open() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    os.set_inheritable(write_end, True)
    _, pids = workers_of()
    for pid in pids:
        assert set(os.listdir(f"/proc/{pid}/fd")) <= {"0", "1", "2", "3"}
    os.close(read_end)
    os.close(write_end)


def test_idle_workers_use_no_processor_time() -> None:
    pool, pids = workers_of()
    for _ in range(50):
        step("cartpole", pool)

    def ticks() -> int:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(line[11]) + int(line[12]) for line in fields)

    own, used = time.process_time(), ticks()
    time.sleep(0.5)
    assert ticks() - used <= 0.05 * os.sysconf("SC_CLK_TCK") and time.process_time() - own < 0.05


def test_they_run_on_the_cores_they_are_given() -> None:
    workers, before = min(2, len(ALLOWED)), children()
    cores = ALLOWED[:workers]
    pool = EnvPool(
        EnvConfig("cartpole", workers="processes"), num_envs=8, first_env=0, seed=0, threads=workers, cores=cores
    )
    pinned = [os.sched_getaffinity(pid) for pid in children() - before]
    assert sorted(pinned, key=min) == [{core} for core in cores]
    assert pool.num_envs == 8 and sorted(os.sched_getaffinity(0)) == ALLOWED


def test_what_keeps_them_from_starting_is_told() -> None:
    before = children()
    sizes: dict[str, Any] = {"num_envs": 8, "first_env": 0, "seed": 0, "threads": 2}
    with pytest.raises(RuntimeError, match="cannot pin a process to core 1000000: Invalid argument"):
        _cpp_envs.Pool(name="cartpole", params={}, processes=process_config(), cores=[0, 1_000_000], **sizes)
    missing = _cpp_envs.ProcessConfig(program="/no/such/file", step_timeout_s=1, max_restarts=1, memory_bytes=0)
    with pytest.raises(RuntimeError, match="cannot start /no/such/file: No such file or directory"):
        _cpp_envs.Pool(name="cartpole", params={}, processes=missing, **sizes)
    with pytest.raises(ValueError, match="processes must be 1 to 1024"):
        _cpp_envs.Pool(name="cartpole", params={}, processes=process_config(), **(sizes | {"threads": 0}))
    assert children() == before


# --- Killed from outside ---------------------------------------------------------------------------------------------


def test_workers_killed_between_steps_are_replaced_and_nothing_is_lost() -> None:
    pool, pids = workers_of()
    alone = make_pool("cartpole", num_envs=200)
    lost = 0
    for _ in range(5):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            ours, theirs = contents(step("cartpole", pool)), contents(step("cartpole", alone))
            assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)
        faults = pool.take_faults()
        assert all("no environment of cartpole at work: Killed" in fault for fault in faults)
        lost += len(faults)
        pids = children() - {0}
        pids = {pid for pid in pids if "env_worker" in Path(f"/proc/{pid}/cmdline").read_text()}
    assert lost == 10 and pool.take_statistics() == alone.take_statistics()


def test_a_worker_that_is_stopped_counts_as_one_that_hangs() -> None:
    before = children()
    pool = make_pool("cartpole", num_envs=200, threads=2, processes=process_config(step_timeout_s=0.1))
    alone = make_pool("cartpole", num_envs=200)
    os.kill(min(children() - before), signal.SIGSTOP)
    for _ in range(3):
        ours, theirs = contents(step("cartpole", pool)), contents(step("cartpole", alone))
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)  # it was at no environment
    assert [fault.partition(": ")[2] for fault in pool.take_faults()] == [
        "no progress within 0.1 s (env.step_timeout_s)"
    ]


def test_kills_at_any_moment_lose_whole_episodes_and_nothing_else() -> None:
    """Two agents an environment, episodes of 7 steps, which are shown. Whatever is interrupted: an environment ends its
    episode for both agents, with what it showed last, and counts nowhere; all others are stepped exactly once."""
    before, name, envs, lost = children(), "probe_image", 20_000, 0
    pool = make_pool(name, num_envs=envs, threads=2, processes=process_config(max_restarts=1000), episode_steps=7)
    buffers, chance = pool.buffers(), random.Random(0)
    age = np.zeros(envs, int)
    for _ in range(300):
        shown = buffers["observations"].copy()
        buffers["actions"][:] = choose_actions(name, buffers)
        doomed = list(children() - before)[: chance.randrange(3)]
        pool.send()
        time.sleep(chance.random() * 3e-4)
        for pid in doomed:
            with suppress(ProcessLookupError):  # dead since the last round, and only now replaced
                os.kill(pid, signal.SIGKILL)
        pool.recv()
        age += 1
        over = buffers["truncated"].reshape(envs, 2)
        assert (over[:, 0] == over[:, 1]).all() and not buffers["terminated"].any()
        final = buffers["final_observations"].reshape(envs, -1)
        cut_off = over[:, 0] & (final[:, -1] == age - 1)
        assert (final[cut_off] == shown.reshape(envs, -1)[cut_off]).all()
        assert (buffers["rewards"].reshape(envs, 2)[cut_off] == 0).all()
        finished = over[:, 0] & ~cut_off
        assert (finished == (age == 7) & ~cut_off).all() and (final[finished, -1] == 7).all()
        assert pool.take_statistics()[::2] == [2 * finished.sum(), 2 * 7 * finished.sum()]
        lost += cut_off.sum()
        age[over[:, 0]] = 0
        assert (buffers["observations"].reshape(envs, 2, -1)[:, :, -1] == age[:, None]).all()
    faults = pool.take_faults()
    interrupted = [fault for fault in faults if fault.startswith("environment ")]
    assert len(interrupted) > 5 and lost > 0
    assert lost <= len(interrupted)  # the rest ended by themselves, and were interrupted when the next episode began

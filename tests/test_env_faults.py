"""Environments that crash, hang, throw, leak or show what cannot be: with worker processes they lose an episode, with
threads the run learns which it was."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool
from tests.pools import Buffers, contents

ENVS, FIRST, SEED = 60, 1000, 5
PROCESSES = EnvConfig("probe_faults", workers="processes", step_timeout_s=0.2)


def make_pool(config: EnvConfig, workers: int = 2, num_envs: int = ENVS) -> EnvPool:
    pool = EnvPool(config, num_envs=num_envs, first_env=FIRST, seed=SEED, threads=workers)
    pool.reset()
    return pool


def faulty(config: EnvConfig = PROCESSES, **params: float) -> EnvConfig:
    return dataclasses.replace(config, params=params)


def step(pool: EnvPool) -> Buffers:
    """Everyone leans against the fall: episodes of some hundred steps. A copy of what came of it."""
    lean = pool.observations[:, 2:3] + 0.5 * pool.observations[:, 3:4]
    pool.actions[:] = np.where(lean == 0, pool.noise > 0.5, lean > 0)
    pool.send()
    pool.recv()
    names = ("observations", "final_observations", "noise", "rewards", "terminated", "truncated")
    return contents({name: getattr(pool, name) for name in names})


def environment(fault: str) -> int:
    found = re.match(r"environment (\d+) of probe_faults: ", fault)
    assert found, fault
    return int(found[1]) - FIRST


# --- With processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "probability", "reason"),
    [
        ("segfault", 3e-3, "Segmentation fault"),
        ("hang", 2e-4, r"no progress within 0.2 s \(env.step_timeout_s\)"),
        ("exception", 3e-3, "the probe throws"),
        ("nan", 3e-3, "entry 2 of the observation of agent 0 is -?nan, must be from -100 to 100"),
        ("outlier", 3e-3, "entry 3 of the observation of agent 0 is 1000, must be from -100 to 100"),
        ("nan_reward", 3e-3, "the reward of agent 0 is -?nan, must be finite"),
    ],
)
def test_a_fault_loses_one_episode(kind: str, probability: float, reason: str) -> None:
    """CartPole pays 1 for every step of its own and is not truncated before 500: a step that was lost stands out."""
    pool, plain = make_pool(faulty(PROCESSES, **{kind: probability})), make_pool(EnvConfig("cartpole"))
    untouched = np.ones(ENVS, bool)
    returns, expected, total = np.zeros(ENVS), np.zeros(3), 0
    for index in range(400):
        shown = pool.observations.copy()
        ours, theirs = step(pool), step(plain)
        faults = pool.take_faults()
        lost = ours["truncated"]
        assert sorted(environment(fault) for fault in faults) == np.flatnonzero(lost).tolist()
        for fault in faults:
            length = int(returns[environment(fault)])
            # Noticed within the step, or, by what it shows, after it.
            where = rf"\(seed {SEED}, step (\d+), step ({length}|{length + 1}) of its episode\)"
            assert re.fullmatch(rf"environment \d+ of probe_faults: {reason} {where}", fault), fault
        untouched &= ~lost
        for name in ours:  # nobody else noticed
            assert (ours[name][untouched] == theirs[name][untouched]).all(), (name, index)
        assert (ours["rewards"] == ~lost).all() and not (ours["terminated"] & lost).any()
        assert (ours["final_observations"][lost] == shown[lost]).all()
        assert (np.abs(ours["observations"][lost]) <= 0.05).all()  # a new episode
        returns += ours["rewards"]
        ended = ours["terminated"] & ~lost
        expected += [ended.sum(), returns[ended].sum(), returns[ended].sum()]
        returns[ended | lost] = 0
        total += len(faults)
    assert total >= 2 and untouched.any()
    assert pool.take_statistics().tolist() == expected.tolist()


def test_what_happens_does_not_depend_on_the_number_of_processes() -> None:
    params = {"segfault": 5e-4, "nan": 5e-4, "exception": 5e-4, "reset_segfault": 0.02}
    pools = [make_pool(faulty(PROCESSES, **params), workers) for workers in (1, 2, 3, 7)]
    faults: list[list[str]] = [[] for _ in pools]
    for _ in range(300):
        first, *others = [step(pool) for pool in pools]
        for other in others:
            assert all(other[name].tobytes() == first[name].tobytes() for name in first)
        for pool, found in zip(pools, faults, strict=True):
            found += sorted(pool.take_faults())
    assert all(found == faults[0] for found in faults) and len(faults[0]) > 10
    assert len({pool.snapshot().tobytes() for pool in pools}) == 1
    assert len({tuple(pool.take_statistics()) for pool in pools}) == 1


def test_a_restored_pool_meets_the_same_faults() -> None:
    pool = make_pool(faulty(segfault=2e-3))
    for _ in range(50):
        step(pool)
    other = make_pool(faulty(segfault=2e-3), workers=1)
    other.restore(pool.snapshot())
    pool.take_faults()
    streams = [[step(each)["observations"].tobytes() for _ in range(100)] for each in (pool, other)]
    assert streams[0] == streams[1]
    assert sorted(pool.take_faults()) == sorted(other.take_faults()) != []


@pytest.mark.parametrize("kind", ["segfault", "hang", "exception", "nan", "reset_segfault"])
def test_too_many_in_a_row_stop_with_name_and_seed(kind: str) -> None:
    config = dataclasses.replace(faulty(PROCESSES, **{kind: 1.0}), max_restarts=3, step_timeout_s=0.05)
    pool = EnvPool(config, num_envs=ENVS, first_env=FIRST, seed=SEED, threads=2)
    message = (
        r"\d+ worker processes in a row were lost, more than env.max_restarts=3; the last with "
        rf"environment 10\d\d of probe_faults: .*seed {SEED}, step \d+, step \d+ of its episode"
    )

    def play() -> None:
        pool.reset()
        step(pool)

    with pytest.raises(RuntimeError, match=message):
        play()
    for call in (pool.reset, pool.send):
        with pytest.raises(RuntimeError):
            call()


def test_faults_far_apart_do_not_count_as_in_a_row() -> None:
    pool = make_pool(dataclasses.replace(faulty(segfault=1e-3), max_restarts=3))
    for _ in range(300):
        step(pool)
    assert len(pool.take_faults()) > 8


def test_a_leak_ends_at_the_limit_and_only_with_one() -> None:
    leaks = faulty(leak=1_000_000)
    limited = make_pool(dataclasses.replace(leaks, worker_memory_mb=64))
    free = make_pool(leaks)
    for _ in range(4):
        step(limited)
        step(free)
    faults = limited.take_faults()
    assert faults and all("bad_alloc" in fault for fault in faults)
    assert free.take_faults() == []


# --- With threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nan", "entry 2 of the observation of agent 0 is -?nan, must be from -100 to 100"),
        ("outlier", "entry 3 of the observation of agent 0 is 1000, must be from -100 to 100"),
        ("nan_reward", "the reward of agent 0 is -?nan, must be finite"),
        ("exception", "the probe throws"),
    ],
)
def test_threads_raise_and_name_the_environment(kind: str, reason: str, workers: int) -> None:
    where = rf"\(seed {SEED}, step \d+, step \d+ of its episode\)"
    pool = make_pool(faulty(EnvConfig("probe_faults"), **{kind: 1e-3}), workers)

    def play() -> None:
        for _ in range(1000):
            step(pool)

    with pytest.raises(RuntimeError, match=rf"environment 10\d\d of probe_faults: {reason} {where}"):
        play()


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_without_the_check_everything_passes(workers: str) -> None:
    config = dataclasses.replace(PROCESSES, workers=workers, check=False)
    pool = make_pool(faulty(config, nan=0.01, nan_reward=0.01))
    seen: list[Any] = [step(pool) for _ in range(100)]
    assert any(np.isnan(each["observations"]).any() for each in seen)
    assert any(np.isnan(each["rewards"]).any() for each in seen)
    assert pool.take_faults() == []

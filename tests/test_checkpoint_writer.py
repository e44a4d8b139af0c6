"""Checkpoints are written while training goes on, and hold what was when they were asked for."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dist_trainer.checkpoint import load_file, shard_of
from dist_trainer.checkpoint_clock import CheckpointClock
from dist_trainer.checkpoint_file import Shard, checkpoint_path, list_checkpoints, write_shard
from dist_trainer.checkpoint_writer import CheckpointWriter, Written
from dist_trainer.cli import compose_train
from dist_trainer.distributed import World
from dist_trainer.host_copies import HostCopies
from dist_trainer.learner import Learner, make_learner
from dist_trainer.update import learn
from tests.checkpoint_files import saved, write_checkpoint
from tests.learners import learners_of_sizes
from tests.test_resume import assert_same_bits

CPU = torch.device("cpu")
SMALL = ["env=cartpole", "device=cpu", "total_envs=16", "horizon=8", "ppo.minibatches=4", "policy.hidden_size=16"]
OPTIMIZERS = ["psgd_kron", "soap", "muon", "psgd_lra", "sf_adamw", "newton_psgd"]


def learner_at(*settings: str, updates: int = 3, world: World | None = None) -> Learner:
    config = compose_train([*SMALL, "torch_threads=1", "env_threads=1", *settings])[0]
    learner = make_learner(config, world or World(0, 1, 0, 1, CPU))
    for _ in range(updates):
        learn(learner, learner.collector.collect())
        learner.iteration += 1
    return learner


@contextmanager
def slow_disk(gate: threading.Event) -> Iterator[None]:
    """No byte of a shard is written before the gate is open."""

    def wait_and_write(path: Path, write: Any) -> Shard:
        assert gate.wait(60)
        return write_shard(path, write)

    with mock.patch("dist_trainer.checkpoint_writer.write_shard", wait_and_write):
        yield


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_written_is_of_the_moment_of_the_copy(optimizer: str, tmp_path: Path) -> None:
    """Training goes on for two updates before a byte is written; the checkpoint is the one that was written at once.
    Nothing of the state is left out, whatever the optimizer keeps."""
    learner, gate = learner_at(f"optimizer={optimizer}"), threading.Event()
    writer = CheckpointWriter(learner.world, tmp_path / "later", keep=3, keep_best=True)
    write_checkpoint(checkpoint_path(tmp_path / "at once", 3), saved(shard_of(learner, dict)))
    with slow_disk(gate):
        writer.start(3, shard_of(learner, dict), score=None)
        for _ in range(2):
            learn(learner, learner.collector.collect())
        assert list_checkpoints(tmp_path / "later") == []
        gate.set()
        written = writer.result(wait=True)
    assert written and written.failure is None
    later, at_once = (load_file(checkpoint_path(tmp_path / name, 3)) for name in ("later", "at once"))
    assert_same_bits(later, at_once)
    assert not torch.equal(next(iter(at_once["policy"].values())), next(iter(learner.policy.state_dict().values())))


def test_copies_keep_layout_and_use_their_memory_again() -> None:
    """Strides too: a transposed matrix may be multiplied by another kernel."""
    copies = HostCopies(CPU)
    matrix = torch.arange(6.0).reshape(2, 3).T
    value: dict[str, Any] = {
        "matrix": matrix,
        "part": torch.arange(10)[::2],
        "none": None,
        "list": [torch.tensor(3), (1.5, "x", torch.zeros(0, 4, dtype=torch.bfloat16))],
    }
    taken = copies.take(value)
    assert_same_bits(taken, value)
    assert taken["matrix"].stride() == (1, 3)
    where = taken["matrix"].data_ptr()
    matrix.add_(1)
    assert taken["matrix"][0, 0] == 0
    again = copies.take(value | {"part": torch.arange(7)})
    assert again["matrix"].data_ptr() == where and again["matrix"][0, 0] == 1
    assert again["part"].tolist() == list(range(7))
    assert copies.bytes == 6 * 4 + 7 * 8 + 8


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second waits for the first, and spoils nothing of it."""
    writer, gate = CheckpointWriter(World(0, 1, 0, 1, CPU), tmp_path, keep=3, keep_best=True), threading.Event()
    state = torch.zeros(1000)
    with slow_disk(gate):
        writer.start(1, shard(state), None)
        assert writer.busy and writer.result(wait=False) is None
        threading.Timer(0.2, gate.set).start()
        state.fill_(1)
        began = time.perf_counter()
        writer.start(2, shard(state), None)
        assert time.perf_counter() - began > 0.1
        state.fill_(2)
        assert writer.result(wait=True) == mock.ANY
    assert [load_file(path)["policy"].unique().tolist() for path in list_checkpoints(tmp_path)] == [[0], [1]]
    assert writer.result(wait=True) is None  # told once


def shard(state: Tensor) -> dict[str, Any]:
    zero = torch.zeros(1, 1)
    return {
        "common": {"policy": state, "optimizer": {}},
        "units": {},
        "per_env": {"snapshot": zero, "state": zero, "running_returns": zero},
    }


def test_a_failing_disk_is_a_result_and_leaves_nothing(tmp_path: Path) -> None:
    """Whatever fails: what, where and the space there is are told; the next one is written."""
    writer = CheckpointWriter(World(0, 1, 0, 1, CPU), tmp_path, keep=3, keep_best=True)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finish = "dist_trainer.checkpoint_file.ShardFile.finish"  # what was buffered
    for number, place in enumerate(["os.fsync", "pathlib.Path.mkdir", "pathlib.Path.replace", finish]):
        with mock.patch(place, side_effect=full):
            writer.start(number, shard(torch.zeros(10**6)), None)
            written = writer.result(wait=True)
        assert written and written.failure, place
        assert "No space left on device" in written.failure
        assert f"iteration_{number:08d}.ckpt" in written.failure
        assert "4.0 MB needed" in written.failure and " MB free" in written.failure
        assert not list(tmp_path.glob("checkpoints/*")), place
    writer.start(9, shard(torch.zeros(10)), None)
    written = writer.result(wait=True)
    assert written and written.failure is None
    assert [path.name for path in list_checkpoints(tmp_path)] == ["iteration_00000009.ckpt"]


def test_a_mistake_of_the_program_is_no_full_disk(tmp_path: Path) -> None:
    writer = CheckpointWriter(World(0, 1, 0, 1, CPU), tmp_path, keep=3, keep_best=True)
    writer.start(1, {"lambda": lambda: None}, None)
    with pytest.raises(Exception, match="lambda"):
        writer.result(wait=True)


# --- with several learners


def write_twice(world: World, run_dir: Path, cannot: int | None) -> tuple[Written | None, Written | None]:
    """Learner `cannot` has no disk at the first time."""
    writer = CheckpointWriter(world, run_dir, keep=1, keep_best=False)
    results = []
    for iteration in (1, 2):
        bad = cannot == world.rank and iteration == 1
        error = OSError(errno.EROFS, os.strerror(errno.EROFS))
        with mock.patch("os.fsync", side_effect=error) if bad else mock.patch("os.getpid"):
            writer.start(iteration, shard(torch.full((3,), world.rank)), float(iteration))
            results.append(writer.result(wait=True))
    writer.close()
    return results[0], results[1]


def test_all_learners_shards_or_none(tmp_path: Path) -> None:
    """One that cannot write spoils the checkpoint for all; the first learner says whose fault it was."""
    with learners_of_sizes([3]) as worlds:
        for cannot in (None, 0, 2):
            run_dir = tmp_path / str(cannot)
            first, second = worlds[3].run(write_twice, run_dir, cannot)[0]
            assert first and second and second.failure is None
            if cannot is None:
                assert first.failure is None
            else:
                assert first.failure and first.failure.startswith(f"learner {cannot}: Read-only file system")
            (left,) = list((run_dir / "checkpoints").iterdir())
            assert left.name == "iteration_00000002.ckpt"
            assert len(list(left.iterdir())) == 4


# --- when


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_by_count_and_by_clock() -> None:
    now = Time()
    clock = CheckpointClock(every=10, seconds=60, now=now)
    assert [n for n in range(1, 31) if clock.is_due(n, busy=False)] == [10, 20, 30]
    assert clock.is_due(20, busy=True)  # waits for the one before
    now.seconds = 61
    assert clock.is_due(21, busy=False) and not clock.is_due(21, busy=True)
    clock.started()
    assert not clock.is_due(22, busy=False)
    assert not CheckpointClock(every=None, seconds=60, now=now).is_due(10, busy=False)


def test_a_failure_is_retried_soon_and_ever_less_often() -> None:
    """The next count and the next minute do not matter then: a disk that is full is not tried at every iteration."""
    now = Time()
    clock = CheckpointClock(every=1, seconds=300, now=now)
    attempts = []
    while now.seconds < 400:
        if clock.is_due(1, busy=False):
            clock.started()
            clock.failed()
            attempts.append(now.seconds)
        now.seconds += 1
    assert attempts == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]
    clock.succeeded()
    assert clock.is_due(2, busy=False) and not clock.failing
    assert CheckpointClock(every=None, seconds=5, now=now).failed() <= 5

"""A run that was killed or stopped, and then resumed, ends bit for bit where the uninterrupted one does.

Runs are real command lines; their processes are killed from outside while they train.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor

from dist_trainer.checkpoint import load_checkpoint, load_file
from dist_trainer.checkpoint_file import checkpoint_path, list_checkpoints
from dist_trainer.checkpoint_search import remove_checkpoint
from dist_trainer.cli import load_train_config
from dist_trainer.distributed import World
from dist_trainer.learner import make_learner
from tests.learners import learners_of_sizes

ITERATIONS = 60  # long enough that a run can be killed in its middle
SETTINGS = [
    "env=cartpole",
    "env.params.max_steps=20",
    "device=cpu",
    "torch_threads=1",
    "env_threads=1",
    "total_envs=64",
    "horizon=16",
    "ppo.minibatches=4",
    "policy.hidden_size=32",
    f"total_env_steps={ITERATIONS * 64 * 16}",
    "checkpoint_every=2",
    "keep_checkpoints=1000",
    "histograms_every=7",
]
DEADLINE_S = 120.0


class Run:
    """One `train` command, with one learner or under torchrun, in a session of its own. Use as a context."""

    def __init__(self, learners: int, *settings: str):
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={learners}", "-m"]
        command = [sys.executable, "-m", *(launcher if learners > 1 else []), "dist_trainer", "train", *settings]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.family: set[tuple[int, str]] = set()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout
        self.process.stdout.close()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns as soon as the condition holds; fails if the run ends before, or takes too long."""
        until = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, f"ended too early: {self.process.communicate()[0]}"
            assert time.monotonic() < until, "took too long"
            time.sleep(0.002)
        self.look()

    def look(self) -> None:
        """Remembers the processes that descend from this one."""
        self.family |= descendants(self.process.pid)

    def kill(self) -> None:
        """SIGKILL to every process of the run: none of them can say or write another word."""
        self.look()
        for pid, _ in self.family & living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.assert_all_gone()

    def finish(self) -> str:
        """Waits for the end; what was printed."""
        self.look()
        output = self.process.communicate(timeout=DEADLINE_S)[0]
        self.assert_all_gone()
        return output

    def assert_all_gone(self) -> None:
        until = time.monotonic() + 20
        while (left := self.family & living()) and time.monotonic() < until:
            time.sleep(0.01)
        assert not left, f"processes left behind: {left}"


def processes() -> dict[tuple[int, str], int]:
    """Process id and start time of every process that is not a zombie, with its parent's id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(path.parent.name), fields[19]] = int(fields[1])
    return found


def living() -> set[tuple[int, str]]:
    return set(processes())


def descendants(pid: int) -> set[tuple[int, str]]:
    everyone, found, parents = processes(), set(), {pid}
    while parents:
        children = {key for key, parent in everyone.items() if parent in parents}
        found |= children
        parents = {child for child, _ in children}
    return found | {key for key in everyone if key[0] == pid}


def train(learners: int, *settings: str) -> str:
    """A run to its end; what it printed."""
    with Run(learners, *settings) as run:
        output = run.finish()
        assert run.process.returncode == 0, output
    return output


def has_checkpoint(run_dir: Path, iteration: int) -> Callable[[], bool]:
    return lambda: any(int(path.stem[-8:]) >= iteration for path in list_checkpoints(run_dir))


def newest(run_dir: Path) -> int:
    return int(list_checkpoints(run_dir)[-1].stem[-8:])


def final(run_dir: Path) -> dict[str, Any]:
    return load_file(checkpoint_path(run_dir, ITERATIONS))


def assert_same_bits(ours: Any, theirs: Any, name: str = "checkpoint") -> None:
    assert type(ours) is type(theirs), name
    if isinstance(theirs, Tensor):
        assert ours.dtype == theirs.dtype, name
        assert ours.shape == theirs.shape, name
        bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (ours, theirs)]
        assert torch.equal(*bits), f"{name} differs"
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), name
        for key in theirs:
            assert_same_bits(ours[key], theirs[key], f"{name}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), name
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same_bits(*pair, f"{name}/{index}")
    else:
        assert ours == theirs, name


def state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """All but what a clock says: weights, optimizer, normalizers, environments, counters, episode window."""
    kept = {key: value for key, value in checkpoint.items() if key != "extra"}
    return kept | {"window": checkpoint["extra"]["window"]}


OF_CLOCKS = ("perf/", "learners/", "system/", "charts/seconds")  # tags that no two runs share


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["tensors"]:
        points = [(event.step, event.tensor_proto) for event in accumulator.Tensors(tag)]
        scalars[tag] = [(step, proto.float_val[0] if proto.float_val else 0.0) for step, proto in points]
    return scalars


def written_points(run_dir: Path) -> Counter[tuple[str, int]]:
    """How often each (tag, step) lies in the event files, whatever TensorBoard would make of it."""
    points: Counter[tuple[str, int]] = Counter()
    for path in sorted((run_dir / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            points.update((value.tag, event.step) for value in event.summary.value)
    return points


def assert_same_run(resumed: Path, whole: Path) -> None:
    """Same end state, same curves, no point twice."""
    assert_same_bits(state(final(resumed)), state(final(whole)))
    ours, theirs = curves(resumed), curves(whole)
    assert ours.keys() == theirs.keys()
    steps = [64 * 16 * (iteration + 1) for iteration in range(ITERATIONS)]
    assert [step for step, _ in theirs["losses/policy"]] == steps
    for tag, points in theirs.items():
        assert [step for step, _ in ours[tag]] == [step for step, _ in points], tag
        if not tag.startswith(OF_CLOCKS):
            assert ours[tag] == points, tag
    assert set(written_points(resumed).values()) == {1}
    assert written_points(resumed) == written_points(whole)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """The uninterrupted run of so many learners with this optimizer; made once."""
    made: dict[tuple[int, str], Path] = {}

    def make(learners: int, optimizer: str) -> Path:
        if (learners, optimizer) not in made:
            run_dir = tmp_path_factory.mktemp("whole") / "run"
            train(learners, *SETTINGS, f"optimizer={optimizer}", f"run_dir={run_dir}")
            made[learners, optimizer] = run_dir
        return made[learners, optimizer]

    return make


WholeRuns = Callable[[int, str], Path]


@pytest.mark.parametrize(("learners", "optimizer"), [(1, "muon"), (1, "psgd_kron"), (2, "muon")])
def test_killed_run_resumes_exactly(whole_runs: WholeRuns, tmp_path: Path, learners: int, optimizer: str) -> None:
    """SIGKILL between two checkpoints costs time and changes nothing."""
    run_dir = tmp_path / "run"
    with Run(learners, *SETTINGS, f"optimizer={optimizer}", f"run_dir={run_dir}") as run:
        run.wait_for(has_checkpoint(run_dir, 20))
        run.kill()
    assert 20 <= newest(run_dir) < ITERATIONS
    train(learners, f"resume={run_dir}")
    assert_same_run(run_dir, whole_runs(learners, optimizer))


def test_run_killed_twice_at_random_moments_resumes_exactly(whole_runs: WholeRuns, tmp_path: Path) -> None:
    """Wherever it is: collecting, learning, writing events or a checkpoint. Here one is written every iteration."""
    run_dir = tmp_path / "run"
    settings = [*SETTINGS, "optimizer=muon", f"run_dir={run_dir}", "checkpoint_every=1"]
    moments = [(random.randrange(1, 25), random.uniform(0, 0.05)), (random.randrange(26, 45), random.uniform(0, 0.05))]
    for iteration, seconds in moments:
        with Run(1, *settings) as run:
            run.wait_for(has_checkpoint(run_dir, iteration))
            time.sleep(seconds)
            run.kill()
            assert run.process.returncode == -signal.SIGKILL, f"too late: {moments}"
        settings = [f"resume={run_dir}"]
    train(1, *settings)
    assert_same_run(run_dir, whole_runs(1, "muon"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_ends_cleanly(whole_runs: WholeRuns, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM: the iteration is finished, a checkpoint written, and the run goes on from it as if never
    stopped."""
    run_dir = tmp_path / "run"
    settings = [*SETTINGS, "optimizer=muon", f"run_dir={run_dir}", f"checkpoint_every={10 * ITERATIONS}"]
    with Run(1, *settings) as run:
        run.wait_for(lambda: has_checkpoint(run_dir, 0)() and sum(written_points(run_dir).values()) > 1)
        time.sleep(random.uniform(0, 0.1))
        run.process.send_signal(number)
        output = run.finish()
        assert run.process.returncode == 0, output
    assert "Traceback" not in output
    assert f"resume={run_dir}" in output
    assert 0 < newest(run_dir) < ITERATIONS
    assert load_file(list_checkpoints(run_dir)[-1])["iteration"] == newest(run_dir)
    train(1, f"resume={run_dir}")
    assert_same_run(run_dir, whole_runs(1, "muon"))


def test_interrupt_under_torchrun_saves_and_leaves_no_process(whole_runs: WholeRuns, tmp_path: Path) -> None:
    """Ctrl-C reaches torchrun and, through it, the learners; all of them stop at the same iteration."""
    run_dir = tmp_path / "run"
    settings = [*SETTINGS, "optimizer=muon", f"run_dir={run_dir}", f"checkpoint_every={10 * ITERATIONS}"]
    with Run(2, *settings) as run:
        run.wait_for(lambda: has_checkpoint(run_dir, 0)() and sum(written_points(run_dir).values()) > 1)
        os.killpg(run.process.pid, signal.SIGINT)
        run.finish()
        assert len(run.family) >= 3  # torchrun and two learners, none of which is left
    assert 0 < newest(run_dir) < ITERATIONS
    train(2, f"resume={run_dir}")
    assert_same_run(run_dir, whole_runs(2, "muon"))


# --- at another number of learners


def next_rollout(world: World, run_dir: Path, iteration: int) -> dict[str, Tensor]:
    """What the learners of a resumed run see and do next, rows first, and their environments before and after it."""
    learner = make_learner(load_train_config(run_dir), world)
    load_checkpoint(learner, checkpoint_path(run_dir, iteration))
    before = torch.from_numpy(learner.pool.snapshot()).clone()
    rollout = learner.collector.collect()
    learner.pool.take_statistics()  # as every iteration does; the sums are part of a snapshot
    after = torch.from_numpy(learner.pool.snapshot()).clone()
    seen = {name: getattr(rollout, name).transpose(0, 1).clone() for name in ("observations", "actions", "rewards")}
    return {"before": before, "after": after, **seen}


@pytest.fixture(scope="module")
def two_learners_every_iteration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two learners with a checkpoint of every iteration."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    train(2, *SETTINGS, "optimizer=muon", f"run_dir={run_dir}", "checkpoint_every=1", f"total_env_steps={12 * 64 * 16}")
    return run_dir


def test_resume_with_one_learner_continues_the_run_of_two(two_learners_every_iteration: Path) -> None:
    """The environments of two learners, in one: same snapshots, observations, actions and rewards; and after the
    rollout they are where the uninterrupted run of two had them one iteration later."""
    run_dir, iteration = two_learners_every_iteration, 7
    with learners_of_sizes([1, 2]) as worlds:
        (alone,) = worlds[1].run(next_rollout, run_dir, iteration)
        both = worlds[2].run(next_rollout, run_dir, iteration)
    assert_same_bits({name: torch.cat([part[name] for part in both]) for name in alone}, alone)
    assert_same_bits(alone["before"], load_file(checkpoint_path(run_dir, iteration))["per_env"]["snapshot"])
    later = load_file(checkpoint_path(run_dir, iteration + 1))["per_env"]["snapshot"]
    assert_same_bits(alone["after"], later)
    assert not torch.equal(alone["before"], later)


def test_one_learner_finishes_the_run_of_two(two_learners_every_iteration: Path) -> None:
    """The command line accepts it, and goes on at the right step."""
    run_dir = two_learners_every_iteration
    for iteration in range(8, 13):
        remove_checkpoint(checkpoint_path(run_dir, iteration))
    output = train(1, f"resume={run_dir}")
    assert f"resumes at {7 * 64 * 16:,} of {12 * 64 * 16:,} steps; 1 learner(s)" in output
    assert load_file(checkpoint_path(run_dir, 12))["iteration"] == 12
    assert [step for step, _ in curves(run_dir)["losses/policy"]] == [64 * 16 * (index + 1) for index in range(12)]
    assert set(written_points(run_dir).values()) == {1}

"""A learner that is stopped, killed, corrupted or diverged ends the run soon, and the output says which one it was.

Runs are real command lines under torchrun. The policies and the optimizer below are loaded by name and do the damage.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dist_trainer import heartbeat
from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.heartbeat import Heartbeat
from dist_trainer.policies.recurrent import RecurrentPolicy

ROOT = Path(__file__).parents[1]
HORIZON = 8
ACTS = HORIZON + 1  # calls of act in an iteration: the last observation is valued, too
SETTINGS = [
    "env=cartpole",
    "device=cpu",
    "torch_threads=1",
    "env_threads=1",
    "total_envs=48",
    f"horizon={HORIZON}",
    "ppo.minibatches=2",
    "ppo.update_epochs=1",
    "policy.hidden_size=16",
    "normalize.warmup_steps=0",  # the classes below count calls
]
ENDLESS = "total_env_steps=1e9"
TIMEOUT_S = 1  # of a collective; the smallest that is accepted
VERDICT_S = heartbeat.GIVE_UP_S
START_S = 60.0  # to import torch and to connect, on a busy machine
ITERATION_OF_FAULT = 3
FAULTY_RANK = "FAULTY_RANK"  # environment variable: whom the classes below damage


def is_faulty() -> bool:
    return os.environ.get("RANK", "0") == os.environ.get(FAULTY_RANK)


def flip_a_bit_(tensor: Tensor) -> None:
    tensor.detach().view(torch.int32).flatten()[:1].bitwise_xor_(1 << 12)


class FlippedWeight(RecurrentPolicy):
    """While it acts, one bit of one learner's weights changes."""

    calls = 0

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        if is_faulty() and self.calls == ITERATION_OF_FAULT * ACTS:
            flip_a_bit_(self.value_head.weight)
        return super().act(observations, state)


class FlippedMoment(torch.optim.AdamW):
    """After the last step of an iteration, one bit of one learner's second moments changes."""

    steps = 0

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, **_: Any):
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.steps += 1
        if is_faulty() and self.steps == ITERATION_OF_FAULT * 2:
            flip_a_bit_(self.state[self.param_groups[0]["params"][0]]["exp_avg_sq"])
        return result


class Poisoned(RecurrentPolicy):
    """From some iteration on, one learner's values are not a number whenever it learns."""

    calls = 0

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        return super().act(observations, state)

    def learn(self, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
        parameters, values = super().learn(observations, state, done, max_done)
        if is_faulty() and self.calls > ITERATION_OF_FAULT * ACTS:
            values = values * float("nan")
        return parameters, values


class Hanging(RecurrentPolicy):
    """At some step one learner's policy does not come back."""

    calls = 0

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        if is_faulty() and self.calls == ITERATION_OF_FAULT * ACTS:
            self.hang()
        return super().act(observations, state)

    def hang(self) -> None:
        time.sleep(600)


class HoldingTheInterpreter(Hanging):
    """And lets no other Python thread run."""

    def hang(self) -> None:
        ctypes.PyDLL(None).sleep(600)


class Run:
    """`train` under torchrun; its output goes to a file."""

    def __init__(self, folder: Path, learners: int, settings: list[str], faulty: int | None):
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={learners}", "-m", "dist_trainer"]
        self._log = folder / "output"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *launcher, "train", *settings],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", FAULTY_RANK: str(faulty)},
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], deadline_s: float) -> None:
        until = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < until, f"took too long:\n{self.output}"
            time.sleep(0.02)

    def learner(self, rank: int) -> int:
        """Its process id."""
        [found] = [pid for pid in self.members() if f"\0RANK={rank}\0" in environment(pid)]
        return found

    def members(self) -> list[int]:
        """Processes of this run: torchrun starts each learner in a session of its own."""
        own = self.process.pid
        return [pid for pid, parent in parents().items() if own in (pid, parent)]


def parents() -> dict[int, int]:
    """The parent of every process that is not a zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(path.parent.name)] = int(fields[1])
    return found


def environment(pid: int) -> str:
    with contextlib.suppress(OSError):
        return "\0" + Path(f"/proc/{pid}/environ").read_text(errors="replace")
    return ""


@contextlib.contextmanager
def running(folder: Path, learners: int, *settings: str, faulty: int | None = None) -> Iterator[Run]:
    """In the end none of its processes is left, stopped ones included."""
    run = Run(folder, learners, [*SETTINGS, f"run_dir={folder / 'run'}", *settings], faulty)
    everyone: set[int] = set()
    try:
        run.wait_until(lambda: " starts at " in run.output or run.process.poll() is not None, START_S)
        everyone = set(run.members())
        yield run
    finally:
        for pid in everyone | set(run.members()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.wait(20)


def trained(folder: Path) -> Callable[[], bool]:
    """Whether a few iterations are done."""
    return lambda: len(list_checkpoints(folder / "run")) >= 2


def test_stopped_learner_is_named(tmp_path: Path) -> None:
    """The others wait for it as long as a collective may take, and tell where it was."""
    settings = [ENDLESS, f"collective_timeout_s={TIMEOUT_S}", "checkpoint_every=1"]
    with running(tmp_path, 4, *settings) as run:
        run.wait_until(trained(tmp_path), START_S)
        time.sleep(2 * heartbeat.BEAT_S)  # until all have told that they train
        others, stopped = [run.learner(rank) for rank in (0, 1, 3)], run.learner(2)
        os.kill(stopped, signal.SIGSTOP)
        run.wait_until(lambda: not set(others) & set(parents()), TIMEOUT_S + VERDICT_S + 10)
        verdicts = re.findall(r"learner [013]: a collective failed after .*", run.output)
        assert verdicts, run.output
        for verdict in verdicts:
            who = rf"learner 2 \(process {stopped} on .*\), which is stopped now and was last seen when it"
            assert re.search(rf"failed after \d\.\d s; no sign of life from {who}", verdict)
            assert "learner 0 " not in verdict and "learner 1 " not in verdict and "learner 3 " not in verdict
            assert re.search(r"(learning|collecting|saving|comparing|between).*, in trainer\.train", verdict)


@pytest.mark.parametrize("policy", ["Hanging", "HoldingTheInterpreter"])
def test_hanging_learner_is_named_with_its_stack(tmp_path: Path, policy: str) -> None:
    """The others say what it did; it writes its own stack, even if no Python code can run in it any more."""
    settings = [ENDLESS, "collective_timeout_s=3", f"policy._target_=tests.test_failures.{policy}"]
    with running(tmp_path, 2, *settings, faulty=1) as run:
        stack = r"test_failures\.py.* line \d+ in hang\n.*test_failures\.py.* line \d+ in act\n"
        wanted = [r"CollectiveFailed: learner 0: .*\n", stack]
        run.wait_until(lambda: all(re.search(pattern, run.output) for pattern in wanted), START_S)
        [verdict] = re.findall(r"CollectiveFailed: learner 0: a collective failed after (.*)", run.output)
        if policy == "Hanging":
            assert re.search(r"all are alive: learner 1 \(.*\) was collecting, in trainer\.train > .*acting", verdict)
        else:
            assert re.search(r"no sign of life from learner 1 \(.*\), which is running now and was last seen", verdict)


def test_killed_learner_is_named(tmp_path: Path) -> None:
    with running(tmp_path, 2, ENDLESS, "checkpoint_every=1") as run:
        run.wait_until(trained(tmp_path), START_S)
        os.kill(run.learner(1), signal.SIGKILL)
        run.wait_until(lambda: run.process.poll() is not None, VERDICT_S + 10)
        assert run.process.returncode == 1
        assert re.search(
            r"learner 0: a collective failed .* no sign of life from learner 1 .* is gone now", run.output
        ), run.output
        root_cause = run.output.partition("Root Cause")[2]
        assert re.search(r"rank +: 1 .*\n +exitcode +: -9", root_cause), run.output


@pytest.mark.parametrize(
    ("learners", "settings", "tensor", "ranks"),
    [
        (3, ["policy._target_=tests.test_failures.FlippedWeight"], r"policy\.value_head\.weight", "ranks [1]"),
        (
            2,
            [
                "optimizer=adamw",
                "optimizer._target_=tests.test_failures.FlippedMoment",
                "optimizer.groups.vectors=null",
            ],
            "optimizer/.*exp_avg_sq",
            "): ranks [0, 1]",
        ),
    ],
)
def test_flipped_bit_stops_the_run(tmp_path: Path, learners: int, settings: list[str], tensor: str, ranks: str) -> None:
    with running(tmp_path, learners, ENDLESS, "check_every=1", "checkpoint_every=1", *settings, faulty=1) as run:
        run.wait_until(lambda: run.process.poll() is not None, 60)
        assert run.process.returncode == 1
        [told] = set(re.findall(r"LearnersDiffer: (.*)", run.output)) or {run.output}
        assert re.match(rf"learners hold different values of {tensor} \(1 of \d+ tensors differ\)", told), run.output
        assert told.endswith(ranks)
    # The iteration that went wrong was not saved.
    assert load_file(list_checkpoints(tmp_path / "run")[-1])["iteration"] == ITERATION_OF_FAULT - 1


def test_divergence_stops_the_run(tmp_path: Path) -> None:
    """One learner's loss goes bad: all learners undo their updates, give up together, and the run can go on later."""
    settings = ["policy._target_=tests.test_failures.Poisoned", "max_bad_updates=3", "checkpoint_every=1"]
    with running(tmp_path, 2, ENDLESS, *settings, faulty=1) as run:
        run.wait_until(lambda: run.process.poll() is not None, 60)
        assert run.process.returncode == 1
        assert "TrainingDiverged: 3 updates in a row" in run.output
        assert "CollectiveFailed" not in run.output
    saved = load_file(list_checkpoints(tmp_path / "run")[-1])
    assert saved["iteration"] == ITERATION_OF_FAULT
    assert all(weight.isfinite().all() for weight in saved["policy"].values())
    resumed = subprocess.run(
        [sys.executable, "-m", "dist_trainer", "train", f"resume={tmp_path / 'run'}", "total_env_steps=4000"],
        cwd=ROOT,
        env=os.environ | {"DIST_TRAINER_TRUST": "tests"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert resumed.returncode == 0, resumed.stderr


def test_absurd_learning_rate_stops_the_run(tmp_path: Path) -> None:
    with running(tmp_path, 2, ENDLESS, "optimizer.lr=1e30", "max_bad_updates=2") as run:
        run.wait_until(lambda: run.process.poll() is not None, 60)
        assert run.process.returncode == 1
        assert "TrainingDiverged: 2 updates in a row" in run.output
    assert load_file(list_checkpoints(tmp_path / "run")[-1])["iteration"] == 0


class Board:
    """A store in this process. While `gone`, every call fails."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.gone = False

    def set(self, key: str, value: str, /) -> None:
        if self.gone:
            raise ConnectionError
        self.values[key] = value.encode()

    def check(self, keys: list[str], /) -> bool:
        if self.gone:
            raise ConnectionError
        return all(key in self.values for key in keys)

    def multi_get(self, keys: list[str], /) -> list[bytes]:
        return [self.values[key] for key in keys]


@pytest.fixture
def hearts() -> Iterator[Callable[..., Heartbeat]]:
    made: list[Heartbeat] = []

    def make(*arguments: Any, **settings: Any) -> Heartbeat:
        made.append(Heartbeat(*arguments, **settings))
        return made[-1]

    yield make
    for heart in made:
        heart.stop(None)


def test_others_tell_what_they_do(hearts: Callable[..., Heartbeat]) -> None:
    board = Board()
    first, second = hearts(board, 0, 2), hearts(board, 1, 2)
    second.begin("all_reduce")
    time.sleep(2 * heartbeat.BEAT_S)
    waits = (
        r"all are alive: learner 1 \(process \d+ on .*\) waited for the others while .*, in collective 1 \(all_reduce\)"
    )
    assert re.fullmatch(waits, first.others())
    second.stop("ended with ValueError: no such thing")
    assert re.fullmatch(r"learner 1 \(process \d+ on .*\) ended with ValueError: no such thing", first.others())


def test_learner_that_was_never_seen_is_named(hearts: Callable[..., Heartbeat]) -> None:
    board = Board()
    first, _ = hearts(board, 0, 3), hearts(board, 1, 3)
    assert first.others() == "no sign of life from learner 2, which was never seen"


def test_store_that_is_gone_blocks_nobody(hearts: Callable[..., Heartbeat]) -> None:
    board = Board()
    heart = hearts(board, 0, 2)
    board.gone = True
    began = time.monotonic()
    assert heart.others() == "the store on the first learner's machine does not answer"
    heart.stop("ended")
    assert time.monotonic() - began < heartbeat.GIVE_UP_S / 2


def test_warning_before_the_backend_ends_the_process(
    hearts: Callable[..., Heartbeat], capfd: pytest.CaptureFixture[str]
) -> None:
    board = Board()
    hearts(board, 1, 2).stop(None)
    hearts(board, 0, 2, warn_after_s=3.5)
    time.sleep(6.5)
    [line] = capfd.readouterr().err.splitlines()
    told = r"dist_trainer: learner 0 was .*, for [345] s; no sign of life from learner 1 \(.*\), which"
    assert re.match(told, line), line

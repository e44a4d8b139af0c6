"""A run whose disk is full goes on, says so, and writes a good checkpoint when there is space again.

On a small tmpfs where one can be mounted; and everywhere under a limit on the size of files, which the kernel enforces
at the same place (EFBIG instead of ENOSPC).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from tests.test_resume import written_points

SETTINGS = [
    *(
        "env=cartpole",
        "optimizer=adamw",
        "device=cpu",
        "torch_threads=1",
        "env_threads=1",
        "total_envs=16",
        "horizon=8",
    ),
    *("ppo.minibatches=4", "policy.hidden_size=64", "checkpoint_every=5", "total_env_steps=1e9", "diagnostics_every=0"),
]
DEADLINE_S = 120.0
LARGE = 100_000  # bytes: a checkpoint has more, an event file that was just begun less


class Run:
    """One `train` in a process of its own; what it prints is read as it comes."""

    def __init__(self, *settings: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dist_trainer", "train", *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout
        self.pipe, self.output = self.process.stdout.fileno(), ""
        os.set_blocking(self.pipe, False)

    def wait_for(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.read()
            assert time.monotonic() < until, self.read()
            time.sleep(0.02)

    def read(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self.pipe, 2**16):
                self.output += text.decode()
        return self.output

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """8 MB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def newest(run_dir: Path) -> int:
    return int(list_checkpoints(run_dir)[-1].stem[-8:])


def test_training_goes_on_and_recovers_on_a_small_disk(small_disk: Path) -> None:
    run_dir, filler = small_disk / "run", small_disk / "filler"
    run = Run(*SETTINGS, f"run_dir={run_dir}")
    try:
        run.wait_for(lambda: len(list_checkpoints(run_dir)) >= 2)
        fill(filler)
        run.wait_for(lambda: "TensorBoard events wait" in run.read() and run.read().count("was not written") >= 2)
        warning = re.search(r"WARNING: the checkpoint of iteration \d+ was not written: .*", run.output)
        assert warning and "No space left on device" in warning[0] and "/run" in warning[0], run.output
        assert re.search(r"[\d.]+ MB needed, 0.0 MB free\); the run goes on; next attempt in \d+ s", warning[0])
        before = newest(run_dir)
        load_file(list_checkpoints(run_dir)[-1])
        filler.unlink()
        run.wait_for(lambda: newest(run_dir) > before and "events are written again; 0 points were lost" in run.read())
        run.wait_for(lambda: re.search(r"the checkpoint of iteration \d+ is written", run.read()))
        assert run.end() == 0, run.read()
        assert load_file(list_checkpoints(run_dir)[-1])["iteration"] == newest(run_dir)
        steps = [step for tag, step in written_points(run_dir) if tag == "losses/policy"]
        assert sorted(steps) == [128 * (1 + index) for index in range(newest(run_dir))]  # none lost, none twice
        assert len(list((run_dir / "checkpoints").iterdir())) <= 4

        fill(filler)  # and now until the end
        run = Run(f"resume={run_dir}")
        run.wait_for(lambda: "was not written" in run.read())
        last = newest(run_dir)
        assert run.end() == 1
        assert re.search(r"CheckpointNotWritten: the checkpoint of iteration \d+ was not written: No space", run.read())
        assert newest(run_dir) == last
    finally:
        run.process.kill()
        run.process.wait()


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(b"x" * size):
                    continue
            except OSError:
                continue


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """The limit comes in the middle of a checkpoint; it is lifted, and the next one is good."""
    run_dir = tmp_path / "run"
    run = Run(*SETTINGS, f"run_dir={run_dir}")
    try:
        run.wait_for(lambda: len(list_checkpoints(run_dir)) >= 2)
        before = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (LARGE, resource.RLIM_INFINITY))
        run.wait_for(lambda: run.read().count("was not written") >= 2)
        assert re.search(r"was not written: File too large \(.*MB needed, .*MB free\); the run goes on", run.output)
        kept = newest(run_dir)
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, before)
        run.wait_for(lambda: newest(run_dir) > kept)
        assert run.end() == 0, run.read()
        assert load_file(list_checkpoints(run_dir)[-1])["iteration"] == newest(run_dir)
    finally:
        run.process.kill()
        run.process.wait()

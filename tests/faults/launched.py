"""A training under torchrun that others kill parts of: its processes, found by a mark that all of them inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
MARK = "DIST_TRAINER_FAULTS_MARK"  # environment variable
MOST_RESTARTS = 10_000
END_S = 60.0  # for processes to be gone


class Launched:
    """`torchrun ... -m dist_trainer train SETTINGS`, its output appended to a file. Use as a context."""

    def __init__(self, log: Path, learners: int, settings: list[str]):
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={learners}"]
        launcher += [f"--max-restarts={MOST_RESTARTS}", "--monitor-interval=0.05"]
        self.mark, self.log = uuid.uuid4().hex, log
        with log.open("a") as output:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", *launcher, "-m", "dist_trainer", "train", *settings],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.agent.pid, *self.processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.agent.wait(END_S)
        self.wait_until_gone()

    def processes(self) -> list[int]:
        """All that are left of this launch and have not ended, whoever their parent is now."""
        mark = f"{MARK}={self.mark}".encode()
        return [pid for pid in living() if mark in environment(pid)]

    def learner(self, rank: int) -> int | None:
        """Its process id; None while torchrun starts it."""
        mark = f"{MARK}={self.mark}".encode()
        wanted = {mark, f"RANK={rank}".encode()}
        return next((pid for pid in living() if wanted <= environment(pid)), None)

    def wait_until_gone(self) -> None:
        """Raises AssertionError if a process is left."""
        until = time.monotonic() + END_S
        while left := self.processes():
            assert time.monotonic() < until, f"processes left behind: {left}"
            time.sleep(0.02)


def living() -> list[int]:
    """Processes that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


def environment(pid: int) -> set[bytes]:
    """What it was started with, each as NAME=VALUE."""
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    return set()


def wait_for(condition: Callable[[], bool], deadline_s: float, what: str) -> None:
    """Raises AssertionError."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"took too long: {what}"
        time.sleep(0.005)

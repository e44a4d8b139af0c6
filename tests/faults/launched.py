"""A training under torchrun that others kill parts of: its processes, found by a mark that all of them inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
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
    """`torchrun ... -m dist_trainer train SETTINGS`, its output appended to a file. Use as a context.

    Args:
        nodes: so many torchruns meet, as those of several machines do, and share the learners out.
    """

    def __init__(self, log: Path, learners: int, settings: list[str], nodes: int = 1):
        self.mark, self.log = uuid.uuid4().hex, log
        launcher = ["torch.distributed.run", f"--nproc-per-node={learners // nodes}"]
        launcher += [f"--max-restarts={MOST_RESTARTS}", "--monitor-interval=0.05"]
        launcher += ["--standalone"] if nodes == 1 else [f"--nnodes={nodes}", "--rdzv-backend=c10d"]
        launcher += [] if nodes == 1 else [f"--rdzv-endpoint=127.0.0.1:{free_port()}", f"--rdzv-id={self.mark}"]
        command = [sys.executable, "-m", *launcher, "-m", "dist_trainer", "train", *settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark}
        with log.open("a") as output:
            self.agents = [
                subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True, env=environment
                )
                for _ in range(nodes)
            ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_torchrun()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until_gone()

    @property
    def has_ended(self) -> bool:
        return all(agent.poll() is not None for agent in self.agents)

    def kill_torchrun(self) -> None:
        for agent in self.agents:
            agent.kill()
        for agent in self.agents:
            agent.wait(END_S)

    def wait(self, deadline_s: float) -> None:
        """Raises AssertionError if it does not end well."""
        wait_for(lambda: self.has_ended, deadline_s, f"the run\n{self.log.read_text()[-5000:]}")
        assert not any(agent.returncode for agent in self.agents), self.log.read_text()[-5000:]

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

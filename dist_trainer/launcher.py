"""Which torchrun started this learner: known by its process, which stays when torchrun starts the learners again.

TORCHELASTIC_RUN_ID is no identity by itself ("none" where nobody chose one, the same tomorrow where somebody did), and
TORCHELASTIC_RESTART_COUNT differs between the agents of several nodes.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

RUN_ID = "TORCHELASTIC_RUN_ID"


def process_name(pid: int) -> str:
    """A name that no other process has had or will have: host, its boot and process namespace, process id, start time.

    Raises OSError if there is no such process.
    """
    return f"{_this_machine()} {pid} {_fields(pid)[19]}"


def process_state(name: str) -> str | None:
    """By a process's name: "running", "stopped", ...; "gone" if it has ended; None if it is not of this machine."""
    machine, pid, start = name.rsplit(" ", 2)
    if machine != _this_machine():
        return None
    try:
        fields = _fields(int(pid))
    except OSError:
        return "gone"
    states = {"Z": "gone", "X": "gone", "T": "stopped", "t": "stopped by a debugger", "D": "waiting for a device"}
    return states.get(fields[0], "running") if fields[19] == start else "gone"


@cache
def _this_machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"


def launched_by_torchrun() -> bool:
    return RUN_ID in os.environ


def launcher_name() -> str | None:
    """Of the torchrun that started this process; None if none did.

    It is the nearest ancestor that has not got this process's TORCHELASTIC_RUN_ID: scripts may lie between.
    """
    run_id = os.environ.get(RUN_ID)
    if run_id is None:
        return None
    with suppress(OSError):
        pid = os.getppid()
        while f"{RUN_ID}={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            pid = int(_fields(pid)[1])
        return process_name(pid)
    return None


def torchrun_has_ended() -> bool:
    """Of a process that torchrun started. Its parent is then whoever takes in orphans: neither a script of that launch
    nor, as torchrun is, a Python program."""
    parent = Path(f"/proc/{os.getppid()}")
    try:
        is_script = f"{RUN_ID}={os.environ[RUN_ID]}".encode() in (parent / "environ").read_bytes().split(b"\0")
        return not is_script and "python" not in (parent / "exe").readlink().name
    except OSError:  # it has just ended, or belongs to another user, as init does
        return True


def _fields(pid: int) -> list[str]:
    """Those of /proc/PID/stat (see proc(5)) from the third on: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

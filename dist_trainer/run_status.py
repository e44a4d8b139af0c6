"""How a run stands and how it ended: the file `status` of its folder, which launchers read to decide if it goes on.

It is the only truth about that: torchrun exits with 1 after any signal, even if all learners have saved and ended well.
Lines of NAME=VALUE, for shells:

    state=running|stopped|complete|failed     running although nobody runs: the learners were killed
    iteration=120                             of the checkpoint that the run began with, or that it has saved last
    job=4711  restart=0                       whose learners these were: DIST_TRAINER_JOB, DIST_TRAINER_RESTART
    error=...                                 of a failed run, in one line
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

from dist_trainer.checkpoint_file import write_atomically

STATUS_FILE = "status"
JOB, RESTART = "DIST_TRAINER_JOB", "DIST_TRAINER_RESTART"  # environment variables, set by launchers
LONGEST_ERROR = 500  # characters


@dataclass(frozen=True)
class RunStatus:
    state: str
    iteration: int
    job: str
    restart: str
    error: str = ""


class StatusFile:
    """Use as a context around a run, on every learner; only the first one writes."""

    def __init__(self, run_dir: Path, writes: bool):
        self._path, self._writes = run_dir / STATUS_FILE, writes
        self._iteration, self._complete = 0, False

    def __enter__(self) -> StatusFile:
        return self

    def at(self, iteration: int, complete: bool = False) -> None:
        """The checkpoint of this iteration is there; `complete`: it is the run's last."""
        self._iteration, self._complete = iteration, complete
        self._write("running")

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        if error:
            self._write("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_ERROR])
        else:
            self._write("complete" if self._complete else "stopped")

    def _write(self, state: str, error: str = "") -> None:
        if not self._writes:
            return
        job, restart = os.environ.get(JOB, ""), os.environ.get(RESTART, "")
        status = RunStatus(state, self._iteration, job, restart, error)
        text = "".join(f"{name}={value}\n" for name, value in asdict(status).items())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, text.encode())
        except OSError as problem:  # a full disk must not end a run; launchers take an old status for a crash
            print(f"dist_trainer: {self._path} not written: {problem}", file=sys.stderr, flush=True)


def read_status(run_dir: Path) -> RunStatus | None:
    """None if there is none, or nothing that could be one."""
    try:
        values = dict(line.split("=", 1) for line in (run_dir / STATUS_FILE).read_text().splitlines())
        known = {field.name: values[field.name] for field in fields(RunStatus)}
        return RunStatus(known["state"], int(known["iteration"]), known["job"], known["restart"], known["error"])
    except (OSError, ValueError, KeyError):
        return None

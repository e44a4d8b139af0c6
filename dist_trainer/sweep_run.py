"""One training of a trial: the ordinary command as a process of its own, followed by what its run folder shows."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError

from dist_trainer.errors import ConfigError
from dist_trainer.process import end_with_parent
from dist_trainer.run_curves import RunCurve, read_curve
from dist_trainer.run_folder import TENSORBOARD_FOLDER
from dist_trainer.run_status import RunStatus, read_status
from dist_trainer.stop import STOP_FILE, ask_to_stop

MISTAKE = 2  # exit status of a command that cannot work
DIVERGED = "TrainingDiverged"  # as the status file names it
TOO_LONG = 300  # characters of a reason
LAST_BYTES = 8192  # of a log that are searched for it
NOT_INHERITED = ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Ended:
    """`how`: complete, stopped, hopeless (the settings' own fault: another attempt would end the same), crashed."""

    how: str
    reason: str = ""


class Training:
    """Its process, in a session of its own, so that a terminal's Ctrl-C does not reach it. It ends with this one."""

    def __init__(self, folder: Path, settings: Sequence[str], learners: int, environment: Mapping[str, str]):
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._stop_file = folder.with_name(f"{folder.name}.stop")
        self._stop_file.unlink(missing_ok=True)
        self._log = folder.with_name(f"{folder.name}.log")
        command = [sys.executable, "-m"]
        if learners > 1:
            command += ["dist_trainer.agent", f"--learners={learners}", "--max-restarts=0", "--", "train"]
        else:
            command += ["dist_trainer", "train"]
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *settings, f"run_dir={folder}", "resume=auto"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, **environment, STOP_FILE: str(self._stop_file)},
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self, patience_s: float) -> None:
        """With a checkpoint, if that comes within the patience."""
        ask_to_stop(self._stop_file)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._stop_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Learners that an agent has started end with it."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> Ended:
        """Of a process that has."""
        code, status = self.process.wait(), read_status(self.folder)
        return outcome(code, status, self._last_words())

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LAST_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("dist_trainer:") and "traceback is above" not in line]
        return (said or [line for line in lines if line.strip()] or [""])[-1].removeprefix("dist_trainer: ")[:TOO_LONG]


def outcome(code: int, status: RunStatus | None, last_words: str) -> Ended:
    """What an exit status and the status file say together."""
    state = status.state if status else ""
    if code == MISTAKE:  # in the folder: somebody else's training, or the disk, and no fault of the settings
        return Ended("crashed" if last_words.startswith("run_dir=") else "hopeless", last_words)
    if state == "complete":
        return Ended("complete")
    if state == "stopped":
        return Ended("stopped")
    if status and state == "failed":
        return Ended("hopeless" if status.error.startswith(DIVERGED) else "crashed", status.error[:TOO_LONG])
    how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return Ended("crashed", f"{how}; {last_words}"[:TOO_LONG])


class Follower:
    """Reads the curve of a run that is under way, rarely enough that reading costs little."""

    SHARE = 0.05  # of the time, at most
    LEAST_S = 1.0

    def __init__(self, folder: Path, metric: str):
        self._folder, self._metric = folder, metric
        self._next, self._last_new = 0.0, time.monotonic()
        self._size = -1
        self.curve: RunCurve | None = None

    def look(self) -> bool:
        """Whether the curve was read."""
        began = time.monotonic()
        if began < self._next:
            return False
        self.curve = read_if_there(self._folder, self._metric)
        now = time.monotonic()
        self._next = now + max(self.LEAST_S, (now - began) / self.SHARE)
        size = sum(path.stat().st_size for path in (self._folder / TENSORBOARD_FOLDER).glob("*"))
        if size != self._size:
            self._size, self._last_new = size, now
        return True

    @property
    def quiet_s(self) -> float:
        """Since there was something new."""
        return time.monotonic() - self._last_new


def read_if_there(folder: Path, metric: str) -> RunCurve | None:
    """None: it has no point yet."""
    if not (folder / TENSORBOARD_FOLDER).is_dir():
        return None
    try:
        return read_curve(folder, {}, metric)
    except (ConfigError, KeyError, OSError, DirectoryDeletedError):  # or it is being begun again just now
        return None


def mean_from(curve: RunCurve, begin: float) -> float:
    """Of the points after step `begin`; NaN if there are none."""
    values = curve.values[curve.steps > begin]
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan

"""Asked to stop: by a signal (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP: its terminal was closed), or by a file that appears.

Each learner looks for itself; the learners add up at the end of every iteration who knows of it, so that all stop at
the same one. The file is for launchers: a cluster tells a job's processes, not the learners of every node.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path
from types import FrameType

STOP_FILE = "DIST_TRAINER_STOP_FILE"  # environment variable: the file that asks all learners to stop once it is there
LOOK_EVERY_S = 0.5
FORCE_AFTER = 3  # interrupts: torchrun passes Ctrl-C on to learners that the terminal has told already


def ask_to_stop(file: Path) -> None:
    """For the launcher of the learners that look for this file. Raises OSError if it cannot be made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


class StopRequest:
    """All learners stop at the same iteration, whichever of them the request has reached."""

    def __init__(self, speaks: bool) -> None:
        self.interrupts = 0
        self.speaks = speaks
        self._asked = False
        file = os.environ.get(STOP_FILE)
        self._file = Path(file) if file else None
        self._next_look = 0.0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # that is nohup's
            signal.signal(signal.SIGHUP, self._handle)

    @property
    def requested(self) -> bool:
        """Whether this learner knows of a request; once it does, for good."""
        now = time.monotonic()
        if self._file and not self._asked and now >= self._next_look:
            self._next_look = now + LOOK_EVERY_S
            if self._file.exists():
                self._note()
        return self._asked

    def _note(self) -> None:
        if self.speaks and not self._asked:
            # Not print: the signal may have come in the middle of one.
            own_line = b"\n" if os.isatty(2) else b""  # after the terminal's ^C
            os.write(2, own_line + b"dist_trainer: stopping after this iteration, with a checkpoint\n")
        self._asked = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _forget_terminal()
        self._note()
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= FORCE_AFTER:
            raise KeyboardInterrupt


def _forget_terminal() -> None:
    """What is written to one that is gone would fail, and end the run without its checkpoint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode):  # isatty says of one that is gone that it is none
            os.dup2(nowhere, output)
    os.close(nowhere)

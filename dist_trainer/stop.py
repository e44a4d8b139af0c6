"""Asked to stop: Ctrl-C or SIGTERM set a flag that the learners add up at the end of every iteration."""

from __future__ import annotations

import os
import signal
from types import FrameType

FORCE_AFTER = 3  # interrupts: torchrun passes Ctrl-C on to learners that the terminal has told already


class StopRequest:
    """True once a signal has come. All learners stop at the same iteration, however the signal reached them."""

    def __init__(self, speaks: bool) -> None:
        self.interrupts = 0
        self.requested = False
        self.speaks = speaks
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.speaks and not self.requested:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\ndist_trainer: stopping after this iteration, with a checkpoint\n")
        self.requested = True
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= FORCE_AFTER:
            raise KeyboardInterrupt

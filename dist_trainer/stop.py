"""Asked to stop: Ctrl-C or SIGTERM set a flag that the learners add up at the end of every iteration."""

from __future__ import annotations

import signal
from types import FrameType

FORCE_AFTER = 3  # interrupts: torchrun passes Ctrl-C on to learners that the terminal has told already


class StopRequest:
    """True once a signal has come. All learners stop at the same iteration, however the signal reached them."""

    def __init__(self) -> None:
        self.interrupts = 0
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= FORCE_AFTER:
            raise KeyboardInterrupt

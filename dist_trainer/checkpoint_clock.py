"""When the next checkpoint is due: by count, by the clock, and soon again after one that could not be written."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_RETRY_S = 1.0  # after a failure; twice as long after each more
LAST_RETRY_S = 60.0


class CheckpointClock:
    """The first learner asks it; the others learn the answer with the sums of the iteration."""

    def __init__(self, every: int | None, seconds: float, now: Callable[[], float] = time.monotonic):
        """`every`: iterations, `seconds`: between checkpoints."""
        self._every, self._seconds, self._now = every, seconds, now
        self._last = now()
        self._patience_s = 0.0
        self._retry_at: float | None = None

    def is_due(self, iteration: int, busy: bool) -> bool:
        """`busy`: one is still being written. By count another is due all the same, and waits for it: which ones there
        are, is what was asked for. By the clock none is due: two would follow each other at once."""
        if self._retry_at is not None:
            return not busy and self._now() >= self._retry_at
        if self._every and iteration % self._every == 0:
            return True
        return not busy and self._now() - self._last >= self._seconds

    @property
    def failing(self) -> bool:
        """The latest could not be written."""
        return self._retry_at is not None

    def started(self) -> None:
        self._last = self._now()

    def succeeded(self) -> None:
        self._retry_at, self._patience_s = None, 0.0

    def failed(self) -> float:
        """Seconds until the next attempt."""
        longest = min(LAST_RETRY_S, self._seconds)
        self._patience_s = min(longest, 2 * self._patience_s or FIRST_RETRY_S)
        self._retry_at = self._now() + self._patience_s
        return self._patience_s

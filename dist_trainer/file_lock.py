"""One program at a time: what several programs, of any machine, read and write in a folder that they share."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other program is in such a block with this file, which stays. The lock ends with its process.

    Raises OSError if the file cannot be written.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

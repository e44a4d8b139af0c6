"""The study's journal: a file that workers of any nodes append to, and the lock under which they decide who does what.

Optuna's journal storage needs no server, and no lock that a file system could ignore: whoever appends creates a file
that must not be there yet (O_EXCL, which NFS has since version 3).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

JOURNAL_FILE = "journal.log"
BLOCK = 4096  # bytes
GRACE_S = 30  # after which a lock that a killed process has left is taken from it


class Journal(JournalFileBackend):
    """Optuna's, that goes on where a writer was killed in the middle of a line.

    Optuna would append to the rest of that line, and never be able to read the file again.
    """

    def __init__(self, path: Path):
        self._path, self._own_lock = path, JournalFileOpenLock(str(path), GRACE_S)
        super().__init__(str(path), self._own_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with held(self._own_lock), self._path.open("r+b") as file:
            file.truncate(_whole_lines(file))
            file.seek(0, os.SEEK_END)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(file: BinaryIO) -> int:
    """The size of a file up to its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - BLOCK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


@contextmanager
def held(lock: JournalFileOpenLock) -> Iterator[None]:
    lock.acquire()
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it was taken from this process, which had been stopped for long
            lock.release()


def open_storage(folder: Path) -> optuna.storages.JournalStorage:
    """The storage of a study folder, which must exist; made if it is not there yet."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(Journal(folder / JOURNAL_FILE))


def decisions_lock(folder: Path) -> AbstractContextManager[None]:
    """Held for milliseconds, while a worker takes or gives back a trial; never while it samples or trains."""
    return held(JournalFileOpenLock(str(folder / "decisions"), GRACE_S))

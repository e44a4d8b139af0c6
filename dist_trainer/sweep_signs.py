"""Signs of life of a study's workers: each counts in a file of its own, and the others look if it still does.

Clocks of two machines are never compared: who looks measures with its own how long the count stands still.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from dist_trainer.launcher import process_name, process_state

FOLDER = "workers"
EVERY_S = 2.0


def worker_name() -> str:
    """Of this process; no other has had or will have it."""
    return process_name(os.getpid())


def _file(folder: Path, name: str) -> Path:
    host, *_, pid, start = name.split(" ")
    return folder / FOLDER / f"{host}-{pid}-{start}"


class SignOfLife:
    """A thread that counts, from the first trial on until the process ends."""

    def __init__(self, folder: Path):
        self.name = worker_name()
        self._file = _file(folder, self.name)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._ended = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _write(self, count: int) -> None:
        self._file.write_text(f"{count}\n")

    def _count(self) -> None:
        count = 0
        while not self._ended.wait(EVERY_S):
            count += 1
            try:
                self._write(count)
            except OSError as error:  # a full disk: the next one may succeed
                print(f"sweep: no sign of life written: {error}", flush=True)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._file.unlink(missing_ok=True)


class Watch:
    """Of the others' signs of life."""

    def __init__(self, folder: Path, patience_s: float):
        self._folder, self._patience_s = folder, patience_s
        self._seen: dict[str, tuple[str, float]] = {}  # what a worker's file held, since when

    def is_gone(self, name: str) -> bool:
        """Whether a worker has ended without giving back its trial. Of another machine that takes the patience."""
        state = process_state(name)
        if state is not None:
            return state == "gone"
        try:
            content = _file(self._folder, name).read_text()
        except OSError:
            content = ""
        now = time.monotonic()
        before, since = self._seen.get(name, ("", now))
        if name not in self._seen or content != before:
            self._seen[name] = (content, now)
            return False
        return now - since > self._patience_s

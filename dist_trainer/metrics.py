"""What a run reports: episode scores over a window, and TensorBoard events that survive kill and resume.

Tags are explained in CONTRIBUTING.md. The x-axis is env_steps of all learners.
"""

from __future__ import annotations

import io
import math
import socket
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar
from torch.utils.tensorboard.summary import text as text_summary

FLUSH_EVERY_S = 1.0
MOST_WAITING = 2**23  # bytes of events that a full disk has refused; more are lost


class EpisodeWindow:
    """Means over the most recent iterations in which at least `episodes` episodes ended, over all learners."""

    def __init__(self, episodes: int = 100):
        self.episodes = episodes
        self.sums: deque[list[float]] = deque()  # [episodes, sum of returns, sum of lengths, sums of metrics] each

    def add(self, sums: list[float]) -> None:
        if sums[0] > 0:
            self.sums.append(sums)
        while len(self.sums) > 1 and sum(entry[0] for entry in list(self.sums)[1:]) >= self.episodes:
            self.sums.popleft()

    def means(self, names: tuple[str, ...]) -> dict[str, float]:
        """By name; empty as long as no episode has ended."""
        if not self.sums:
            return {}
        totals = [sum(column) for column in zip(*self.sums, strict=True)]
        return {name: total / totals[0] for name, total in zip(names, totals[1:], strict=True)}


class EventWriter:
    """TensorBoard scalars in a folder.

    A checkpoint remembers how long each event file was. After a resume the files are cut to that length, so that no
    point is there twice however the run ended before.

    Nothing here raises once the writer is made: what a full disk refuses is kept (MOST_WAITING bytes of it) and tried
    again, and `trouble` says so. torch's SummaryWriter would be of no use any more after its first such error.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int] | None):
        """`sizes`: what flush() returned when the checkpoint that is resumed was written; None for a new run."""
        for path in [] if sizes is None else list(folder.glob("events.*")):
            if sizes and path.name in sizes:
                with path.open("r+b") as file:
                    file.truncate(min(sizes[path.name], path.stat().st_size))
            else:
                path.unlink()
        self.folder = folder
        self.trouble: str | None = None  # why the latest attempt to write failed
        self.lost = 0  # points, since there was no trouble
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}"
        self._written = 0  # bytes of the file that are whole events
        self._waiting = io.BytesIO()
        self._flushed_at = -math.inf
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, values: Mapping[str, float], env_steps: int) -> None:
        for tag, value in values.items():
            self._add(Event(wall_time=time.time(), step=env_steps, summary=scalar(tag, value)))
        if time.monotonic() - self._flushed_at > FLUSH_EVERY_S:
            self._flush()

    def add(self, summary: Summary, env_steps: int) -> None:
        """What is no scalar."""
        self._add(Event(wall_time=time.time(), step=env_steps, summary=summary))

    def text(self, tag: str, text: str) -> None:
        self._add(Event(wall_time=time.time(), step=0, summary=text_summary(tag, text)))

    def flush(self) -> dict[str, int]:
        """Writes out everything; returns the length of every event file."""
        self._flush()
        return {path.name: path.stat().st_size for path in self.folder.glob("events.*")}

    def close(self) -> None:
        self._flush()

    def _add(self, event: Event) -> None:
        if self._waiting.tell() < MOST_WAITING:
            RecordWriter(self._waiting).write(event.SerializeToString())
        else:
            self.lost += 1

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        try:
            with self._path.open("ab") as file:
                file.truncate(self._written)  # what of an event got there before the disk was full
                file.write(self._waiting.getvalue())
        except OSError as error:
            self.trouble = f"{error.strerror} ({self._path})"
            return
        self._written += self._waiting.tell()
        self._waiting = io.BytesIO()
        self.trouble = None

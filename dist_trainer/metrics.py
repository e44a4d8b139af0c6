"""What a run reports: episode scores over a window, and TensorBoard events that survive kill and resume.

Tags: env/ (episodes), losses/, charts/ (the run), perf/ (speed). The x-axis is env_steps of all learners.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


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
        self.writer = SummaryWriter(str(folder))

    def write(self, values: Mapping[str, float], env_steps: int) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, env_steps)

    def text(self, tag: str, text: str) -> None:
        self.writer.add_text(tag, text, 0)

    def flush(self) -> dict[str, int]:
        """Writes out everything; returns the length of every event file."""
        self.writer.flush()
        return {path.name: path.stat().st_size for path in self.folder.glob("events.*")}

    def close(self) -> None:
        self.writer.close()

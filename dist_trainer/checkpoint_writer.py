"""Writes checkpoints while training goes on: every learner its shard, and the first one, when all are there, the
manifest.

The loop pays for a copy of what is to be saved. A thread of low priority does the rest; what it has to say to the other
learners' threads goes through the store by which the learners have met, never through a collective.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from dist_trainer.checkpoint_file import (
    MANIFEST,
    Manifest,
    Shard,
    checkpoint_path,
    write_manifest,
    write_shard,
)
from dist_trainer.checkpoint_search import prune_checkpoints
from dist_trainer.distributed import World
from dist_trainer.host_copies import HostCopies

NICE = 10  # a tenth of the weight of training's threads, which go first; 19 would starve on a machine that others use
POLL_S = 0.02  # between looks for the other learners' shards
VISIBLE_S = 10.0  # in which a file of another machine appears on a shared file system
LEFT_BEHIND_S = 5.0  # for what is being written when the run fails


@dataclass(frozen=True)
class Written:
    """What became of a checkpoint; known to the first learner, to the others of their own shards."""

    iteration: int
    bytes: int  # of all shards
    seconds: float  # from the copy to the end
    failure: str | None  # what, where, how much space there is


@dataclass(frozen=True)
class Job:
    number: int  # of this process's checkpoints; the same on all learners
    iteration: int
    score: float | None
    content: Any
    bytes: int
    hurry: bool  # somebody waits


@dataclass(frozen=True)
class Answer:
    """Of a learner to the first."""

    shard: Shard | None
    failure: str | None  # why there is none


class CheckpointWriter:
    """One checkpoint at a time. All learners must call `start` for the same ones."""

    def __init__(self, world: World, run_dir: Path, keep: int, keep_best: bool):
        """`keep`: so many of the newest; `keep_best`: and that of the highest score."""
        self._world, self._run_dir, self._keep, self._keep_best = world, run_dir, keep, keep_best
        self._attempt = world.broadcast(uuid.uuid4().hex[:8])  # names of this attempt, as no other has them
        self._board = world.board() if world.size > 1 else None
        self._copies = HostCopies(world.device)
        self._started = 0
        self._thread: threading.Thread | None = None
        self._written: Written | None = None
        self._error: Exception | None = None  # a mistake of the program, not of the disk
        self._closing = threading.Event()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, iteration: int, content: Any, score: float | None, hurry: bool = False) -> None:
        """Returns when `content` is copied, and may change. Waits for the one before. `hurry`: training will not go on
        meanwhile."""
        self._join()
        job = Job(self._started, iteration, score, self._copies.take(content), self._copies.bytes, hurry)
        self._started += 1
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint", daemon=True)
        self._thread.start()

    def result(self, wait: bool) -> Written | None:
        """Of the latest one, once; None if it is still being written, or was asked for before.

        Raises whatever is no OSError.
        """
        if wait:
            self._join()
        if self.busy or self._thread is None:
            return None
        self._join()
        self._thread = None
        return self._written

    def close(self) -> None:
        """In the course of an exception too: what is being written gets a few seconds to be finished."""
        if self._thread:
            self._thread.join(LEFT_BEHIND_S)
            self._closing.set()
            self._thread.join(10 * POLL_S)

    def _join(self) -> None:
        if self._thread and self._thread.native_id and self._thread.is_alive():
            with contextlib.suppress(OSError):  # not everybody may undo what was nice
                os.setpriority(os.PRIO_PROCESS, self._thread.native_id, os.getpriority(os.PRIO_PROCESS, 0))
        if self._thread:
            self._thread.join()
        if self._error:
            raise self._error

    # --- in the background

    def _run(self, job: Job) -> None:
        if not job.hurry:
            os.nice(NICE)  # Linux: of this thread alone
        began = time.perf_counter()
        size, failure = job.bytes, None
        try:
            shard, failure = self._write_shard(job)
            if self._board:
                self._board.post(self._place(job, self._world.rank), json.dumps(asdict(Answer(shard, failure))))
            if self._world.is_first:
                size, failure = self._complete(job, shard, failure)
        except Exception as error:
            self._error = error
        self._written = Written(job.iteration, size, time.perf_counter() - began, failure)

    def _place(self, job: Job, rank: int) -> str:
        return f"checkpoint/{self._attempt}/{job.number}/{rank}"

    def _write_shard(self, job: Job) -> tuple[Shard | None, str | None]:
        """The shard, or why there is none."""
        world, folder = self._world, checkpoint_path(self._run_dir, job.iteration)
        path = folder / f"{world.rank}_of_{world.size}.{self._attempt}{job.number:x}"
        self._copies.wait()
        try:
            return write_shard(path, lambda file: torch.save(job.content, cast(IO[bytes], file))), None
        except OSError as error:
            return None, self._explain(error, job)

    def _complete(self, job: Job, own: Shard | None, failure: str | None) -> tuple[int, str | None]:
        """On the first learner: the manifest, if all shards are there. Bytes, and why there is no checkpoint."""
        folder = checkpoint_path(self._run_dir, job.iteration)
        answers = self._answers(job) if self._board else [Answer(own, failure)]
        if answers is None:
            return 0, "the run ended before all learners had written their shards"
        who = (f"learner {rank}: " if len(answers) > 1 else "" for rank in range(len(answers)))
        failures = [name + one.failure for name, one in zip(who, answers, strict=True) if one.failure]
        shards = [one.shard for one in answers if one.shard]
        size = sum(shard.size for shard in shards)
        if not failures:
            try:
                self._check_visible(folder, shards)
                write_manifest(folder, Manifest(job.iteration, job.score, shards))
            except OSError as error:
                failures = [self._explain(error, job)]
        if failures:
            if not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)  # on a full disk it is in the way of the next one
            more = f" (and {len(failures) - 1} other learners)" if len(failures) > 1 else ""
            return size, failures[0] + more
        with contextlib.suppress(OSError):  # what is too much lies in the way of the next one, which will say so
            prune_checkpoints(self._run_dir, self._keep, self._keep_best)
        return size, None

    def _answers(self, job: Job) -> list[Answer] | None:
        """Of all learners; None if some are missing when the run ends."""
        assert self._board
        names = [self._place(job, rank) for rank in range(self._world.size)]
        while (texts := self._board.read(names)) is None:
            if self._closing.wait(POLL_S):
                return None
        self._board.remove(names)
        answers = [json.loads(text) for text in texts]
        return [Answer(Shard(**one["shard"]) if one["shard"] else None, one["failure"]) for one in answers]

    def _check_visible(self, folder: Path, shards: list[Shard]) -> None:
        """Raises FileNotFoundError if this machine does not see another's files, for a while."""
        until = time.monotonic() + VISIBLE_S
        for shard in shards:
            while not (folder / shard.name).exists():
                if time.monotonic() > until or self._closing.wait(POLL_S):
                    what = "not seen by the first learner: the run folder must be on a file system that all share"
                    raise FileNotFoundError(None, what, str(folder / shard.name))

    def _explain(self, error: OSError, job: Job) -> str:
        """What, where, and how much space there is."""
        where = checkpoint_path(self._run_dir, job.iteration)
        text = f"{error.strerror or error} ({error.filename or where}; {_size(job.bytes)} needed"
        with contextlib.suppress(OSError):
            text += f", {_size(shutil.disk_usage(self._run_dir).free)} free"
        return text + ")"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

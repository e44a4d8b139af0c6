"""A run's checkpoints as the training loop sees them: when one is due, that it is written, and what became of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from dist_trainer.checkpoint import shard_of
from dist_trainer.checkpoint_clock import CheckpointClock
from dist_trainer.checkpoint_writer import CheckpointWriter
from dist_trainer.learner import Learner
from dist_trainer.report import Report


class CheckpointNotWritten(RuntimeError):
    """The first checkpoint of a run, or the last."""


class Checkpoints:
    """Use as a context: what is being written in the end is finished."""

    def __init__(self, learner: Learner, run_dir: Path, report: Report, written: Callable[[int], None]):
        """`written`: called with the iteration of each that is there, sooner or later."""
        config, self._world = learner.config, learner.world
        self._report, self._run_dir, self._tell_written = report, run_dir, written
        self._writer = CheckpointWriter(learner.world, run_dir, config.keep_checkpoints, config.keep_best)
        self._clock = CheckpointClock(config.checkpoint_every, config.checkpoint_minutes * 60)
        self._failures = 0
        self._held_s = self._write_s = 0.0

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(Exception):  # what the run ends for matters more
            self._look(wait=False)

    def is_due(self, iteration: int) -> bool:
        """The first learner decides."""
        return self._world.is_first and self._clock.is_due(iteration, self._writer.busy)

    def save(self, learner: Learner, hurry: bool = False) -> None:
        """Returns when all is copied that is to be written. All learners must call it. `hurry`: they will wait."""
        began = time.perf_counter()
        self._look(wait=True)  # at the one before
        self._clock.started()
        self._writer.start(learner.iteration, shard_of(learner, self._report.state), self._report.score, hurry)
        self._held_s += time.perf_counter() - began

    def save_and_wait(self, learner: Learner) -> None:
        """Raises CheckpointNotWritten, on all learners, if it could not be written."""
        self.save(learner, hurry=True)
        written = self._writer.result(wait=True)
        failure = self._world.broadcast(written.failure if written else None)
        if failure:
            what = f"the checkpoint of iteration {learner.iteration} was not written: {failure}"
            raise CheckpointNotWritten(f"{what}; what was trained since the one before it in {self._run_dir} is lost")

    def facts(self) -> dict[str, float]:
        """For the report of an iteration, by tag; looks what became of the latest checkpoint."""
        self._look(wait=False)
        held_s, self._held_s = self._held_s, 0.0
        return {
            "perf/checkpoint_seconds": held_s,  # the loop waited, since the report before
            "perf/checkpoint_write_seconds": self._write_s,  # in the background, of the latest
            "perf/checkpoint_failures": float(self._failures),  # since the start
        }

    def _look(self, wait: bool) -> None:
        written = self._writer.result(wait)
        if written is None:
            return
        self._write_s = written.seconds
        if written.failure is None:
            if self._clock.failing:
                self._report.progress.say(f"the checkpoint of iteration {written.iteration} is written")
            self._clock.succeeded()
            self._tell_written(written.iteration)
            return
        self._failures += 1
        seconds = self._clock.failed()
        what = f"the checkpoint of iteration {written.iteration} was not written: {written.failure}"
        self._report.progress.say(f"WARNING: {what}; the run goes on; next attempt in {seconds:.0f} s")

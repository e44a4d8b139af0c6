"""After too many bad updates in a row: back to the last good checkpoint, and on from there at half the rate.

The state that is gone back to is exact, randomness included, so that the same rate would lead to the same end. The
factor on the rate stays for the rest of the run, in its checkpoints too. `optimizer.lr` can be raised when a run is
resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_trainer.checkpoint import load_checkpoint
from dist_trainer.checkpoint_search import find_checkpoint, set_aside_newer
from dist_trainer.config import TrainConfig
from dist_trainer.learner import Learner

RATE_AFTER = 0.5  # times the rate before


@dataclass
class Rollbacks:
    """How often that was necessary; the same on all learners."""

    allowed: int  # in a row
    total: int = 0
    in_a_row: int = 0
    farthest: int = 0  # iteration of a rollback: what lies behind it is progress

    @staticmethod
    def of(config: TrainConfig) -> Rollbacks:
        return Rollbacks(config.max_rollbacks if config.on_bad_updates == "rollback" else 0)

    def note_good_update(self, iteration: int) -> None:
        if iteration > self.farthest:
            self.in_a_row = 0

    def another(self, iteration: int) -> bool:
        """Counts one that is needed at this iteration. False: it would be one too many."""
        if self.in_a_row >= self.allowed:
            return False
        self.in_a_row += 1
        self.total += 1
        self.farthest = max(self.farthest, iteration)
        return True


def roll_back(learner: Learner, run_dir: Path, rate_before: float) -> dict[str, Any]:
    """Puts a new learner where the newest intact checkpoint is; the first learner decides which. Returns what
    load_checkpoint does. `rate_before`: the rollback factor of the learner that is given up."""
    checkpoint = None
    if learner.world.is_first:
        checkpoint = find_checkpoint(str(run_dir), "run_dir")
        set_aside_newer(checkpoint)
    checkpoint = learner.world.broadcast(checkpoint)
    assert checkpoint
    extra = load_checkpoint(learner, checkpoint)
    learner.rollback_factor = rate_before * RATE_AFTER
    return extra

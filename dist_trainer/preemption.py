"""Stragglers: when enough learners have their rollout, the others end theirs early and all learn from what there is.

DD-PPO (Wijmans et al., arXiv 1911.00357, section 3) keeps 128 GPUs busy so where environments differ in speed: when
60 % of the learners are through, the others stop, if they have at least a quarter of their steps. What follows counts
samples, not learners: rollouts weigh by their length. The decision hangs on the clock, so it is off by default: a run
with it cannot be repeated.
"""

from __future__ import annotations

import itertools
import math
import warnings

from dist_trainer.collector import Collector
from dist_trainer.config import PreemptionConfig
from dist_trainer.distributed import Counter, World
from dist_trainer.rollout import Rollout

_attempts = itertools.count()  # after a rollback iterations are counted again


class Preemption:
    """Collects rollouts that may be cut short. Off, or with one learner, they never are."""

    def __init__(self, config: PreemptionConfig, world: World, horizon: int):
        self.enough = max(1, math.ceil((config.fraction or 0) * world.size - 1e-9))  # learners
        self.least = max(1, math.ceil(config.min_horizon * horizon))  # steps
        self.horizon, self.is_first = horizon, world.is_first
        if config.fraction is not None and world.is_first and self.enough >= world.size > 1:
            what = f"preemption.fraction={config.fraction} of {world.size} learners are all of them"
            warnings.warn(f"{what}: no rollout is cut", stacklevel=2)
        self.counter: Counter | None = world.counter() if config.fraction is not None and world.size > 1 else None
        self.attempt = next(_attempts)  # the same on all learners

    def collect(self, collector: Collector, iteration: int) -> Rollout:
        """The rollout of this iteration."""
        counter, here = self.counter, f"rollouts/{self.attempt}/{iteration}"
        if counter is None:
            return collector.collect()

        def enough_are_through(steps: int) -> bool:
            return self.least <= steps < self.horizon and counter.read(here) >= self.enough

        rollout = collector.collect(enough_are_through)
        counter.add(here)
        if self.is_first:  # nobody looks at it any more: this iteration begins after a collective of all
            counter.forget(f"rollouts/{self.attempt}/{iteration - 1}")
        return rollout

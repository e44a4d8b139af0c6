"""`overlap=true`: the next rollout is collected, with the weights of before the update, while the learner works.

    collect 0 | learn 0   | learn 1   | learn 2   | ...
              | collect 1 | collect 2 | collect 3 | ...
              weights:  0           1           2

Rollout k + 1 is acted with the weights that update k starts from: one update behind those that will learn from it.
PPO's ratio is against the log-probabilities of acting, so that its clipping bounds what the lag can do; with
`ppo.advantage=vtrace` the advantages are corrected as well. Nothing depends on which of the two is through first: a run
can be repeated, cut over any number of learners, and resumed exactly, since a checkpoint holds where the rollout that
is next began and the weights that it was acted with, and the resumed run collects it again.

Others do it so as well: Sample Factory (arXiv 2006.11751), Cleanba (arXiv 2310.00036).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from dist_trainer.learner import Learner, RolloutStart
from dist_trainer.preemption import Preemption
from dist_trainer.rollout import Rollout


def rollouts_of(learner: Learner) -> Callable[[int], AbstractContextManager[Rollout]]:
    """Of an iteration's number: a context with its rollout, to learn from inside it."""
    if learner.config.overlap:
        return Overlap(learner).next
    preemption = Preemption(learner.config.preemption, learner.world, learner.config.horizon)
    return lambda iteration: nullcontext(preemption.collect(learner.collector, iteration))


class Overlap:
    """Collects for a learner whose collector acts with copies of the policy and of the normalizer."""

    def __init__(self, learner: Learner):
        self._learner = learner
        self._next: Rollout | None = None  # collected; a copy, for the collector goes on
        device = learner.world.device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "collector", torch.set_num_threads, (torch.get_num_threads(),))

    @contextmanager
    def next(self, iteration: int) -> Iterator[Rollout]:
        """The rollout of this iteration; inside the context the one after it is collected."""
        rollout = self._next or self._first(resumed=iteration > 0)
        collector = self._learner.collector
        self._learner.next_start = RolloutStart(self._learner.pool.snapshot(), collector.state.clone())
        self._take_over()
        self._order(self._stream, after=self._current())
        under_way = self._thread.submit(self._collect)
        try:
            yield rollout
        finally:
            under_way.exception()  # whatever happened in the context: the environments are to be left idle
        self._order(self._current(), after=self._stream)
        self._next = copy_of(under_way.result())

    def _first(self, resumed: bool) -> Rollout:
        """At the beginning of a run; or, resumed, the rollout that was under way, by the copies as they were saved."""
        if not resumed:
            self._take_over()  # the normalizer has been warmed up meanwhile
        rollout = copy_of(self._learner.collector.collect())
        if resumed:
            self._learner.pool.take_statistics()  # of these episodes; they were reported before the checkpoint
        return rollout

    def _collect(self) -> Rollout:
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            return self._learner.collector.collect()

    def _take_over(self) -> None:
        """From now on acting goes on with the weights and statistics of now."""
        learner = self._learner
        copy_(learner.collector.policy, learner.policy)
        copy_(learner.collector.normalizer, learner.observations)

    def _current(self) -> torch.cuda.Stream | None:
        return torch.cuda.current_stream(self._learner.world.device) if self._stream else None

    @staticmethod
    def _order(later: torch.cuda.Stream | None, after: torch.cuda.Stream | None) -> None:
        if later and after:
            later.wait_stream(after)

    def close(self) -> None:
        self._thread.shutdown()


@torch.no_grad()
def copy_(target: nn.Module, source: nn.Module) -> None:
    """In place: recorded CUDA graphs go on with the new numbers."""
    for ours, theirs in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
        ours.copy_(theirs)


def copy_of(rollout: Rollout) -> Rollout:
    values: dict[str, Any] = {field.name: copy.deepcopy(getattr(rollout, field.name)) for field in fields(rollout)}
    return Rollout(**values)

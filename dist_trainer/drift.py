"""Do all learners still hold the same bits? Looked at every `check_every` iterations; one number a tensor is sent."""

from __future__ import annotations

from collections.abc import Callable

from dist_trainer import optimizers
from dist_trainer.distributed import check_identical, check_nobody_says, make_identical
from dist_trainer.learner import Learner, replicas


def check_for_drift(learner: Learner, say: Callable[[str], None]) -> None:
    """Compares replicas; of state that has no replica, asks its only keeper whether a bit of it has changed by itself.

    Raises LearnersDiffer, on all learners, that names tensor and ranks. With `on_drift: resync` replicas are made equal
    instead, which is told to `say`; what has no replica still ends the run: its last checkpoint is good.
    """
    for group, tensors in replicas(learner):
        if learner.config.on_drift == "stop":
            check_identical(group, tensors)
        elif found := make_identical(group, tensors):
            say(f"iteration {learner.iteration}: {found}; made equal again")
    shards = learner.optimizer.shards
    if shards and shards.peers.size == 1:
        learner.own_state.compare(optimizers.single_copy_state(learner.optimizer))
        changed = learner.own_state.read()
        text = f"{', '.join(changed[:3])} changed by itself between updates, and nobody else has it"
        check_nobody_says(learner.world, text if changed else None)

"""Do all learners still hold the same bits? Looked at every `check_every` iterations; one number a tensor is sent."""

from __future__ import annotations

from collections.abc import Callable

from dist_trainer import optimizers
from dist_trainer.identical import check_identical, check_nobody_says, make_identical
from dist_trainer.learner import Learner, replicas


def check_for_drift(learner: Learner, say: Callable[[str], None]) -> None:
    """Asks whether anything has changed by itself (see own_state.py), then compares replicas.

    Raises LearnersDiffer, on all learners, that names tensor and ranks. With `on_drift: resync` replicas are made equal
    instead, which is told to `say`. What no other learner has as it was still ends the run: state without a copy, and
    what an update has used meanwhile. Checkpoints are written after a check: the last one is good.
    """
    resync, shards = learner.config.on_drift == "resync", learner.optimizer.shards
    if shards:
        learner.own_state.compare(optimizers.single_copy_state(learner.optimizer))
        changed = learner.own_state.read()
        if resync and shards.peers.size > 1:  # the other owners have it
            changed = [name for name in changed if name not in optimizers.unit_state(learner.optimizer)]
        text = f"{', '.join(changed[:3])} changed by itself between updates"
        check_nobody_says(learner.world, text if changed else None)
    for group, tensors in replicas(learner):
        if not resync:
            check_identical(group, tensors)
        elif found := make_identical(group, tensors):
            say(f"iteration {learner.iteration}: {found}; made equal again")

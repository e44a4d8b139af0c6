"""Whole iterations of all learners of a launch: what the model's predictions are compared with."""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass, field
from statistics import median

from torch import Tensor

from benchmarks.scaling_parts import TIMED, WARM_UP, averages, config_for, iterate, meet, seconds
from benchmarks.scaling_records import IterationRecord
from dist_trainer.distributed import World
from dist_trainer.identical import check_identical
from dist_trainer.learner import make_learner, replicas, warm_up_normalizer


@dataclass(frozen=True)
class TimingWorld(World):
    """Keeps the seconds that this learner spends in collectives. For CPUs: on a device they only queue."""

    spent: list[float] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> Tensor:
        start = time.perf_counter()
        result = super().sum_(tensor)
        self.spent.append(time.perf_counter() - start)
        return result

    def all_gather(self, tensor: Tensor) -> Tensor:
        start = time.perf_counter()
        result = super().all_gather(tensor)
        self.spent.append(time.perf_counter() - start)
        return result


def cpu_seconds() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_iterations(options: argparse.Namespace, world: World, optimizer: str, sync: str) -> IterationRecord:
    timing = TimingWorld(world.rank, world.size, world.local_rank, world.local_size, world.device)
    more = [
        f"optimizer.sync={sync}",
        *([f"optimizer.shard_group={options.shard_group}"] if options.shard_group else []),
    ]
    config = config_for(options, optimizer, options.hidden[0], options.samples // options.horizon, *more)
    learner = make_learner(config, timing)
    warm_up_normalizer(learner)
    for _ in range(WARM_UP):
        iterate(learner)
    meet(world)
    timing.spent.clear()
    before, walls = cpu_seconds(), []
    for _ in range(TIMED):
        walls.append(sum(iterate(learner)))  # add_up's all-reduce ends the iteration of all learners
    own = [cpu_seconds() - before, sum(timing.spent)]
    cpu, waited = (value / TIMED for value in averages(world, own))

    def check() -> None:
        for group, tensors in replicas(learner):
            check_identical(group, tensors)

    check()
    shards = learner.optimizer.shards
    return IterationRecord(
        optimizer=optimizer,
        sync=sync,
        group=shards.group.size if shards else 1,
        seconds=averages(world, walls),
        cpu_seconds=cpu * world.size,
        in_collectives=waited,
        check_seconds=median(seconds(check, world.device) for _ in range(3)),
    )

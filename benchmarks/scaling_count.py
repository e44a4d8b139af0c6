"""Counts what an iteration consists of: torch operators, matrix products, messages. Counted, so any machine will do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scaling_records import Message, WorkRecord
from dist_trainer import optimizers
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.optimizers.sharding import make_shards
from dist_trainer.report import add_up
from dist_trainer.update import learn

GROUPS = (1, 2, 4, 8)  # learners of a shard group


class Operators(TorchDispatchMode):
    """Counts operators that compute something: views launch nothing on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ListeningWorld(World):
    """Writes down every collective, also where there is nobody to communicate with."""

    heard: list[Message] = field(default_factory=list)

    def sum_(self, tensor: Tensor) -> Tensor:
        self.heard.append(Message("all_reduce", tensor.nbytes))
        return super().sum_(tensor)

    def broadcast_(self, tensor: Tensor, source: int = 0) -> Tensor:
        self.heard.append(Message("broadcast", tensor.nbytes))
        return super().broadcast_(tensor, source)


def count_work(name: str, config: TrainConfig, world: World) -> WorkRecord:
    """Of one iteration of a learner alone, after one that makes the optimizer's state."""
    alone = ListeningWorld(0, 1, 0, 1, world.device)
    learner = make_learner(config, alone)
    warm_up_normalizer(learner)
    learn(learner, learner.collector.collect())
    learner.iteration += 1
    alone.heard.clear()

    step, in_steps = optimizers.step, 0

    def counted_step(*args: Any, **kwargs: Any) -> None:
        nonlocal in_steps
        before = operators.count
        step(*args, **kwargs)
        in_steps += operators.count - before

    with mock.patch.object(optimizers, "step", counted_step), Operators() as operators:
        rollout = learner.collector.collect()
        in_rollout = operators.count
        update = learn(learner, rollout)
        add_up(learner, update, [0.0, 0.0], 0.0)
        total = operators.count
    units = learner.optimizer.units
    unit_operators, unit_flops = zip(*(count_unit(learner, index) for index in range(len(units))), strict=True)
    spec = learner.pool.spec
    return WorkRecord(
        optimizer=name,
        hidden=config.policy["hidden_size"],
        parameters=learner.gradients.flat.numel(),
        minibatches=config.ppo.minibatches * config.ppo.update_epochs,
        observation_bytes=math.prod(spec.observation_shape) * (1 if spec.observation_is_bytes else 4),
        unit_numbers=[sum(weight.numel() for weight in unit.weights) for unit in units],
        unit_operators=list(unit_operators),
        unit_flops=list(unit_flops),
        rollout_operators=in_rollout,
        learning_operators=total - in_rollout - in_steps,
        messages=list(alone.heard),
        owners={str(size): owners_in_group(learner, size) for size in GROUPS},
    )


def count_unit(learner: Learner, index: int) -> tuple[int, int]:
    """Operators and flops of one unit's step."""
    one = replace(learner.optimizer, units=[learner.optimizer.units[index]])
    learner.optimizer_step += 1
    with Operators() as operators, FlopCounterMode(display=False) as flops:
        optimizers.step(
            one, learner.gradients.flat, lr=0.0, seed=learner.config.seed, optimizer_step=learner.optimizer_step
        )
    return operators.count, int(flops.get_total_flops())


def owners_in_group(learner: Learner, size: int) -> list[int]:
    """Who would own each unit among `size` learners: decided alike by each, without communication."""
    place = replace(learner.world, size=size, local_size=size)
    return make_shards(place, size, learner.optimizer.units).owners

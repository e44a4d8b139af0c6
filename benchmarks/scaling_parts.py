"""What one launch of learners measures of an iteration's parts: phases, optimizer units, collectives."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import mean, median, pstdev
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.scaling_records import CollectivePoint, PhasePoint, PhaseRecord
from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import PPOConfig, TrainConfig
from dist_trainer.distributed import World
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.report import add_up
from dist_trainer.update import learn

SIZES = (24, 1024, 16_384, 131_072, 524_288, 2_097_152)  # bytes of a message
WARM_UP = 2  # iterations before any is timed: the first makes the optimizer's state
TIMED = 5
MINIBATCHES = PPOConfig().minibatches  # rows are a multiple of them


def config_for(options: argparse.Namespace, optimizer: str, hidden: int, envs: int, *more: str) -> TrainConfig:
    settings = [f"env={options.env}", "policy=lstm", f"policy.hidden_size={hidden}", f"optimizer={optimizer}"]
    sizes = [f"total_envs={envs}", f"horizon={options.horizon}", "torch_threads=1"]
    sizes += [f"env_threads={options.env_threads}", f"device={options.device}", "total_env_steps=1e9"]
    return compose_train([*settings, *sizes, *more])[0]


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(action: Callable[[], object], device: torch.device) -> float:
    start = now(device)
    action()
    return now(device) - start


def meet(world: World) -> None:
    world.sum_(torch.zeros(1, device=world.device)).item()


def averages(world: World, values: list[float]) -> list[float]:
    """Means over the learners, on all of them."""
    total = world.sum_(torch.tensor(values, dtype=torch.float64, device=world.device))
    return (total / world.size).tolist()


def iterate(learner: Learner) -> tuple[float, float]:
    """One iteration as the trainer has it. Seconds of its rollout, and of the rest."""
    device = learner.world.device
    start = now(device)
    rollout = learner.collector.collect()
    middle = now(device)
    update = learn(learner, rollout)
    learner.iteration += 1
    add_up(learner, update, [0.0, 0.0], 0.0)
    if update.undone:
        raise RuntimeError("an update was undone: what it took says nothing")
    return middle - start, now(device) - middle


def environment_seconds(learner: Learner) -> float:
    """The pool's steps of one rollout alone, with the last actions."""

    def steps() -> None:
        for _ in range(learner.config.horizon):
            for pool in learner.pool.pools:
                pool.send()
                pool.recv()

    return median(seconds(steps, learner.world.device) for _ in range(3))


def rows_for(options: argparse.Namespace, learners: int) -> list[int]:
    """Of the learners whose phases are timed. With several of them others than each has in a whole iteration, so that
    this one's phases are read off a line: half and one and a half times as many."""
    if options.rows:
        return list(options.rows)
    own = options.samples // options.horizon // learners
    parts = (1 / 16, 3 / 16, 7 / 16, 1) if learners == 1 else (1 / 2, 3 / 2)
    return sorted({max(1, round(own * part / MINIBATCHES)) * MINIBATCHES for part in parts})


def measure_phases(options: argparse.Namespace, world: World, optimizer: str) -> PhaseRecord:
    alone = World(0, 1, 0, 1, world.device)
    step, in_steps = optimizers.step, 0.0

    def timed_step(*args: Any, **kwargs: Any) -> None:
        nonlocal in_steps
        in_steps += seconds(lambda: step(*args, **kwargs), world.device)

    points, step_seconds = [], []
    for rows in rows_for(options, world.size):
        learner = make_learner(config_for(options, optimizer, options.hidden[0], rows), alone)
        warm_up_normalizer(learner)
        rollouts, timed = [], []
        with mock.patch.object(optimizers, "step", timed_step):
            for index in range(WARM_UP + TIMED):
                meet(world)  # so that all are at the same phase
                in_steps = 0.0
                rollout_seconds, rest = iterate(learner)
                if index >= WARM_UP:
                    rollouts.append(rollout_seconds)
                    timed.append(averages(world, [rollout_seconds, rest - in_steps, in_steps]))
        meet(world)
        environment, spread = averages(world, [environment_seconds(learner), pstdev(rollouts) / mean(rollouts)])
        rollout, learning, steps = (median(column) for column in zip(*timed, strict=True))
        points.append(PhasePoint(rows, environment, max(0.0, rollout - environment), learning, spread))
        step_seconds.append(steps / learner.config.ppo.minibatches)
    whole, shares = median(step_seconds), averages(world, unit_seconds(learner, world))
    units = [whole * share / sum(shares) for share in shares]
    return PhaseRecord(optimizer, options.hidden[0], world.size, points, units)


def unit_seconds(learner: Learner, world: World) -> list[float]:
    """Of each unit's step by itself, at rate 0."""

    def step(one: optimizers.Optimizer) -> None:
        learner.optimizer_step += 1
        gradient, seed = learner.gradients.flat, learner.config.seed
        optimizers.step(one, gradient, lr=0.0, seed=seed, optimizer_step=learner.optimizer_step)

    times = []
    for unit in learner.optimizer.units:
        one = replace(learner.optimizer, units=[unit])
        meet(world)
        times.append(median(seconds(partial(step, one), world.device) for _ in range(5)))
    return times


def repeat(collective: Callable[[Tensor], Tensor], tensor: Tensor, calls: int) -> None:
    for _ in range(calls):
        collective(tensor)


def measure_collectives(world: World) -> list[CollectivePoint]:
    """Median over rounds of the mean of some calls in a row, as the trainer makes them."""
    points = []
    for kind, collective in (("all_reduce", world.sum_), ("all_gather", world.all_gather)):
        for size in SIZES:
            tensor = torch.zeros(size // 4, device=world.device)
            calls = 20 if size < 100_000 else 5

            def some(
                tensor: Tensor = tensor, calls: int = calls, call: Callable[[Tensor], Tensor] = collective
            ) -> None:
                for _ in range(calls):
                    call(tensor)

            some()
            rounds = []
            for _ in range(5):
                meet(world)
                rounds.append(seconds(some, world.device) / calls)
            points.append(CollectivePoint(kind, size, averages(world, [median(rounds)])[0]))
    return points

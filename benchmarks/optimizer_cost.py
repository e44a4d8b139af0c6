"""What each optimizer costs: its time per step, and its share of a whole PPO iteration of 65,536 samples.

    python -m benchmarks.optimizer_cost [OPTIMIZER ...] [--threads 1] [--steps 4] [--hidden 352 1120]

Hidden sizes 352 and 1120 give LSTM policies of 1 M and 10 M parameters on Breakout. For each size one iteration is
timed without its optimizer steps (rollout, losses, gradients); it is the same for all. Then every optimizer steps on
the last real gradient. A PSGD optimizer is timed with and without a fit of its preconditioner, and the two are mixed
as its schedule does at the start of a run and in the end; Newton's products are timed as they are in training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dist_trainer import optimizers, update
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import group_choices
from dist_trainer.curvature import hand_over_curvature
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.minibatch import Experience, count_globally, my_minibatch_rows
from dist_trainer.rollout import Rollout

SAMPLES = 65_536


def config_for(optimizer: str, hidden: int, threads: int) -> TrainConfig:
    settings = ["env=breakout", "policy=lstm", f"policy.hidden_size={hidden}", f"optimizer={optimizer}", "horizon=64"]
    sizes = [f"total_envs={SAMPLES // 64}", f"torch_threads={threads}", f"env_threads={threads}", "device=cpu"]
    return compose_train([*settings, *sizes])[0]


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def seconds_without_optimizer(learner: Learner) -> tuple[float, Rollout, Tensor]:
    """Of the second of two iterations; its rollout and its last gradient."""
    step, spent, gradient = optimizers.step, 0.0, learner.gradients.flat

    def timed_step(*args: Any, **kwargs: Any) -> None:
        nonlocal spent, gradient
        gradient = args[1].clone()
        spent += seconds(lambda: step(*args, **kwargs))

    with mock.patch.object(optimizers, "step", timed_step):
        for _ in range(2):
            spent, start = 0.0, time.perf_counter()
            rollout = learner.collector.collect()
            update.learn(learner, rollout)
            total = time.perf_counter() - start
            learner.iteration += 1
    return total - spent, rollout, gradient


@dataclass
class Cost:
    """Seconds per optimizer step, with what Newton's products cost."""

    start: float
    end: float


def cost_of(name: str, base: Learner, rollout: Rollout, gradient: Tensor, hidden: int, steps: int) -> Cost:
    config = config_for(name, hidden, torch.get_num_threads())
    optimizer = optimizers.make_optimizer(config.optimizer, base.policy)
    learner = replace(base, config=config, optimizer=optimizer, optimizer_step=0)
    rows = my_minibatch_rows(base, 0)[0]
    most = int(rollout.done_counts[rows.numpy()].max())

    def product() -> None:
        samples = count_globally(learner, rollout).curvature
        hand_over_curvature(learner, Experience(rollout, rollout.values, rollout.values), rows, most, samples)

    def step(fit: bool) -> float:
        newton = optimizer.newton
        if newton and fit:
            product()
        elif not newton:
            for unit in optimizer.units:
                inner: Any = unit.inner
                if unit.precond_lr is not None:
                    inner.precond_schedule = lambda _: float(fit)
        number, learner.optimizer_step = learner.optimizer_step, learner.optimizer_step + 1
        return seconds(lambda: optimizers.step(optimizer, gradient, lr=0.0, seed=1, optimizer_step=number))

    def time_of(fit: bool) -> float:
        return median(step(fit) for _ in range(steps))

    if optimizer.newton:
        optimizer.newton.every = 1  # for the timing alone
    step(True), step(True)  # the first steps make the state
    with_fit, without = time_of(True), time_of(False)
    if optimizer.newton:
        every = config.optimizer["newton_every"]
        products = []
        for _ in range(steps):
            products.append(seconds(product))
            for unit in optimizer.units:
                for group in unit.inner.param_groups:
                    group.pop("newton_pairs", None)
        mixed = (with_fit + median(products)) / every + without * (1 - 1 / every)
        return Cost(mixed, mixed)
    probability = config.optimizer.get("preconditioner_update_probability")
    if probability is None:
        return Cost(median([with_fit, without]), median([with_fit, without]))
    start, end = (p * with_fit + (1 - p) * without for p in (probability["initial"], probability["final"]))
    return Cost(start, end)


def table(hidden: int, threads: int, names: list[str], steps: int) -> None:
    base = make_learner(config_for("adamw", hidden, threads), connect("cpu", 60))
    warm_up_normalizer(base)
    rest, rollout, gradient = seconds_without_optimizer(base)
    per_iteration = base.config.ppo.update_epochs * base.config.ppo.minibatches
    print(
        f"\nLSTM {hidden}, {gradient.numel() / 1e6:.1f} M parameters, {SAMPLES:,} samples, {per_iteration} steps, ",
        end="",
    )
    print(f"{threads} thread(s); the iteration without its optimizer: {rest:.2f} s\n")
    print("| optimizer | start: ms a step | share | steps/s | end: ms a step | share | steps/s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    speeds: dict[str, tuple[float, float]] = {}
    for name in names:
        cost = cost_of(name, base, rollout, gradient, hidden, steps)
        cells, speed = [], []
        for one in (cost.start, cost.end):
            total = rest + per_iteration * one
            speed.append(SAMPLES / total)
            cells.append(f"{1e3 * one:.1f} | {per_iteration * one / total:.1%} | {SAMPLES / total:,.0f}")
        speeds[name] = (speed[0], speed[1])
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if {"newton_psgd", "psgd_kron"} <= speeds.keys():
        start, end = (a / b for a, b in zip(speeds["newton_psgd"], speeds["psgd_kron"], strict=True))
        print(f"\nnewton_psgd runs at {start:.0%} of psgd_kron's steps/s at the start of a run, {end:.0%} in the end.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizers", nargs="*", default=group_choices("optimizer"))
    parser.add_argument("--hidden", type=int, nargs="+", default=[352, 1120])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each kind; their median counts")
    options = parser.parse_args()
    print(f"torch {torch.__version__}")
    for hidden in options.hidden:
        table(hidden, options.threads, options.optimizers, options.steps)


if __name__ == "__main__":
    main()

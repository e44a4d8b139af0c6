"""The gradient's way between learners: what bfloat16 loses and saves, and what overlap with backward could hide.

    python -m benchmarks.reduction [--learners 2 4 8] [--hidden 128 1120]

First table: real gradients of one minibatch of Breakout, each learner's own part, summed over the learners in float32
and in bfloat16; errors against the sum in float64, and milliseconds of a reduction of that size (gloo, one machine).
Second table: when in a backward pass each part of the policy has its gradient. What is ready early could be reduced
while the rest is computed; what comes last cannot.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World, connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.minibatch import my_minibatch_rows
from dist_trainer.ppo import ppo_loss
from dist_trainer.rollout import take_minibatch
from tests.learners import Learners

REPEATS = 7


def config_for(hidden: int) -> TrainConfig:
    sizes = ["total_envs=1024", "ppo.minibatches=16", f"policy.hidden_size={hidden}", "torch_threads=1"]
    return compose_train(["env=breakout", "policy=lstm", "optimizer=adamw", "env_threads=1", "device=cpu", *sizes])[0]


def loss_of_a_minibatch(learner: Learner) -> Tensor:
    config, rollout = learner.config, learner.collector.collect()
    noise = torch.randn(rollout.rewards.shape, generator=torch.Generator().manual_seed(learner.world.rank))
    rows, most = my_minibatch_rows(learner, 0)[0], int(rollout.done_counts.max())
    batch = take_minibatch(rollout, noise, rollout.values + noise, rows, most)
    samples = config.horizon_env_steps // config.ppo.minibatches
    return ppo_loss(learner.policy, learner.observations, batch, config.ppo, samples)[0]


def reduce(world: World, config: TrainConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Relative errors and milliseconds, by type."""
    learner = make_learner(config, world)
    learner.gradients.zero()
    loss_of_a_minibatch(learner).backward()
    own = learner.gradients.flat.clone()
    exact = world.sum_(own.double())
    errors, times = {}, {}
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        seconds = []
        for _ in range(REPEATS):
            learner.gradients.flat.copy_(own)
            world.sum_(torch.zeros(1))  # all begin together
            start = time.perf_counter()
            learner.gradients.reduce(world, dtype)
            seconds.append(time.perf_counter() - start)
        errors[name] = float((learner.gradients.flat - exact).norm() / exact.norm())
        times[name] = 1e3 * median(seconds)
    return errors, times


def when_ready(config: TrainConfig) -> dict[str, tuple[int, float]]:
    """Of every part of the policy its numbers, and after which share of a backward pass all of them have a gradient."""
    learner = make_learner(config, connect("cpu", 60))
    parts: dict[str, list[float]] = {}
    numbers: dict[str, int] = {}
    now: dict[str, float] = {}

    def note(part: str, _: Any) -> None:
        now[part] = time.perf_counter()

    for name, parameter in learner.policy.named_parameters():
        part = name.split(".")[0]
        numbers[part] = numbers.get(part, 0) + parameter.numel()
        parameter.register_post_accumulate_grad_hook(partial(note, part))
    for _ in range(REPEATS):
        loss = loss_of_a_minibatch(learner)
        start = time.perf_counter()
        loss.backward()
        whole = time.perf_counter() - start
        for part, at in now.items():
            parts.setdefault(part, []).append((at - start) / whole)
    return {part: (numbers[part], median(shares)) for part, shares in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 1120])
    options = parser.parse_args()
    print(f"torch {torch.__version__}, Breakout, minibatch of 4,096 samples\n")
    print("| hidden | learners | float32: error | ms | bfloat16: error | ms |\n|---|---|---|---|---|---|", flush=True)
    for size in options.learners:
        learners = Learners(size)
        for hidden in options.hidden:
            errors, times = learners.run_within(600, reduce, config_for(hidden))[0]
            cells = " | ".join(f"{errors[name]:.1e} | {times[name]:.1f}" for name in errors)
            print(f"| {hidden} | {size} | {cells} |", flush=True)
        learners.close()
    print("\n| hidden | part, in the order of readiness | numbers | has its gradient after |\n|---|---|---|---|")
    for hidden in options.hidden:
        found = when_ready(config_for(hidden))
        for part, (numbers, share) in sorted(found.items(), key=lambda item: item[1][1]):
            print(f"| {hidden} | {part} | {numbers:,} | {share:.1%} of backward |", flush=True)


if __name__ == "__main__":
    main()

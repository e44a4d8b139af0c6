"""An experiment that was not kept: every learner fits its preconditioner to its own gradients, factors are averaged.

    python -m benchmarks.averaged_preconditioners [--learners 4] [--seeds 3] [--folder runs/averaged]

PSGDKron (whitening) on CartPole and the T-maze, through the real trainer. In `reduced` all learners fit to the reduced
gradient, as the trainer does it. In `averaged k` each fits to its own part, times sqrt(W): the noise of a part is W
times that of the whole in variance, and a preconditioner that whitens it is sqrt(W) too small. The learners'
preconditioners differ then, so the weights are averaged after every step, and the factors after every k-th. Prints
million steps to solve, by seed. benchmarks/LOG.md says what came of it.
"""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.optimizers_quick import TASKS, steps_to_solve
from dist_trainer import optimizers, update
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.keyed import keyed_generators, keyed_seed
from dist_trainer.optimizers.state import unit_tensors
from dist_trainer.ppo import GradientBucket
from dist_trainer.trainer import train
from tests.learners import Learners

# Pairs of a probe and a gradient, handed over as Newton's products are, in every step.
PAIRS = {"newton_every": 1, "newton_product": "central", "newton_precision": "float32", "newton_sub_batch": 1}


def config_for(env: str, seed: int) -> TrainConfig:
    settings = [f"env={env}", f"seed={seed}", f"total_env_steps={TASKS[env].steps}", "optimizer=psgd_kron"]
    return compose_train([*settings, "torch_threads=1", "env_threads=1", "device=cpu", "check_every=0"])[0]


def train_with(world: World, config: TrainConfig, run_dir: Path, average_every: int | None) -> None:
    """`average_every`: optimizer steps between averages of the factors; None: all fit to the reduced gradient."""
    config.optimizer |= PAIRS
    config.optimizer.pop("preconditioner_update_probability")
    reduce, step = GradientBucket.reduce, optimizers.step
    kept: dict[str, Tensor] = {}

    def noting_reduce(self: GradientBucket, *arguments: Any) -> Tensor:
        kept["own"] = self.flat.clone()
        kept["reduced"] = reduce(self, *arguments).clone()
        return self.flat

    def step_and_average(optimizer: optimizers.Optimizer, gradient: Tensor, **key: Any) -> None:
        product = kept["reduced"] if average_every is None else math.sqrt(world.size) * kept["own"]
        with keyed_generators(keyed_seed(key["seed"], "probe", key["optimizer_step"]), world.device):
            vector = torch.randn_like(product)
        assert optimizer.newton
        optimizer.newton.hand_over(optimizer.own_units, vector, product)
        step(optimizer, gradient, **key)
        if average_every is None:
            return
        averaged = [weight.detach() for unit in optimizer.units for weight in unit.weights]
        if (key["optimizer_step"] + 1) % average_every == 0:
            states = [unit_tensors(unit) for unit in optimizer.units]
            averaged += [tensor for state in states for name, tensor in state.items() if "_Q_" in name]
        flat = world.sum_(torch.cat([tensor.flatten() for tensor in averaged])) / world.size
        for tensor, part in zip(averaged, flat.split([tensor.numel() for tensor in averaged]), strict=True):
            tensor.copy_(part.view_as(tensor))

    with ExitStack() as stack:
        for patch in (
            mock.patch.object(GradientBucket, "reduce", noting_reduce),
            mock.patch.object(optimizers, "step", step_and_average),
            mock.patch.object(update, "hand_over_curvature", return_value=torch.zeros(())),
        ):
            stack.enter_context(patch)
        train(config, world, run_dir, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/averaged"))
    options = parser.parse_args()
    variants: dict[str, int | None] = {"reduced": None, "averaged 1": 1, "averaged 16": 16, "averaged 256": 256}
    learners = Learners(options.learners)
    print("| | " + " | ".join(TASKS) + " |\n|---|" + "---|" * len(TASKS), flush=True)
    try:
        for title, every in variants.items():
            cells = []
            for env in TASKS:
                found = []
                for seed in range(1, options.seeds + 1):
                    run_dir = options.folder / f"{title}-{env}-{seed}".replace(" ", "-")
                    run_dir.mkdir(parents=True)
                    learners.run_within(1800, train_with, config_for(env, seed), run_dir, every)
                    steps, last = steps_to_solve(run_dir, env)
                    found.append(f"{steps / 1e6:.2f}" if steps else f"- ({last:.3g})")
                cells.append(", ".join(found))
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    finally:
        learners.close()


if __name__ == "__main__":
    main()

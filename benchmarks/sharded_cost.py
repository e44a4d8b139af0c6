"""What sharding an optimizer saves: CPU time of a learner's optimizer steps and bytes of its state, against replicas.

    python -m benchmarks.sharded_cost [OPTIMIZER ...] [--learners 4] [--hidden 1120] [--steps 4]

Learners are processes joined by gloo on this machine. All take the same given gradients; the LSTM policy of hidden
size 1120 has 10 M parameters, its gates are matrices of their own. CPU time is that of a learner's whole process
(sending and receiving weights too, waiting for others not), the mean over the steps, the largest over the learners:
wall time would tell how many learners share a core. PSGD steps with a fit of the preconditioner, and without one, are
timed apart.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch

from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.envs import env_spec
from dist_trainer.learner import make_policy
from dist_trainer.optimizers.state import unit_tensors
from tests.learners import Learners

WARM_UP = 2  # steps that set up the state; SOAP's first changes nothing


@dataclass
class Cost:
    """Of one learner."""

    seconds: float  # of CPU time a step
    state: int  # bytes
    units: int


def config_for(optimizer: str, hidden: int, sync: str) -> TrainConfig:
    settings = ["env=breakout", "policy=lstm", f"policy.hidden_size={hidden}", f"optimizer={optimizer}"]
    return compose_train([*settings, f"optimizer.sync={sync}", "optimizer.lstm_blocks=gates"])[0]


def measure(world: World, config: TrainConfig, steps: int, fit: bool | None) -> Cost:
    """`fit`: whether a PSGD preconditioner is fitted in every step, or in none after those that warm up."""
    policy = make_policy(config, env_spec(config.env), world.device)
    optimizer = optimizers.make_optimizer(config.optimizer, policy, world)
    weights = sum(p.numel() for p in policy.parameters())
    generator = torch.Generator().manual_seed(1)
    spent = 0.0
    for number in range(WARM_UP + steps):
        if fit is not None:
            for unit in optimizer.own_units:
                inner: Any = unit.inner
                inner.precond_schedule = lambda _, now=float(fit or number < WARM_UP): now
        gradient = 1e-3 * torch.randn(weights, generator=generator)
        world.sum_(torch.zeros(1))  # all begin together
        start = time.process_time()
        optimizers.step(optimizer, gradient, lr=1e-4, seed=1, optimizer_step=number)
        spent += time.process_time() - start if number >= WARM_UP else 0.0
    state = sum(tensor.nbytes for unit in optimizer.own_units for tensor in unit_tensors(unit).values())
    return Cost(spent / steps, state, len(optimizer.own_units))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizers", nargs="*", default=["psgd_kron", "soap", "muon"])
    parser.add_argument("--learners", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1120)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    learners = Learners(options.learners)
    mib = 2**20
    print(f"torch {torch.__version__}, {options.learners} learners, LSTM {options.hidden}\n")
    print("| optimizer | replicated: CPU ms a step | sharded | share | of each learner | state, MiB | units |")
    print("|---|---|---|---|---|---|---|", flush=True)
    try:
        for name in options.optimizers:
            for fit in (True, False) if name.startswith("psgd") or name == "qsgd" else (None,):
                runs = []
                for sync in ("replicated", "sharded"):
                    config = config_for(name, options.hidden, sync)
                    runs.append(learners.run_within(1800, measure, config, options.steps, fit))
                before, after = (max(cost.seconds for cost in run) for run in runs)
                each = ", ".join(f"{cost.seconds * 1e3:.0f}" for cost in runs[1])
                state = f"{runs[0][0].state / mib:.0f} -> " + ", ".join(f"{cost.state / mib:.0f}" for cost in runs[1])
                title = name + {True: ", with a fit", False: ", without", None: ""}[fit]
                units = ", ".join(str(cost.units) for cost in runs[1])
                row = [title, f"{before * 1e3:.0f}", f"{after * 1e3:.0f}", f"{after / before:.0%}", each, state, units]
                print("| " + " | ".join(row) + " |", flush=True)
    finally:
        learners.close()


if __name__ == "__main__":
    main()

"""Each optimizer's share of an iteration, on a GPU or a CPU: whole iterations with and without its steps, by turns.

    python -m benchmarks.gpu_optimizers [--device auto] [--optimizers adamw ...] [--iterations 8] [SETTING=VALUE ...]

A Newton optimizer's products count as its own. The methods that fit a preconditioner at some of their steps are timed
with the probability of the start of a run, and of its end. Times are means from an idle device to an idle device: what
a step hides behind other work does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu_profile import iterate, make
from dist_trainer import optimizers, update
from dist_trainer.cli import compose_train
from dist_trainer.config_files import group_choices
from dist_trainer.learner import Learner

WARM_UP = 2
COLUMNS = ("optimizer", "fits", "iteration, ms", "steps, ms", "ms a step", "share", "steps/s")
PROBABILITY = "preconditioner_update_probability"


@contextmanager
def without_steps(learner: Learner) -> Iterator[None]:
    """Updates compute gradients, and change nothing."""
    no_norm = torch.zeros((), device=learner.world.device)

    def no_step(*args: Any, **kwargs: Any) -> None:
        return None

    def no_product(*args: Any, **kwargs: Any) -> Tensor:
        return no_norm

    with mock.patch.object(optimizers, "step", no_step), mock.patch.object(update, "hand_over_curvature", no_product):
        yield


def seconds(learner: Learner, iterations: int) -> tuple[float, float]:
    """Of an iteration, and of one without optimizer steps."""
    for _ in range(WARM_UP):
        iterate(learner)
    whole, rest = [], []
    for _ in range(iterations):
        whole.append(sum(iterate(learner).values()))
        with without_steps(learner):
            rest.append(sum(iterate(learner).values()))
    return mean(whole), mean(rest)


def cases(name: str, settings: list[str]) -> dict[str, list[str]]:
    """By when in a run: settings of the optimizer with the cost of then."""
    optimizer = [*settings, f"optimizer={name}"]
    probability = compose_train(["policy=lstm", *optimizer])[0].optimizer.get(PROBABILITY)
    if probability is None:
        return {"all along": optimizer}
    ended = f"optimizer.{PROBABILITY}.initial={probability['final']}"
    return {"at the start": optimizer, "in the end": [*optimizer, ended]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--optimizers", nargs="+", default=group_choices("optimizer"))
    parser.add_argument("--iterations", type=int, default=8)
    options = parser.parse_intermixed_args()
    print(f"Settings: {' '.join(options.settings) or 'defaults'}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in options.optimizers:
        for when, settings in cases(name, options.settings).items():
            learner = make(settings, options.device)
            whole, rest = seconds(learner, options.iterations)
            steps = learner.config.ppo.update_epochs * learner.config.ppo.minibatches
            own = whole - rest
            cells = [f"{1e3 * whole:.2f}", f"{1e3 * own:.2f}", f"{1e3 * own / steps:.3f}", f"{own / whole:.1%}"]
            speed = f"{learner.config.horizon_env_steps / whole:,.0f}"
            print(f"| {name} | {when} | {' | '.join(cells)} | {speed} |", flush=True)


if __name__ == "__main__":
    main()

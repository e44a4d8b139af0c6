"""Chooses settings for all environments on one half of some, and says what they do on the other half.

    python -m benchmarks.choose_defaults [--candidates 12] [--budget 0.3] [--folder runs/defaults]

Candidate 0 is what configs/ says; the others are drawn around it, one value of each knob in KNOBS. All train on HALF
with one seed; the FINALISTS best, and candidate 0, with two more; whoever then leads is compared with candidate 0 on
OTHER_HALF, by seeds of its own. A score is the mean over the training of the normalized score: it counts how fast and
how far. Runs that are in the folder already are not repeated. Prints Markdown tables of all results.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from dist_trainer.benchmark_grid import Contestant, Run, Task, load_suite
from dist_trainer.benchmark_results import read_result
from dist_trainer.benchmark_runs import Orders, Place, do_runs
from dist_trainer.config_files import config_dir

HALF = ("cartpole", "tmaze", "execution")
OTHER_HALF = ("acrobot", "deepsea", "pendulum")
FINALISTS = 3
KNOBS: dict[str, Sequence[float]] = {  # the middle of each is today's
    "optimizer.lr": (0.5, 0.71, 1, 1.41, 2),  # times that of configs/optimizer/muon.yaml
    "ppo.entropy_coef": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "ppo.gamma": (0.97, 0.98, 0.99, 0.993, 0.995),
    "ppo.gae_lambda": (0.85, 0.9, 0.95, 0.97, 0.98),
    "ppo.clip": (0.1, 0.2, 0.3),
    "ppo.minibatches": (8, 16, 32),
    "ppo.update_epochs": (1, 1, 2),
}


def candidates(count: int) -> list[Contestant]:
    rate = yaml.safe_load((config_dir() / "optimizer" / "muon.yaml").read_text())["lr"]
    made = [Contestant("0", "muon", ("optimizer=muon",))]
    draw = random.Random(1)
    for number in range(1, count):
        values = {knob: draw.choice(choices) for knob, choices in KNOBS.items()}
        values["optimizer.lr"] *= rate
        settings = [f"{knob}={value:g}" for knob, value in values.items()]
        made.append(Contestant(str(number), "muon", ("optimizer=muon", *settings)))
    return made


def scores(
    contestants: Sequence[Contestant], tasks: Sequence[Task], seeds: Sequence[int], folder: Path
) -> dict[str, np.ndarray]:
    """By candidate (tasks, seeds): trains what has not been."""
    runs = {
        (contestant.name, task.env, seed): Run(task, contestant, seed, folder / task.env / contestant.name / str(seed))
        for seed in seeds
        for task in tasks
        for contestant in contestants
    }
    places = [Place(threads=1)] * len(os.sched_getaffinity(0))
    do_runs(list(runs.values()), places, Orders(["device=cpu"], 1, lambda: False, lambda text: None))
    return {
        contestant.name: np.array(
            [[read_result(runs[contestant.name, task.env, seed]).curve_mean for seed in seeds] for task in tasks]
        )
        for contestant in contestants
    }


def table(title: str, tasks: Sequence[Task], found: dict[str, np.ndarray]) -> str:
    """Best first; of each environment the mean over seeds."""
    head = ["candidate", *(task.env for task in tasks), "mean"]
    lines = [f"{title}\n", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, values in sorted(found.items(), key=lambda item: -item[1].mean()):
        cells = [f"{x:.3f}" for x in values.mean(1)]
        lines.append(f"| {name} | {' | '.join(cells)} | **{values.mean():.3f}** |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--folder", type=Path, default=Path("runs/defaults"))
    options = parser.parse_args()
    suite = {env: Task(**{**vars(t), "steps": t.steps * options.budget}) for env, t in load_suite("cpu").items()}
    half, other = [suite[env] for env in HALF], [suite[env] for env in OTHER_HALF]

    drawn = candidates(options.candidates)
    for contestant in drawn:
        print(f"- {contestant.name}: {' '.join(contestant.settings[1:]) or 'as configs/ says'}")
    first = scores(drawn, half, [1], options.folder)
    print(table("\nOne half, seed 1:", half, first), flush=True)
    best = sorted(drawn, key=lambda contestant: -first[contestant.name].mean())[:FINALISTS]
    finalists = list(dict.fromkeys([*best, drawn[0]]))
    again = scores(finalists, half, [1, 2, 3], options.folder)
    print(table("The best, and candidate 0, seeds 1 to 3:", half, again), flush=True)
    leader = max(finalists, key=lambda contestant: again[contestant.name].mean())
    pair = list(dict.fromkeys([leader, drawn[0]]))
    print(table("The other half, seeds 11 to 13:", other, scores(pair, other, [11, 12, 13], options.folder)))


if __name__ == "__main__":
    main()

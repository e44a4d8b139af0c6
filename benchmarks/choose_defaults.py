"""Chooses settings for all environments on one half of the catalogue, and says what they do on the other half.

    python -m benchmarks.choose_defaults [--candidates 14] [--folder runs/defaults]

Candidate 0 is what configs/ says; EARLIER are those that led in an earlier, smaller search; the others are drawn, one
value of each knob in KNOBS. All train on HALF with one seed, and so do the neighbours of whoever leads: one step of
LADDERS up or down in one knob; if a neighbour leads then, so do its neighbours, for ROUNDS rounds at most. The
FINALISTS best of all, and candidate 0, train with one seed more; whoever then leads is compared with candidate 0 on
OTHER_HALF, by seeds of its own.

All have the same time, not the same steps: more optimizer steps a sample are slower, and such a candidate trains for
as many steps fewer as its speed in Breakout, measured first, is lower. A score is the middle between the normalized
mean over the training (how fast) and that of the evaluation after it (how far), both within LIMITS, so that no
environment outweighs the others. Runs that are in the folder already are not repeated. Prints Markdown tables of
everything.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dist_trainer.benchmark_grid import Contestant, Run, Task, load_suite
from dist_trainer.benchmark_results import read_result
from dist_trainer.benchmark_runs import TRAINING, Orders, Place, do_runs
from dist_trainer.run_curves import read_curve

# A pair for each line of the catalogue; snake, moba and mmo are left out: their sizes leave no choice of minibatches.
HALF = ("cartpole", "mountaincar", "breakout", "tmaze", "maze", "tetris", "connect4", "execution")
OTHER_HALF = ("acrobot", "pendulum", "pong", "repeat_copy", "deepsea", "game2048", "quadrotors", "hvac")
AT_MOST_STEPS = 2.5e6
ROUNDS = 2
FINALISTS = 3
LIMITS = (-0.5, 1.25)
KNOBS: dict[str, Sequence[float]] = {
    "optimizer.lr": (0.02, 0.028, 0.04),
    "ppo.entropy_coef": (5e-4, 1e-3, 2e-3, 4e-3),
    "ppo.gamma": (0.98, 0.99, 0.993, 0.995),
    "ppo.gae_lambda": (0.9, 0.95, 0.97),
    "ppo.clip": (0.2, 0.3),
    "ppo.minibatches": (16, 32),
    "ppo.update_epochs": (1, 2),
}
EARLIER = ((0.0282, 0.004, 0.98, 0.95, 0.3, 32, 2), (0.04, 0.004, 0.995, 0.9, 0.2, 16, 2))
SIZES = ("ppo.minibatches", "ppo.update_epochs")
LADDERS: dict[str, Sequence[float]] = {
    "optimizer.lr": (0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08),
    "ppo.entropy_coef": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "ppo.gamma": (0.97, 0.98, 0.99, 0.993, 0.995, 0.997, 0.998),
    "ppo.gae_lambda": (0.85, 0.9, 0.95, 0.97, 0.98),
    "ppo.clip": (0.1, 0.2, 0.3, 0.4),
    "ppo.minibatches": (8, 16, 32),
    "ppo.update_epochs": (1, 2),
}
Size = tuple[float, ...]


def candidates(count: int) -> dict[str, dict[str, float]]:
    draw = random.Random(2)
    made: dict[str, dict[str, float]] = {"0": {}}
    for values in EARLIER:
        made[str(len(made))] = dict(zip(KNOBS, values, strict=True))
    while len(made) < count:
        made[str(len(made))] = {knob: draw.choice(choices) for knob, choices in KNOBS.items()}
    return made


def neighbours(leader: str, values: dict[str, float]) -> dict[str, dict[str, float]]:
    """Named by the knob that differs: lr=0.056 and the like."""
    found = {}
    for knob, ladder in LADDERS.items():
        at = min(range(len(ladder)), key=lambda step: abs(ladder[step] - values[knob]))
        for step in (at - 1, at + 1):
            if 0 <= step < len(ladder):
                name = f"{leader}-{knob.partition('.')[2]}-{ladder[step]:g}"
                found[name] = {**values, knob: ladder[step]}
    return found


def size_of(values: dict[str, float]) -> Size:
    return tuple(values.get(knob, today) for knob, today in zip(SIZES, (16, 1), strict=True))


def run_all(runs: Sequence[Run]) -> None:
    places = [Place(threads=1)] * len(os.sched_getaffinity(0))
    do_runs(runs, places, Orders(["device=cpu"], 1, lambda: False, lambda text: None))


def measure_speeds(sizes: Sequence[Size], folder: Path) -> dict[Size, float]:
    """Steps per second of each, as many at a time as there are cores."""
    task = replace(load_suite("cpu")["breakout"], steps=8e5, evaluate=("episodes=1", "max_steps=10"))
    found = {}
    for size in sizes:
        settings = [f"{knob}={value:g}" for knob, value in zip(SIZES, size, strict=True)]
        name = "x".join(f"{value:g}" for value in size)
        made = Contestant(f"speed-{name}", "muon", tuple(settings))
        places = range(len(os.sched_getaffinity(0)))
        runs = [Run(task, made, seed, folder / "speed" / name / str(seed)) for seed in places]
        run_all(runs)
        curves = [
            read_curve(run.folder / TRAINING, {"env.name": task.env}, "perf/env_steps_per_second") for run in runs
        ]
        found[size] = float(np.mean([np.median(curve.values[2:]) for curve in curves]))
    return found


def scores(
    contestants: dict[str, Contestant],
    shares: dict[str, float],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    folder: Path,
) -> dict[str, np.ndarray]:
    """By candidate (tasks, seeds): trains what has not been."""
    runs = {
        (name, task.env, seed): Run(
            replace(task, steps=task.steps * shares[name]), contestant, seed, folder / task.env / name / str(seed)
        )
        for seed in seeds
        for name, contestant in contestants.items()
        for task in tasks
    }
    run_all(list(runs.values()))

    def score(name: str, task: Task, seed: int) -> float:
        result = read_result(runs[name, task.env, seed])
        if result.failed:
            print(f"- {task.env}, candidate {name}, seed {seed}: {result.failed}")
        return float(np.mean(np.clip([result.curve_mean, result.normalized], *LIMITS)))

    return {name: np.array([[score(name, task, seed) for seed in seeds] for task in tasks]) for name in contestants}


def table(title: str, tasks: Sequence[Task], found: dict[str, np.ndarray]) -> str:
    """Best first; of each environment the mean over seeds."""
    head = ["candidate", *(task.env for task in tasks), "mean"]
    lines = [f"\n{title}\n", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, values in sorted(found.items(), key=lambda item: -item[1].mean()):
        cells = [f"{x:.3f}" for x in values.mean(1)]
        lines.append(f"| {name} | {' | '.join(cells)} | **{values.mean():.3f}** |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=14)
    parser.add_argument("--folder", type=Path, default=Path("runs/defaults"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    suite = {env: replace(task, steps=min(task.steps, AT_MOST_STEPS)) for env, task in load_suite("cpu").items()}
    half, other = [suite[env] for env in HALF], [suite[env] for env in OTHER_HALF]

    made: dict[str, Contestant] = {}
    shares: dict[str, float] = {}

    def enter(values_of: dict[str, dict[str, float]]) -> None:
        sizes = sorted({size_of(values) for values in [{}, *values_of.values()]})
        speeds = measure_speeds(sizes, options.folder)
        for name, values in values_of.items():
            settings = tuple(f"{knob}={value:g}" for knob, value in values.items())
            made[name] = Contestant(name, "muon", ("optimizer=muon", *settings))
            shares[name] = speeds[size_of(values)] / speeds[size_of({})]
            words = " ".join(settings) or "as configs/ says"
            print(f"- {name}: {words}; {shares[name]:.2f} of the steps", flush=True)

    drawn = candidates(options.candidates)
    enter(drawn)
    first = scores(made, shares, half, [1], options.folder)
    print(table("One half, seed 1:", half, first), flush=True)
    values = {name: drawn[name] for name in drawn if drawn[name]}  # candidate 0 has no values of its own to step from
    for _ in range(ROUNDS):
        leader = max(values, key=lambda name: first[name].mean())
        nearby = {
            name: near for name, near in neighbours(leader, values[leader]).items() if near not in values.values()
        }
        enter(nearby)
        values |= nearby
        first = scores(made, shares, half, [1], options.folder)
        print(table(f"With the neighbours of {leader}:", half, first), flush=True)
        if leader == max(values, key=lambda name: first[name].mean()):
            break
    best = sorted(made, key=lambda name: -first[name].mean())[:FINALISTS]
    finalists = {name: made[name] for name in dict.fromkeys([*best, "0"])}
    again = scores(finalists, shares, half, [1, 2], options.folder)
    print(table("The best, and candidate 0, seeds 1 and 2:", half, again), flush=True)
    leader = max(finalists, key=lambda name: again[name].mean())
    pair = {name: made[name] for name in dict.fromkeys([leader, "0"])}
    print(table("The other half, seeds 11 and 12:", other, scores(pair, shares, other, [11, 12], options.folder)))


if __name__ == "__main__":
    main()

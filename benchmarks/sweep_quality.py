"""How good the samplers of `sweep` are where the truth is known: CartPole, learning rate and entropy coefficient.

    python -m benchmarks.sweep_quality samplers [--seeds=20]         on the grid of sweep_grid.py; two minutes
    python -m benchmarks.sweep_quality trainings FOLDER [--seeds=5]  with real trainings, by the verb; 7 minutes a seed
    python -m benchmarks.sweep_quality judge FOLDER [--seeds=5]      of the studies that are there

A sampler sees scores of single trainings, with their noise. Judged is the setting of its best trial, by the mean return
of all seeds at the full length: the truth.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from optuna.trial import FrozenTrial, create_trial

from benchmarks.sweep_grid import ENTROPIES, QUICK, RATES, SETTINGS, STEPS, Grid, load_grid
from dist_trainer.sweep_journal import open_storage
from dist_trainer.sweep_space import read_space
from dist_trainer.sweep_study import ENV_STEPS
from dist_trainer.sweep_study import SETTINGS as SETTINGS_OF_TRIAL
from dist_trainer.sweep_suggest import suggest
from dist_trainer.verb_configs import SweepConfig

TRIALS = 40
SAMPLERS = ("random", "tpe", "gp", "cost")
REAL = ("random", "gp")
KNOBS: dict[str, Any] = {
    "optimizer.lr": {"log": [RATES[0], RATES[-1]]},
    "ppo.entropy_coef": {"log": [ENTROPIES[0], ENTROPIES[-1]]},
}
LENGTH = {"total_env_steps": {"log": [float(STEPS[0]), float(STEPS[-1])]}}


@dataclass(frozen=True)
class Found:
    """One sweep: by the end, and after each trial."""

    truth: list[float]  # of the setting that is best so far
    spent: list[float]  # environment steps

    @property
    def score(self) -> float:
        return self.truth[-1]

    def cost_of(self, score: float) -> float:
        """Steps until the best setting's truth is at least `score`, and stays there; infinite if never."""
        reached = np.array(self.truth) >= score
        if not reached[-1]:
            return np.inf
        below = np.flatnonzero(~reached)
        return self.spent[below[-1] + 1] if len(below) else self.spent[0]


def simulate(grid: Grid, sampler: str, seed: int, trials: int = TRIALS) -> Found:
    """A sweep whose trainings are looked up in the grid."""
    is_cost = sampler == "cost"
    config = SweepConfig(sampler=sampler, seed=seed, defaults_first=False, cost="env_steps", pruner="none")
    space = read_space({**KNOBS, **LENGTH} if is_cost else KNOBS)
    done: list[FrozenTrial] = []
    truth: list[float] = []
    spent: list[float] = []
    for number in range(trials):
        settings, trial = suggest(space, config, done, number, {})
        steps = settings.get("total_env_steps", float(STEPS[-1]))
        score = grid.score(settings["optimizer.lr"], settings["ppo.entropy_coef"], steps, seed=7 * number + seed)
        done.append(finished(trial, score, steps, settings, number))
        best = max(done, key=lambda trial: trial.value or 0.0).user_attrs[SETTINGS_OF_TRIAL]
        truth.append(truth_of(grid, best))
        spent.append((spent[-1] if spent else 0.0) + steps)
    return Found(truth, spent)


def truth_of(grid: Grid, settings: Mapping[str, Any]) -> float:
    """At the full length, whatever length the sweep has tried it with."""
    return grid.score(settings["optimizer.lr"], settings["ppo.entropy_coef"], STEPS[-1])


def finished(trial: FrozenTrial, score: float, steps: float, settings: Mapping[str, Any], number: int) -> FrozenTrial:
    made = create_trial(
        value=score,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={ENV_STEPS: steps, SETTINGS_OF_TRIAL: dict(settings)},
    )
    made.number = number
    return made


def compare_samplers(seeds: int) -> None:
    grid = load_grid()
    best = float(grid.returns.mean(2)[..., -1].max())
    found = {name: [simulate(grid, name, seed) for seed in range(1, seeds + 1)] for name in SAMPLERS}
    tell(best, {name: [sweep.score for sweep in sweeps] for name, sweeps in found.items()})
    print(
        "\nMillions of steps until a setting of 80, 90 % of the best was chosen, median (in how many sweeps); in all\n"
    )
    print("| sampler | 80 % | 90 % | in all |\n|---|---|---|---|")
    for name, sweeps in found.items():
        cells = []
        for share in (0.8, 0.9):
            costs = [sweep.cost_of(share * best) for sweep in sweeps]
            cells.append(f"{np.median(costs) / 1e6:.2f} ({np.isfinite(costs).sum()} of {seeds})")
        print(f"| {name} | {' | '.join(cells)} | {np.mean([sweep.spent[-1] for sweep in sweeps]) / 1e6:.2f} |")


def tell(best: float, scores: Mapping[str, Sequence[float]]) -> None:
    """Of each sampler's sweeps, those of the same seed in the same place."""
    print(f"Mean return of the chosen setting after {TRIALS} trials; the best point of the grid has {best:.0f}\n")
    print("| sampler | first five seeds | mean | better than random |\n|---|---|---|---|")
    for name, found in scores.items():
        better = sum(a > b for a, b in zip(found, scores["random"], strict=False))
        first = " ".join(f"{score:.0f}" for score in found[:5])
        print(f"| {name} | {first} | {np.mean(found):.0f} | {better} of {len(found)} |")


def train(folder: Path, seeds: int) -> None:
    """Sweeps of real trainings, by the verb; those that are there go on."""
    space = folder / "space.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    space.write_text(yaml.safe_dump({"knobs": KNOBS}))
    for seed, sampler in itertools.product(range(1, seeds + 1), REAL):
        own = {"sampler": sampler, "seed": seed, "trials": TRIALS, "defaults_first": "false", "pruner": "none"}
        own |= {"cost": "env_steps", "folder": str(folder / f"{sampler}-{seed}"), "space": str(space)}
        command = [sys.executable, "-m", "dist_trainer", "sweep", *SETTINGS, *QUICK, f"seed={seed}"]
        subprocess.run([*command, *(f"sweep.{name}={value}" for name, value in own.items())], check=True)


def judge(folder: Path, seeds: int) -> None:
    grid = load_grid()
    scores: dict[str, list[float]] = {sampler: [] for sampler in REAL}
    for seed, sampler in itertools.product(range(1, seeds + 1), REAL):
        storage = open_storage(folder / f"{sampler}-{seed}")
        [study] = storage.get_all_studies()
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        best = max(trials, key=lambda trial: trial.value or 0.0)
        scores[sampler].append(truth_of(grid, best.user_attrs[SETTINGS_OF_TRIAL]))
    tell(float(grid.returns.mean(2)[..., -1].max()), scores)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("samplers", "trainings", "judge"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/sweep_quality"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.what == "samplers":
        compare_samplers(options.seeds)
    if options.what == "trainings":
        train(options.folder, options.seeds)
    if options.what != "samplers":
        judge(options.folder, options.seeds)


if __name__ == "__main__":
    main()

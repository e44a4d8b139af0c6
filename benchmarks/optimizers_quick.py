"""Do the default settings of each optimizer solve CartPole and the T-maze? Several seeds each, with samples to solve.

    python -m benchmarks.optimizers_quick [--seeds 5] [--folder runs/optimizers_quick] [OPTIMIZER ...]

One learner on one thread per run, as many runs at a time as there are cores. Runs that are in the folder already are
not repeated. Prints a Markdown table; exit status 1 if a run did not solve its environment.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

OPTIMIZERS = ("muon", "psgd_kron", "newton_psgd", "soap", "adamw")


@dataclass(frozen=True)
class Task:
    """An environment is solved when a TensorBoard tag reaches a threshold, within so many steps."""

    tag: str
    threshold: float
    steps: float


TASKS = {"cartpole": Task("env/episode_return", 475.0, 1.5e6), "tmaze": Task("env/success", 0.95, 2e6)}


def train(run_dir: Path, env: str, optimizer: str, seed: int) -> None:
    """One run in a process of its own; its output goes to a log beside the folder."""
    if (run_dir / "finished").exists():
        return
    command = [sys.executable, "-m", "dist_trainer", "train", f"env={env}", f"optimizer={optimizer}", f"seed={seed}"]
    command += [f"total_env_steps={TASKS[env].steps}", f"run_dir={run_dir}", "torch_threads=1", "env_threads=1"]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with run_dir.with_suffix(".log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (run_dir / "finished").touch()


def steps_to_solve(run_dir: Path, env: str) -> tuple[float | None, float]:
    """Environment steps until the score over the latest 100 episodes or more was solved, None if it never was; and the
    score at the end of the run."""
    task = TASKS[env]
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars(task.tag)
    return next((point.step for point in points if point.value >= task.threshold), None), points[-1].value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizers", nargs="*", default=OPTIMIZERS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/optimizers_quick"))
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    runs = {
        (optimizer, env, seed): options.folder / f"{optimizer}-{env}-{seed}"
        for optimizer in options.optimizers
        for env in TASKS
        for seed in seeds
    }
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(train, path, env, name, seed) for (name, env, seed), path in runs.items()]
        for job in jobs:
            job.result()

    titles = [f"{env}: solved | million steps, median (worst) | last score, worst" for env in TASKS]
    print("| optimizer | " + " | ".join(titles) + " |")
    print("|---|" + "---|---|---|" * len(TASKS))
    all_solved = True
    for optimizer in options.optimizers:
        cells = []
        for env in TASKS:
            found = [steps_to_solve(runs[optimizer, env, seed], env) for seed in seeds]
            solved = [steps / 1e6 for steps, _ in found if steps is not None]
            all_solved &= len(solved) == len(found)
            cells.append(f"{len(solved)} of {len(found)}")
            cells.append(f"{statistics.median(solved):.2f} ({max(solved):.2f})" if solved else "-")
            cells.append(f"{min(last for _, last in found):.3g}")
        print(f"| {optimizer} | " + " | ".join(cells) + " |")
    return 0 if all_solved else 1


if __name__ == "__main__":
    sys.exit(main())

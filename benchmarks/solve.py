"""One setting of all hyper-parameters for all environments: which does it solve, and which does it at least improve?

    python -m benchmarks.solve [--seeds 1] [--folder runs/solve] [--rising] [--pictures FOLDER] [ENV ...]

Trains each environment with the defaults of configs/ (only the number of steps is its own), one learner of one thread
per run and as many runs at a time as there are cores, then evaluates the final checkpoint on environments of another
seed. With --rising: the harder environments, for 10 to 20 million steps of their agents, which need not be solved but
must come a tenth of the way from the random to the reference player. Runs that are in the folder already are not
repeated. Prints a Markdown table and draws FOLDER/curves.png, and with --pictures also FOLDER/ENV.png, which the
catalogue shows (benchmarks/pictures/curves); exit status 1 if an environment was not solved, or has
not risen, with every seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.solve_curves import Curve, draw_curve, draw_curves, read_curve
from dist_trainer.benchmark_grid import Task, load_suite

RISEN = 0.1  # normalized score of what has learned something


def suite(rising: bool) -> dict[str, Task]:
    """Of configs/benchmark/cpu.yaml those that say what counts as solved, or the others."""
    return {env: task for env, task in load_suite("cpu").items() if (task.solved is None) == rising}


@dataclass(frozen=True)
class Result:
    score: float  # of fresh episodes
    curve: Curve
    seconds: float  # training and evaluation


def train(task: Task, seed: int, run_dir: Path) -> None:
    """And evaluate; output goes to a log beside the folder. Raises CalledProcessError."""
    if (run_dir / "seconds").exists():
        return
    own = ["device=cpu", "torch_threads=1", "env_threads=1"]
    settings = [f"env={task.env}", f"seed={seed}", f"total_env_steps={task.steps}", *task.train, f"run_dir={run_dir}"]
    evaluation = [f"checkpoint={run_dir}", f"greedy={task.greedy}", f"json={run_dir / 'score.json'}", *task.evaluate]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with run_dir.with_suffix(".log").open("w") as log:
        for verb in (["train", *settings], ["evaluate", *evaluation]):
            command = [sys.executable, "-m", "dist_trainer", *verb, *own]
            subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (run_dir / "seconds").write_text(str(time.monotonic() - began))


def result_of(task: Task, run_dir: Path) -> Result:
    score = json.loads((run_dir / "score.json").read_text())
    curve = read_curve(run_dir, f"env/{task.known.metric}")
    return Result(score["means"][task.known.metric], curve, float((run_dir / "seconds").read_text()))


def row(task: Task, results: list[Result]) -> tuple[str, bool]:
    """Of the table, and whether all seeds have come as far as asked."""
    known = task.known
    normalized = [known.normalized(result.score) for result in results]
    reached = [
        share >= RISEN if task.solved is None else result.score >= task.solved
        for share, result in zip(normalized, results, strict=True)
    ]
    shares = ", ".join(f"{share:.2f}" for share in normalized)
    scores = ", ".join(f"{result.score:.4g}" for result in results)
    asked = f"solved at {task.solved:g}" if task.solved is not None else f"{RISEN:g} of the way"
    steps = "-"
    if task.solved is not None:
        first = [result.curve.first_at(task.solved) for result in results]
        steps = ", ".join("-" if step is None else f"{step / 1e6:.2f}" for step in first)
    seconds = ", ".join(f"{result.seconds:.0f}" for result in results)
    cells = [task.env, known.metric, f"{known.random:g}", f"{known.reference:g}", asked, scores, shares, steps, seconds]
    return f"| {' | '.join([*cells, f'{sum(reached)} of {len(reached)}'])} |", all(reached)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", metavar="ENV")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/solve"))
    parser.add_argument("--rising", action="store_true")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    all_tasks = suite(options.rising)
    tasks = {env: task for env, task in all_tasks.items() if not options.envs or env in options.envs}
    if not tasks:
        parser.error(f"ENV: none of {', '.join(all_tasks)}")
    folders = {(env, seed): options.folder / f"{env}-{seed}" for env in tasks for seed in range(1, options.seeds + 1)}
    began = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # The longest first, so that no core is idle at the end.
        order = sorted(folders, key=lambda key: -tasks[key[0]].steps)
        for job in [pool.submit(train, tasks[env], seed, folders[env, seed]) for env, seed in order]:
            job.result()
    print(f"{len(folders)} runs in {(time.monotonic() - began) / 60:.1f} minutes\n")
    print(
        "| environment | metric | random | reference | asked | score | normalized | solved at, M steps | s | reached |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    results = {
        env: [result_of(task, folders[env, seed]) for seed in range(1, options.seeds + 1)]
        for env, task in tasks.items()
    }
    everything = True
    for env, task in tasks.items():
        line, reached = row(task, results[env])
        everything &= reached
        print(line)
    curves = {env: [result.curve for result in found] for env, found in results.items()}
    draw_curves(curves, options.folder / "curves.png")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for env, found in curves.items():
            draw_curve(env, found, options.pictures / f"{env}.png")
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())

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
from dist_trainer.scores import load_scores

RISEN = 0.1  # normalized score of what has learned something


@dataclass(frozen=True)
class Goal:
    """Solved at `at` or above; None: it is enough to have learned something."""

    steps: float
    at: float | None = None
    metric: str = "episode_return"
    greedy: bool = False  # evaluated by the most likely actions: where noise in the actions is itself a cost
    settings: tuple[str, ...] = ()  # sizes of the environment
    evaluation: tuple[str, ...] = ("episodes=200",)


SOLVE = {
    "cartpole": Goal(1e6, 475),
    "acrobot": Goal(2e6, -100),
    "pendulum": Goal(4e6, -200, greedy=True),
    "tmaze": Goal(2e6, 0.95, "success"),
    "repeat_copy": Goal(8e6, 0.95),  # the return is the share of right symbols
    "deepsea": Goal(2e6, 0.985, greedy=True, settings=("env.params.size=10",)),
    "execution": Goal(4e6, -1.03, greedy=True),
    "hvac": Goal(5e6, -43.4, greedy=True),
}
RISE = {
    "breakout": Goal(2e7, metric="score"),
    "pong": Goal(1e7),
    # Half of its episodes begin anywhere; who begins in the valley never meets the flag by chance.
    "mountaincar": Goal(
        1e7, settings=("env.params.anywhere=0.5",), evaluation=("episodes=200", "env.params.anywhere=0")
    ),
    "maze": Goal(2e7, metric="success", evaluation=("episodes=200", "env.params.start_level=1000000000")),
    "snake": Goal(1e5, metric="length", settings=("total_envs=16",), evaluation=("episodes=4",)),  # of 256 agents
    "game2048": Goal(2e7, metric="max_tile"),
    "tetris": Goal(2e7, metric="lines"),
    "connect4": Goal(1e7, metric="points", settings=("env.params.opponent=4",)),
    "quadrotors": Goal(1.2e6, metric="in_time", settings=("total_envs=128",), evaluation=("episodes=20",)),
    "moba": Goal(3e6, metric="points", settings=("total_envs=64", "ppo.minibatches=4", "env.params.opponent=3")),
    "mmo": Goal(
        2e5, metric="min_comb_prof", settings=("total_envs=8", "ppo.minibatches=4"), evaluation=("episodes=16",)
    ),
}


@dataclass(frozen=True)
class Result:
    score: float  # of fresh episodes
    curve: Curve
    seconds: float  # training and evaluation


def train(env: str, goal: Goal, seed: int, run_dir: Path) -> None:
    """And evaluate; output goes to a log beside the folder. Raises CalledProcessError."""
    if (run_dir / "seconds").exists():
        return
    own = ["device=cpu", "torch_threads=1", "env_threads=1"]
    settings = [f"env={env}", f"seed={seed}", f"total_env_steps={goal.steps}", *goal.settings, f"run_dir={run_dir}"]
    evaluation = [f"checkpoint={run_dir}", f"greedy={goal.greedy}", f"json={run_dir / 'score.json'}", *goal.evaluation]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with run_dir.with_suffix(".log").open("w") as log:
        for verb in (["train", *settings], ["evaluate", *evaluation]):
            command = [sys.executable, "-m", "dist_trainer", *verb, *own]
            subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (run_dir / "seconds").write_text(str(time.monotonic() - began))


def result_of(goal: Goal, run_dir: Path) -> Result:
    score = json.loads((run_dir / "score.json").read_text())
    curve = read_curve(run_dir, f"env/{goal.metric}")
    return Result(score["means"][goal.metric], curve, float((run_dir / "seconds").read_text()))


def row(env: str, goal: Goal, results: list[Result]) -> tuple[str, bool]:
    """Of the table, and whether all seeds reached the goal."""
    known = load_scores()[env]
    assert known.metric == goal.metric
    normalized = [known.normalized(result.score) for result in results]
    reached = [
        share >= RISEN if goal.at is None else result.score >= goal.at
        for share, result in zip(normalized, results, strict=True)
    ]
    shares = ", ".join(f"{share:.2f}" for share in normalized)
    scores = ", ".join(f"{result.score:.4g}" for result in results)
    asked = f"solved at {goal.at:g}" if goal.at is not None else f"{RISEN:g} of the way"
    steps = "-"
    if goal.at is not None:
        first = [result.curve.first_at(goal.at) for result in results]
        steps = ", ".join("-" if step is None else f"{step / 1e6:.2f}" for step in first)
    seconds = ", ".join(f"{result.seconds:.0f}" for result in results)
    cells = [env, goal.metric, f"{known.random:g}", f"{known.reference:g}", asked, scores, shares, steps, seconds]
    return f"| {' | '.join([*cells, f'{sum(reached)} of {len(reached)}'])} |", all(reached)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", metavar="ENV")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/solve"))
    parser.add_argument("--rising", action="store_true")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    goals = {
        env: goal
        for env, goal in (RISE if options.rising else SOLVE).items()
        if not options.envs or env in options.envs
    }
    if not goals:
        parser.error(f"ENV: none of {', '.join(RISE if options.rising else SOLVE)}")
    folders = {(env, seed): options.folder / f"{env}-{seed}" for env in goals for seed in range(1, options.seeds + 1)}
    began = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # The longest first, so that no core is idle at the end.
        order = sorted(folders, key=lambda key: -goals[key[0]].steps)
        for job in [pool.submit(train, env, goals[env], seed, folders[env, seed]) for env, seed in order]:
            job.result()
    print(f"{len(folders)} runs in {(time.monotonic() - began) / 60:.1f} minutes\n")
    print(
        "| environment | metric | random | reference | asked | score | normalized | solved at, M steps | s | reached |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    results = {
        env: [result_of(goal, folders[env, seed]) for seed in range(1, options.seeds + 1)]
        for env, goal in goals.items()
    }
    everything = True
    for env, goal in goals.items():
        line, reached = row(env, goal, results[env])
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

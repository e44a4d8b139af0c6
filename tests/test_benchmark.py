"""The verb `benchmark`: which runs there are, that none is lost or done twice, and what is said of them."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dist_trainer.benchmark import plan_benchmark
from dist_trainer.benchmark_grid import Grid, load_suite
from dist_trainer.benchmark_page import page
from dist_trainer.benchmark_pictures import pictures
from dist_trainer.benchmark_report import make_report
from dist_trainer.benchmark_results import Result, mean_over_training
from dist_trainer.benchmark_text import markdown
from dist_trainer.errors import ConfigError
from dist_trainer.run_curves import RunCurve
from dist_trainer.scores import load_scores
from dist_trainer.statistics import iqm, probability_of_improvement

FAST = ["device=cpu", "total_envs=64", "horizon=16", "ppo.minibatches=4", "policy.hidden_size=8", "replay_minutes=0"]


def command(folder: Path, *settings: str) -> list[str]:
    own = ["optimizers=[adamw,sgd,muon]", "envs=[cartpole]", "seeds=1", "budget=0.004", "workers=2", *FAST]
    return [sys.executable, "-m", "dist_trainer", "benchmark", *own, f"folder={folder}", *settings]


def start(folder: Path, *settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(folder, *settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "report" / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_killed_and_joined_every_run_is_done_once(tmp_path: Path) -> None:
    """One program is killed in the middle of its trainings; then two do what is left, together."""
    folder = tmp_path / "bench"
    first = start(folder)
    until = time.monotonic() + 60
    while not list(folder.glob("runs/*/*/1/train/checkpoints/*.ckpt")) and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(list(folder.glob("runs/*/*/1/score.json"))) < 3
    together = [start(folder, "workers=1"), start(folder, "workers=1")]
    told = [program.communicate(timeout=200)[0] for program in together]
    assert all(program.returncode in (0, 3) for program in together), told
    done = [line for text in told for line in text.splitlines() if ": done (" in line]
    assert len(done) == len(set(done)) == 3 - len([r for r in first.stdout or [] if ": done (" in r]), told
    last = subprocess.run(command(folder, "workers=0"), capture_output=True, text=True, check=True)
    assert "report.md" in last.stdout.replace("\n", "")
    rows = rows_of(folder)
    assert [row["contestant"] for row in rows] == ["adamw", "sgd", "muon"]
    for row in rows:
        scored = json.loads((folder / "runs" / row["environment"] / row["contestant"] / "1/score.json").read_text())
        known = load_scores()[row["environment"]]
        score = scored["means"][known.metric]
        assert float(row["score"]) == pytest.approx(score, rel=1e-5) and not row["failed"]
        assert float(row["normalized"]) == pytest.approx(known.normalized(score), abs=1e-5)
        suite = load_suite("cpu")[row["environment"]]
        assert float(row["steps"]) == pytest.approx(0.004 * suite.steps, rel=0.3)


def test_a_stopped_benchmark_says_so_and_goes_on(tmp_path: Path) -> None:
    """Asked by SIGTERM, as Slurm does: the training under way writes a checkpoint, and is continued."""
    settings = ["optimizers=[adamw]", "budget=0.4", "workers=1", "total_envs=512", "horizon=32"]
    program = start(tmp_path, *settings)
    train = tmp_path / "runs/cartpole/adamw/1/train"
    until = time.monotonic() + 60
    while not (train / "status").exists() and time.monotonic() < until:
        time.sleep(0.05)
    program.send_signal(signal.SIGTERM)
    told = program.communicate(timeout=100)[0]
    assert program.returncode == 3 and "1 runs are left; the same command goes on" in told
    assert "state=stopped" in (train / "status").read_text()
    again = subprocess.run(command(tmp_path, *settings), capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "resumes at" in (train.parent / "train.log").read_text()


def test_a_run_that_fails_is_told_and_counts_as_a_random_player(tmp_path: Path) -> None:
    settings = ["optimizers=[sgd]", "sensitivity={optimizer.lr:[1e30]}", "sensitivity_seeds=1", "max_bad_updates=2"]
    done = subprocess.run(command(tmp_path, *settings), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    failed = next(row for row in rows_of(tmp_path) if row["part"] == "optimizer.lr")
    assert "TrainingDiverged" in failed["failed"] and float(failed["normalized"]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"- cartpole, sgd optimizer.lr=.*, seed 1: TrainingDiverged", text)


# --- What is said of them --------------------------------------------------------------------------------------------


def made_up(grid: Grid, mean: dict[str, float]) -> list[Result]:
    draw = np.random.default_rng(0)
    found = []
    for run in grid.runs:
        known = run.task.known
        normalized = mean[run.contestant.name] + draw.normal(0, 0.05)
        score = known.random + normalized * (known.reference - known.random)
        steps = np.linspace(run.task.steps / 10, run.task.steps, 10)
        values = np.linspace(known.random, score, 10)
        curve = RunCurve(run.folder, {}, known.metric, steps.astype(np.int64), steps / 1e5, values)
        at = curve.reached(run.task.asked)
        took = (math.inf, math.inf) if at is None else (float(steps[at]), float(steps[at]) / 1e5)
        found.append(Result(run, score, normalized, normalized / 2, curve, *took))
    return found


def test_the_report_says_what_the_statistics_say(tmp_path: Path) -> None:
    settings = ["optimizers=[muon,adamw]", "envs=[cartpole,tmaze,breakout]", "seeds=4", f"folder={tmp_path}"]
    grid = plan_benchmark([*settings, "sensitivity={optimizer.lr:[0.5]}"]).grid
    assert len(grid.runs) == 3 * (2 * 4 + 2 * 2)
    means = {"muon": 0.9, "adamw": 0.4}
    results = made_up(grid, {c.name: means[c.optimizer] for c in grid.contestants})
    report = make_report(grid, results, "final")
    default = report.parts[0]
    matrix = {
        name: np.array(
            [
                [
                    next(
                        r.normalized
                        for r in results
                        if (r.run.task, r.run.contestant.name, r.run.seed) == (task, name, seed)
                    )
                    for task in grid.tasks
                ]
                for seed in range(1, 5)
            ]
        )
        for name in means
    }
    for standing in default.standings:
        own = matrix[standing.contestant.name]
        assert standing.iqm.point == iqm(own) and standing.iqm.low <= iqm(own) <= standing.iqm.high
    better = default.better["muon", "adamw"]
    assert better.point == probability_of_improvement(matrix["muon"], matrix["adamw"]) == 1
    varied = report.parts[1]
    assert varied.name == "optimizer.lr" and varied.seeds == [1, 2] and len(varied.standings) == 4
    times = {(t.task.env, t.contestant.name): t for t in default.tasks}
    assert times["breakout", "adamw"].reached == 0 and math.isinf(times["breakout", "adamw"].median_steps)
    assert times["breakout", "adamw"].mean_steps == grid.tasks[2].steps, "censored at the end, not dropped"
    assert times["breakout", "muon"].median_steps < grid.tasks[2].steps
    text, shown = markdown(report), pictures(report)
    html = page(report, shown)
    assert "| muon |" in text and "What this does not show" in text and "> 20M" in text
    assert html.count("<img") == len(shown) == 4 and "http" not in html.replace("http-equiv", ""), "self-contained"
    partial = make_report(grid, [r for r in results if (r.run.task.env, r.run.seed) != ("tmaze", 2)], "curve")
    assert partial.parts[0].seeds == [1, 3, 4] and "not complete" in markdown(partial)
    assert partial.parts[0].standings[0].mean.point == pytest.approx(0.45, abs=0.05), "the mean over the training"


def test_the_mean_over_the_training_weighs_by_steps() -> None:
    curve = RunCurve(Path(), {}, "x", np.array([10, 20, 60]), np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))
    assert mean_over_training(curve) == pytest.approx((10 * 1 + 10 * 2 + 40 * 3) / 60)


def test_tuned_settings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text("optimizer:\n  lr: 0.03\nppo:\n  gamma: 0.98\n  target_kl: null\n")
    grid = plan_benchmark(["optimizers=[muon]", "envs=[cartpole]", f"tuned={{muon:{file}}}"]).grid
    (tuned,) = grid.part("tuned")
    assert tuned.settings == ("optimizer=muon", "optimizer.lr=0.03", "ppo.gamma=0.98", "ppo.target_kl=null")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizers=[moun]", "optimizers=moun: did you mean muon"),
        ("envs=[cartpol]", "envs=cartpol: .*did you mean cartpole"),
        ("suite=gpu9", "suite=gpu9: .*valid: "),
        ("seeds=0", "seeds=0: must be at least 1"),
        ("budget=0", "budget=0.0: must be above 0"),
        ("score=best", "score=best: .*curve, final"),
        ("ppo.gama=0.9", "ppo.gama"),
        ("seeed=4", "did you mean seed"),
        ("optimizer=muon", "optimizer=muon: differs from run to run; use optimizers"),
        ("sensitivity={optimizer.nothing:[2]}", "sensitivity=optimizer.nothing: is a number other than 0 of none"),
        ("sensitivity={optimizer.lr:[0]}", "must be a list of factors above 0"),
        ("tuned={muon:/nowhere.yaml}", "tuned.muon=/nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told_before_anything_runs(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_benchmark([setting])


def test_folders_do_not_mix_what_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "benchmark.yaml").write_text(json.dumps({"budget": 0.5, "settings": []}))
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "holds runs with budget=0.5" in done.stderr


def test_every_environment_of_the_suite_is_one_that_trains() -> None:
    for env, task in load_suite("cpu").items():
        grid = plan_benchmark([f"envs=[{env}]", "optimizers=[muon]"]).grid
        assert grid.tasks == [replace(task)] and task.asked != task.known.random

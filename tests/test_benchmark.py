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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dist_trainer.benchmark import _note_grid, plan_benchmark
from dist_trainer.benchmark_grid import Grid, load_suite
from dist_trainer.benchmark_page import page
from dist_trainer.benchmark_pictures import pictures
from dist_trainer.benchmark_report import make_report
from dist_trainer.benchmark_results import NO_EPISODE, Result, mean_over_training, read_result
from dist_trainer.benchmark_text import caveats, markdown
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


def evaluation_of(folder: Path) -> int | None:
    """The process that evaluates a run of this folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"evaluate" in words and any(str(folder).encode() in word for word in words):
                return int(path.parent.name)
    return None


def test_ctrl_c_while_a_run_is_evaluated_is_no_failure(tmp_path: Path) -> None:
    settings = ["envs=[game2048]", "optimizers=[muon]", "budget=0.0001", "workers=1"]
    first = subprocess.Popen(command(tmp_path, *settings), stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 120
    while not (evaluation := evaluation_of(tmp_path)) and time.monotonic() < until:
        time.sleep(0.02)
    assert evaluation and os.getpgid(evaluation) != os.getpgid(first.pid), "a terminal's Ctrl-C does not reach it"
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 3 and not list(tmp_path.glob("runs/*/*/*/failed.json"))
    assert not evaluation_of(tmp_path)
    again = subprocess.run(command(tmp_path, *settings), capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0 and "game2048, muon, seed 1: done" in again.stdout


def test_runs_without_a_curve_or_without_a_score_are_told(tmp_path: Path) -> None:
    (run,) = plan_benchmark([f"folder={tmp_path}", "envs=[hvac]", "optimizers=[muon]", "seeds=1"]).grid.runs
    run.folder.mkdir(parents=True)
    (run.folder / "score.json").write_text(json.dumps({"means": {"episode_return": -100.0}}))
    result = read_result(run)
    assert result.score == -100 and result.curve_mean == 0 and math.isinf(result.steps_to_score) and not result.failed
    (run.folder / "score.json").write_text(json.dumps({"means": {"episode_return": math.nan}}))
    result = read_result(run)
    assert result.failed == NO_EPISODE and result.normalized == 0
    (run.folder / "score.json").unlink()
    (run.folder / "failed.json").write_text(json.dumps({"attempts": 2, "reason": "killed at once"}))
    assert read_result(run).failed == "killed at once"


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


def test_of_one_seed_nothing_is_sure(tmp_path: Path) -> None:
    settings = ["optimizers=[muon,adamw]", "envs=[cartpole,tmaze]", "seeds=1", f"folder={tmp_path}"]
    grid = plan_benchmark(settings).grid
    report = make_report(grid, made_up(grid, {"muon": 0.9, "adamw": 0.4}), "final")
    text = markdown(report)
    assert "(1 seed)" in text and "One seed: no interval can be told" in text
    assert "| muon |  | 1.00 |" in text and "*" not in text and "nan" not in text
    assert "nan" not in page(report, pictures(report)).partition("base64")[0]
    bare = [replace(r, curve=None, steps_to_score=math.inf, seconds_to_score=math.inf) for r in report.results]
    without = make_report(grid, bare, "final")
    assert len(pictures(without)) == 2 and "nan" not in markdown(without), "no episode ended in the training"


def test_runs_of_several_versions_of_the_code_are_told(tmp_path: Path) -> None:
    grid = plan_benchmark(["optimizers=[muon]", "envs=[cartpole]", "seeds=2", f"folder={tmp_path}"]).grid
    results = made_up(grid, {"muon": 1.0})
    for commit, run in zip(("a" * 40, "b" * 40), grid.runs, strict=True):
        folder = run.folder / "train/provenance/start"
        folder.mkdir(parents=True)
        (folder / "git_commit.txt").write_text(f"{commit}\n")
    assert "of 2 versions of the code, which may differ: aaaaaaaaaa, bbbbbbbbbb." in markdown(
        make_report(grid, results, "final")
    )
    assert "versions of the code" not in markdown(make_report(grid, results[:1], "final"))


def test_a_run_that_diverged_never_gets_there(tmp_path: Path) -> None:
    """It is no run that was not watched for longer: of five, of which three diverge at once, half never get there."""
    grid = plan_benchmark(["optimizers=[muon]", "envs=[cartpole]", "seeds=5", f"folder={tmp_path}"]).grid
    results = made_up(grid, {"muon": 1.0})
    for index in range(3):
        short = RunCurve(Path(), {}, "episode_return", np.array([10]), np.array([1.0]), np.array([20.0]))
        results[index] = replace(
            results[index], curve=short, steps_to_score=math.inf, seconds_to_score=math.inf, failed="diverged"
        )
    (standing,) = make_report(grid, results, "final").parts[0].tasks
    assert standing.reached == 2 and math.isinf(standing.median_steps) and math.isinf(standing.median_seconds)


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
    ("costs", "told"),
    [
        (["20 trials, 100 steps", "20 trials, 90 steps"], "Tuning had as many trials for each"),
        (["20 trials, 100 steps", "40 trials, 100 steps"], "UNEQUAL numbers of trials: muon tuned 20 trials, 100"),
        (["20 trials, 100 steps", ""], "not known of all, .*adamw tuned unknown"),
    ],
)
def test_what_tuning_has_cost_is_told(costs: list[str], told: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.yaml" for name in ("muon", "adamw")}
    for file, cost in zip(files.values(), costs, strict=True):
        file.write_text((f"# Search: {cost}, 7 s\n" if cost else "") + "ppo: {gamma: 0.98}\n")
    tuned = ",".join(f"{name}:{file}" for name, file in files.items())
    grid = plan_benchmark(["optimizers=[muon]", "envs=[cartpole]", f"tuned={{{tuned}}}"]).grid
    assert any(re.search(told, line) for line in caveats(make_report(grid, [], "final")))


def test_a_suite_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "mine.yaml").write_text("tmaze: {steps: 1000}\n")
    monkeypatch.setenv("DIST_TRAINER_CONFIGS", str(tmp_path))
    (task,) = plan_benchmark(["optimizers=[muon]", "suite=mine", "budget=0.5"]).grid.tasks
    assert (task.env, task.steps) == ("tmaze", 500)
    with pytest.raises(ConfigError, match=r"suite=mein: .*did you mean mine"):
        plan_benchmark(["optimizers=[muon]", "suite=mein"])


def test_what_a_sweep_has_found_can_be_compared(tmp_path: Path) -> None:
    """Its file names the groups' files too: the environment is the run's own, the optimizer must be the same."""
    content = {
        "defaults": [
            {"override /env": "breakout"},
            {"override /policy": "mlp"},
            {"override /optimizer": "muon"},
            "_self_",
        ],
        "optimizer": {"lr": 0.03},
        "precision": "bfloat16",
    }
    file = tmp_path / "a, best.yaml"
    file.write_text("# @package _global_\n" + yaml.safe_dump(content))
    chosen = ["optimizers=[muon]", "envs=[cartpole]"]
    (tuned,) = plan_benchmark([*chosen, f"tuned={{muon:'{file}'}}"]).grid.part("tuned")
    assert tuned.settings == ("optimizer=muon", "policy='mlp'", "optimizer.lr=0.03", "precision='bfloat16'")
    with pytest.raises(ConfigError, match=r"tuned\.adamw=.* holds settings of another optimizer"):
        plan_benchmark([*chosen, f"tuned={{adamw:'{file}'}}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("envs=null", "envs=None: must be all, or a list"),
        ("envs=5", "envs=5: must be all, or a list"),
        ("budget=inf", "budget=inf: must be above 0"),
        ("folder=", "folder=: must not be empty"),
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


def test_a_folder_keeps_to_its_tuned_settings_and_takes_more_contestants(tmp_path: Path) -> None:
    file, folder = tmp_path / "best.yaml", tmp_path / "bench"
    file.write_text("optimizer: {lr: 0.03}")
    chosen = [f"folder={folder}", "envs=[cartpole]"]
    _note_grid(plan_benchmark([*chosen, "optimizers=[muon]", f"tuned={{muon:{file}}}"]), folder)
    _note_grid(plan_benchmark([*chosen, "optimizers=[adamw,muon]"]), folder)
    file.write_text("optimizer: {lr: 0.04}")
    with pytest.raises(ConfigError, match=r"muon tuned=.*lr=0\.04.* holds runs with .*lr=0\.03.*; use another folder"):
        _note_grid(plan_benchmark([*chosen, "optimizers=[muon]", f"tuned={{muon:{file}}}"]), folder)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"folder=.*file.*: cannot be written: "):
        _note_grid(plan_benchmark(["envs=[cartpole]"]), tmp_path / "file" / "bench")


def test_every_environment_of_the_suite_is_one_that_trains() -> None:
    for env, task in load_suite("cpu").items():
        grid = plan_benchmark([f"envs=[{env}]", "optimizers=[muon]"]).grid
        assert grid.tasks == [replace(task)] and task.asked != task.known.random

"""The verb `compare`, on runs whose curves are known: written as TensorBoard events by hand."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dist_trainer.compare import cells, compare, plan_compare, rows_of, run_compare
from dist_trainer.errors import ConfigError
from dist_trainer.metrics import EventWriter
from dist_trainer.verb_configs import CompareConfig

BASE: dict[str, Any] = {
    "env": {"name": "cartpole", "params": {"max_steps": 500}},
    "optimizer": {"_target_": "heavyball.MuonAdamW", "lr": 0.01, "momentum": 0.9},
    "policy": {"_target_": "dist_trainer.policies.recurrent.RecurrentPolicy", "hidden_size": 64},
    "ppo": {"gamma": 0.99},
    "seed": 1,
    "run_dir": "x",
    "torch_threads": 1,
}


def make_run(folder: Path, points: list[tuple[int, float, float]], **changes: Any) -> Path:
    """`points`: (step, seconds, value) each."""
    settings: dict[str, Any] = json.loads(json.dumps(BASE))
    for name, value in changes.items():
        *groups, last = name.split("__")
        node = settings
        for group in groups:
            node = node[group]
        node[last] = value
    folder.mkdir(parents=True)
    (folder / "tensorboard").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    add_points(folder, points, None)
    return folder


def add_points(folder: Path, points: list[tuple[int, float, float]], sizes: Mapping[str, int] | None) -> dict[str, int]:
    writer = EventWriter(folder / "tensorboard", sizes)
    for step, seconds, value in points:
        writer.write({"env/episode_return": value, "charts/seconds": seconds, "losses/policy": -value}, step)
    return writer.flush()


def rising(end: float, points: int = 10, every: int = 1000) -> list[tuple[int, float, float]]:
    return [(every * (i + 1), 0.5 * (i + 1), end * (i + 1) / points) for i in range(points)]


def test_runs_of_other_seeds_are_one_group_named_by_what_tells_it_apart(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", rising(100), seed=1, torch_threads=1),
        make_run(tmp_path / "b", rising(200), seed=2, torch_threads=4),
        make_run(tmp_path / "c", rising(300), optimizer__lr=0.03),
        make_run(
            tmp_path / "d", rising(50), optimizer={"_target_": "heavyball.SOAP", "lr": 1e-3, "betas": [0.9, 0.95]}
        ),
    ]
    [comparison] = compare(CompareConfig(score=100), runs)
    assert [group.name for group in comparison.groups] == [
        "optimizer=MuonAdamW optimizer.lr=0.01",
        "optimizer=MuonAdamW optimizer.lr=0.03",
        "optimizer=SOAP",
    ]
    first, second, third = rows_of(comparison)
    assert (first.seeds, first.latest, first.worst, first.best) == (2, 150, 100, 200)
    # 100 is reached at the 10th and the 5th point; 4th; never.
    assert (first.steps, first.seconds, first.reached) == (7500, 3.75, 2)
    assert (second.steps, second.seconds, second.reached) == (4000, 2.0, 1)
    assert (third.steps, third.steps_tried, third.seconds_tried, third.reached) == (None, 10_000, 5.0, 0)
    assert cells(third, True)[-3:] == ["> 10k", "> 0:05", "0 of 1"]


def test_a_seed_that_never_gets_there_is_not_dropped(tmp_path: Path) -> None:
    ends = (400.0, 400.0, 10.0)
    runs = [make_run(tmp_path / str(seed), rising(end), seed=seed) for seed, end in enumerate(ends)]
    [comparison] = compare(CompareConfig(score=200), runs)
    [row] = rows_of(comparison)
    assert (row.steps, row.reached) == (5000, 2)  # the median of 5000, 5000 and infinity
    [comparison] = compare(CompareConfig(score=200), runs[1:])
    assert rows_of(comparison)[0].steps is None  # of 5000 and infinity
    assert comparison.groups[0].name == "1"  # nothing tells it apart: the first run's name


def test_bands_are_between_the_worst_and_the_best_seed_as_far_as_all_go(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", [(100, 1, 0.0), (300, 3, 20.0), (500, 5, 40.0)], seed=1),
        make_run(tmp_path / "b", [(200, 1, 30.0), (400, 2, 10.0)], seed=2),
    ]
    [comparison] = compare(CompareConfig(), runs)
    band = comparison.groups[0].band("steps")
    assert band.x.tolist() == [200, 300, 400]
    assert band.low.tolist() == [10, 20, 10] and band.high.tolist() == [30, 20, 30]
    assert band.mean.tolist() == [20, 20, 20]
    assert comparison.groups[0].band("seconds").x.tolist() == [1, 2]


def test_time_in_which_a_run_stood_still_does_not_count(tmp_path: Path) -> None:
    """A killed run: points after its checkpoint are cut off when it goes on, and its clock stands still meanwhile."""
    run = make_run(tmp_path / "a", rising(50, points=5))
    sizes = {path.name: path.stat().st_size for path in (run / "tensorboard").iterdir()}
    add_points(run, [(6000, 99.0, 999.0)], None)  # lost by the kill
    add_points(run, [(6000, 3.0, 60.0), (7000, 3.5, 70.0)], sizes)
    [comparison] = compare(CompareConfig(score=65), [run])
    curve = comparison.groups[0].curves[0]
    assert curve.steps.tolist() == [1000 * i for i in range(1, 8)]
    assert curve.values[-3:].tolist() == [50, 60, 70] and curve.seconds[-1] == 3.5
    assert rows_of(comparison)[0].seconds == 3.5


def test_environments_have_panels_of_their_own_and_known_scores(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", rising(400)), make_run(tmp_path / "b", rising(1), env={"name": "repeat_copy"})]
    cartpole, other = compare(CompareConfig(), runs)
    assert (cartpole.env, other.env) == ("cartpole", "repeat_copy")
    assert cartpole.score == pytest.approx(22.457 + 0.95 * (500 - 22.457))
    assert other.score == pytest.approx(0.2569 + 0.95 * (1 - 0.2569))
    mine = compare(CompareConfig(), [make_run(tmp_path / "c", rising(1), env={"name": "mine"})])[0]
    assert mine.metric == "episode_return" and mine.score is None
    assert cells(rows_of(mine)[0], False)[-3:] == ["", "", ""]


def test_any_tag_can_be_compared(tmp_path: Path) -> None:
    [comparison] = compare(CompareConfig(metric="losses/policy"), [make_run(tmp_path / "a", rising(10))])
    assert comparison.groups[0].final() == [-10] and comparison.score is None


def test_the_command(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / "runs" / str(seed), rising(480 + seed), seed=seed)) for seed in range(3)]
    runs.append(str(make_run(tmp_path / "runs" / "other", rising(120), ppo__gamma=0.9)))
    command = [sys.executable, "-m", "dist_trainer", "compare", *runs, "score=240", "csv=all.csv", "json=table.json"]
    done = subprocess.run([*command, "markdown=table.md"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ppo.gamma=0.99" in done.stdout and "3 of 3" in done.stdout and "> 10k" in done.stdout
    assert "| ppo.gamma=0.9 | 1 | 120 | 120 - 120 | > 10k | > 0:05 | 0 of 1 |" in (tmp_path / "table.md").read_text()
    [env] = json.loads((tmp_path / "table.json").read_text())
    assert [group["reached"] for group in env["groups"]] == [3, 0]
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 4 * 10
    picture = np.asarray(Image.open(tmp_path / "compare.png").convert("RGB"))
    assert picture.shape[0] > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_mistakes_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", rising(1))
    (tmp_path / "none").mkdir()
    wrong = {
        "RUN=: is required": [],
        "no such setting": [str(run), "metrc=x"],
        "x=y: valid: seconds, steps": [str(run), "x=y"],
        r"output=.*must end with \.png": [str(run), f"output={tmp_path}/a.txt"],
        "score=nan: must be a number": [str(run), "score=nan"],
    }
    for message, arguments in wrong.items():
        with pytest.raises(ConfigError, match=message):
            plan_compare(arguments)
    for message, config, folder in (
        ("is not one: it has no config.yaml", CompareConfig(), tmp_path / "none"),
        ("metric=episode_retrn: .* did you mean episode_return", CompareConfig(metric="episode_retrn"), run),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(config, [folder])
    (run / "config.yaml").write_text("a: &a [1]\nb: *a\n")
    with pytest.raises(ConfigError, match="aliases"):
        compare(CompareConfig(), [run])
    with pytest.raises(ConfigError, match="csv=/dev/full: cannot be written: No space left"):
        run_compare(CompareConfig(csv="/dev/full", output=None), [make_run(tmp_path / "b", rising(1))])
    assert plan_compare([str(run), "output=null"])[0].output is None
    fresh = make_run(tmp_path / "fresh", [])
    with pytest.raises(ConfigError, match="it has no curves yet"):
        compare(CompareConfig(), [fresh])

"""evaluate, watch, play and record as commands, on the checkpoint of a run with two agents."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from dist_trainer.config import ViewConfig
from dist_trainer.errors import ConfigError
from dist_trainer.open_session import open_session
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.plan_trained import as_told_now
from dist_trainer.plan_view import plan_play, plan_record, plan_watch
from dist_trainer.record import pictures, run_record

SMALL = [
    "env=connect4",
    "total_envs=16",
    "ppo.minibatches=16",
    "horizon=8",
    "total_env_steps=100",
    "policy.hidden_size=16",
    "device=cpu",
]
ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}


def command(*arguments: str) -> str:
    """Its output. Raises CalledProcessError."""
    words = [sys.executable, "-m", "dist_trainer", *arguments]
    done = subprocess.run(words, env=ONE_CORE, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watching") / "run"
    command("train", *SMALL, f"run_dir={folder}")
    return folder


def test_evaluate_against_opponents(run_dir: Path, tmp_path: Path) -> None:
    """Trained as two agents, measured as one against alpha-beta of several depths, by points that add up."""
    file = tmp_path / "score.json"
    settings = [f"checkpoint={run_dir}", "episodes=20", f"json={file}", "device=cpu"]
    told = command("evaluate", *settings)
    score = json.loads(file.read_text())
    assert score["episodes"] == 40 and score["unfinished"] == 0 and score["means"]["points"] == 0.5
    assert list(score["opponents"]) == [f"opponent={depth}" for depth in (1, 2, 4, 6)]
    for name, other in score["opponents"].items():
        means = other["means"]
        low, high = other["intervals"]["points"]
        assert other["episodes"] == 20 and low <= means["points"] <= high and name in told
        assert means["episode_return"] == pytest.approx(2 * means["points"] - 1)
        assert means["points"] < 0.5  # a policy that has learned nothing, against a search
    alone = plan_evaluate([*settings, "env.params.opponent=2"])
    assert not alone.config.opponents and alone.trained.env.params["opponent"] == 2
    assert plan_evaluate([*settings, "opponents=false"]).config.opponents is False


def test_watch_and_play_as_commands(run_dir: Path) -> None:
    command("watch", f"checkpoint={run_dir}", "steps=12", "fps=200")
    command("play", "env=snake", "env.params.agents=3", "steps=5", "fps=200")


def frames_of(file: Path) -> tuple[Any, float]:
    """(pictures, height, width, 3), and pictures per second."""
    if file.suffix == ".gif":
        return imageio.imread(file, index=None), 1000 / imageio.immeta(file)["duration"]
    return imageio.imread(file, plugin="FFMPEG"), imageio.immeta(file, plugin="FFMPEG")["fps"]


@pytest.mark.parametrize(
    ("name", "settings", "size", "fps"),
    [
        ("a.gif", [], (300, 310), 2),  # as configs/env/connect4.yaml says
        ("a.gif", ["fps=25", "scale=2", "greedy=true"], (600, 620), 25),
        ("a.gif", ["fps=100"], (300, 310), 50),  # every second one: no GIF is faster
        ("a.mp4", ["fps=20", "env.params.opponent=3"], (300, 310), 20),
        ("a.mp4", ["fps=20", "overlay=true"], (560, 640), 20),
    ],
)
def test_record(
    run_dir: Path, tmp_path: Path, name: str, settings: Sequence[str], size: tuple[int, int], fps: float
) -> None:
    file = tmp_path / name
    config, plan = plan_record([f"checkpoint={run_dir}", f"output={file}", "episodes=2", *settings])
    expected = list(pictures(open_session(plan, config), config))
    assert run_record(config, plan) == 0
    frames, rate = frames_of(file)
    every = 2 if fps == 50 else 1
    assert frames.shape[1:3] == size and rate == pytest.approx(fps)
    assert abs(len(frames) - len(expected[::every])) <= (1 if name.endswith("mp4") else 0)
    for index in (0, len(frames) // 2, len(frames) - 2):
        difference = np.abs(frames[index][..., :3].astype(int) - expected[index * every])
        assert difference.mean() < 4, index  # few colours, or compressed
    assert not (expected[0] == expected[-1]).all()


def test_record_ends_after_so_many_steps(run_dir: Path, tmp_path: Path) -> None:
    output = f"output={tmp_path / 'a.gif'}"
    config, plan = plan_record([f"checkpoint={run_dir}", output, "episodes=100", "steps=7"])
    assert len(list(pictures(open_session(plan, config), config))) == 8


def refused(plan: Any, *arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(arguments)
    return str(caught.value)


def test_what_cannot_be_shown(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = f"checkpoint={run_dir}"
    assert refused(plan_watch, "checkpoint=none").startswith("checkpoint=none: ")
    assert "must be above 0" in refused(plan_watch, run, "fps=0")
    assert "from 0 to" in refused(plan_watch, run, "show=-1")
    assert "the checkpoint says which environment" in refused(plan_watch, run, "env.name=pong")
    assert "did you mean greedy" in refused(plan_watch, run, "gredy=true")
    assert refused(plan_watch, run, "env.view.idle=9").startswith("env.view.idle=9: must be a choice, 0 to 7")
    assert refused(plan_watch, run, "env.view.planes=[7,99]").startswith("env.view.planes=")
    assert refused(plan_play).startswith("env=: is required")
    assert "has no picture" in refused(plan_play, "env=probe_masks")
    assert "must end with .gif or .mp4" in refused(plan_record, run, f"output={tmp_path / 'a.avi'}")
    assert "cannot be written" in refused(plan_record, run, f"output={tmp_path / 'none' / 'a.gif'}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'dist_trainer[watch]'" in refused(plan_watch, run)
    assert "needs imageio and imageio_ffmpeg" in refused(plan_record, run, f"output={tmp_path / 'a.mp4'}")


def test_how_fast_and_by_whom(run_dir: Path) -> None:
    run = f"checkpoint={run_dir}"
    assert plan_watch([run])[1].fps == 2 and plan_watch([run, "fps=7"])[1].fps == 7
    assert plan_watch([run, "env.view.fps=3"])[1].fps == 3
    assert plan_play(["env=cartpole"])[1].fps == pytest.approx(50) and plan_play(["env=maze"])[1].fps == 8
    always = [plan_play(words)[0].always for words in (["env=pong"], [run], [run, "env.params.opponent=1"])]
    assert always == [True, True, False]  # alone, against another player, beside the agent


def test_a_run_that_says_nothing_is_shown_as_its_environment_is_now(run_dir: Path) -> None:
    """As those are that were made before there were such settings."""
    env = plan_watch([f"checkpoint={run_dir}"])[1].env
    old = replace(env, view=ViewConfig(), opponents={})
    assert as_told_now(old) == env
    own = replace(env, view=ViewConfig(fps=1))
    assert as_told_now(own).view.fps == 1 and as_told_now(replace(old, name="own_walk")).view == ViewConfig()

"""A run folder from a stranger runs no code, and a folder of ours is not for everybody to write.

What else could run code, a checkpoint, is loaded with weights_only (tests/test_checkpoint_file.py).
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.errors import ConfigError
from dist_trainer.plan import plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.run_folder import write_run
from tests.checkpoint_files import write_checkpoint

SMALL = ["env=cartpole", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16", "horizon=8"]
SMALL += ["ppo.minibatches=4", "policy.hidden_size=8", "total_env_steps=128", "normalize.warmup_steps=0"]
RUN_DIR = "run"  # in the present folder
COMMANDS: list[Callable[[], object]] = [
    lambda: plan_evaluate([f"checkpoint={RUN_DIR}"]),
    lambda: plan_train([f"resume={RUN_DIR}"], 1),
    lambda: plan_train([*SMALL, "resume=auto", f"run_dir={RUN_DIR}"], 1),
]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a run folder with a checkpoint."""
    monkeypatch.chdir(tmp_path)
    run_dir = Path(RUN_DIR)
    write_run(plan_train(SMALL, 1).config, run_dir, None)
    write_checkpoint(checkpoint_path(run_dir, 1), b"x")
    return run_dir / "config.yaml"


def replace_target(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def test_a_folder_of_ours_goes_on(config: Path) -> None:
    for plan in COMMANDS:
        plan()


@pytest.mark.parametrize(
    ("old", "new", "group"),
    [
        ("dist_trainer.policies.recurrent.RecurrentPolicy", "os.system", "policy"),
        ("heavyball.MuonAdamW", "subprocess.Popen", "optimizer"),
        ("torch.optim.AdamW", "torch.hub.load", "optimizer"),  # in a group of parameters
        ("heavyball.MuonAdamW", "heavyball_.Muon", "optimizer"),
    ],
)
def test_a_class_from_elsewhere_is_refused(config: Path, old: str, new: str, group: str) -> None:
    replace_target(config, old, new)
    told = rf"{group}\._target_={re.escape(new)}: .*DIST_TRAINER_TRUST={new.split('.')[0]}"
    for plan in COMMANDS:
        with pytest.raises(ConfigError, match=told):
            plan()


def test_what_is_trusted_by_name_is_taken(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_target(config, "dist_trainer.policies.recurrent.RecurrentPolicy", "fractions.Fraction")
    monkeypatch.setenv("DIST_TRAINER_TRUST", "numbers,fractions")
    assert plan_train([f"resume={RUN_DIR}"], 1).config.policy["_target_"] == "fractions.Fraction"


def test_who_gives_the_same_command_again_has_named_the_class(config: Path) -> None:
    replace_target(config, "dist_trainer.policies.recurrent.RecurrentPolicy", "fractions.Fraction")
    own = ["policy._target_=fractions.Fraction", "resume=auto", f"run_dir={RUN_DIR}"]
    assert plan_train([*SMALL, *own], 1).config.policy["_target_"] == "fractions.Fraction"


@pytest.mark.parametrize("path", ["dist_trainer.run_folder.write_provenance", "dist_trainer.plan.Path"])
def test_what_is_no_policy_is_not_called(config: Path, path: str) -> None:
    """Though it is of our own package."""
    replace_target(config, "dist_trainer.policies.recurrent.RecurrentPolicy", path)
    command = [sys.executable, "-m", "dist_trainer", "train", f"resume={RUN_DIR}"]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    wanted = f"dist_trainer: policy._target_={path}: must be a dist_trainer.policies.Policy\n"
    assert (done.returncode, done.stderr) == (2, wanted)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [touch harm]",
        "env: {name: !!python/object/apply:os.system [touch harm]}",
        "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]",
        "seed: [" + "1, " * 600_000 + "]",
        "seed: [",
        "\0",
    ],
    ids=["tag", "inner tag", "aliases", "large", "broken", "no text"],
)
def test_yaml_that_is_not_plain_is_refused_in_one_line(config: Path, text: str) -> None:
    config.write_text(text)
    for plan in COMMANDS:
        with pytest.raises(ConfigError, match=r"run folder=run/config\.yaml: "):
            plan()
    assert not Path("harm").exists()


def test_nothing_of_a_run_is_for_everybody_to_write(tmp_path: Path) -> None:
    """Whatever the umask is; of what it denies, nothing is allowed."""
    for umask in (0o000, 0o077):
        run_dir = tmp_path / f"umask {umask}"
        command = [sys.executable, "-m", "dist_trainer", "train", *SMALL, f"run_dir={run_dir}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, timeout=60, umask=umask, env=environment)
        paths = [run_dir, *run_dir.rglob("*")]
        assert {"config.yaml", ".lock", "tensorboard"} <= {path.name for path in paths}
        for path in paths:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert not mode & (umask | stat.S_IWOTH), f"{path}: {mode:o}"
            assert mode & stat.S_IRUSR

"""Yaml files in folders of users' own: `--config-dir` and DIST_TRAINER_CONFIGS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dist_trainer.config_files import CONFIGS, config_dir, group_choices, take_config_dirs
from dist_trainer.errors import ConfigError
from dist_trainer.plan import plan_train

SMALL = ["total_envs=16", "ppo.minibatches=4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an environment and an optimizer; its name is what Hydra's grammar would trip over."""
    own = tmp_path / "it's, a (folder) = $1"
    for group, name, template in (("env", "my_pole", "cartpole"), ("optimizer", "my_adam", "adamw")):
        (own / group).mkdir(parents=True)
        text = (config_dir() / group / f"{template}.yaml").read_text()
        (own / group / f"{name}.yaml").write_text(text.replace("params: {}", "params: {max_steps: 77}"))
    return own


def test_a_command_finds_them(folder: Path) -> None:
    command = [sys.executable, "-m", "dist_trainer", "train", "--config-dir", str(folder), "--cfg", "job", *SMALL]
    done = subprocess.run(
        [*command, "env=my_pole", "optimizer=my_adam"], check=True, capture_output=True, text=True, timeout=60
    )
    job = yaml.safe_load(done.stdout)
    assert job["env"]["params"] == {"max_steps": 77} and "AdamW" in job["optimizer"]["_target_"]
    refused = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {CONFIGS: "/nowhere"}
    )
    assert refused.returncode == 2 and "--config-dir=/nowhere: must be a folder" in refused.stderr


def test_the_variable_names_several(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other" / "env"
    other.mkdir(parents=True)
    (other / "my_other.yaml").write_text("name: tmaze\nparams: {corridor: 3}\n")
    monkeypatch.setenv(CONFIGS, f"{folder}:{other.parent}")
    assert {"my_pole", "my_other", "cartpole"} <= set(group_choices("env"))
    assert plan_train([*SMALL, "env=my_other"], 1).config.env.params == {"corridor": 3}
    with pytest.raises(ConfigError, match="did you mean my_other"):
        plan_train([*SMALL, "env=my_othr"], 1)


def test_a_name_that_is_taken_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIGS, str(folder))
    (folder / "env" / "tmaze.yaml").write_text("name: tmaze\n")
    with pytest.raises(ConfigError, match=r"env=tmaze: is both .*tmaze\.yaml; rename one"):
        plan_train([*SMALL, "env=my_pole"], 1)


def test_the_option_takes_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIGS, "/first")
    assert take_config_dirs(["a=1", "--config-dir", "/x", "b=2", "--config-dir=/y"]) == ["a=1", "b=2"]
    assert os.environ[CONFIGS] == "/y:/x:/first"
    with pytest.raises(ConfigError, match="must be followed by a folder"):
        take_config_dirs(["--config-dir"])

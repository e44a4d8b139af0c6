"""`python -m dist_trainer.envs`: every environment with its scores, readable on narrow and wide terminals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dist_trainer.config_files import config_dir, group_choices
from dist_trainer.env_list import solved_means
from dist_trainer.scores import load_scores

SCORED = sorted(load_scores())


def listing(columns: int, *arguments: str, module: tuple[str, ...] = ("dist_trainer.envs",)) -> str:
    command = [sys.executable, "-m", *module, *arguments]
    environment = os.environ | {"COLUMNS": str(columns)}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment).stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_every_environment_and_its_scores_are_listed(columns: int) -> None:
    text = listing(columns)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    first_words = [line.split()[0] for line in lines if line.strip()]
    assert [word for word in first_words if word in SCORED] == SCORED
    assert all(name in text for name in group_choices("env"))
    [cartpole] = [line for line in lines if line.startswith(" cartpole ")]
    words = [word for word in cartpole.split() if word not in ("float", "floats", "choices")]
    assert words[:3] == ["cartpole", "4", "2"]
    assert ("return" in cartpole.split()) == (columns == 120)
    assert {"500", f"{load_scores()['cartpole'].random:.3g}"} <= set(cartpole.split())


def test_a_folder_of_ones_own_is_listed_and_the_verb_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    text = (config_dir() / "env" / "tmaze.yaml").read_text()
    (tmp_path / "env" / "my_maze.yaml").write_text(text.replace("solved at 95 %", "solved at 97 %"))
    with_own = listing(120, "--config-dir", str(tmp_path))
    assert listing(120, "envs", f"--config-dir={tmp_path}", module=("dist_trainer",)) == with_own
    [mine] = [line for line in with_own.splitlines() if line.startswith(" my_maze ")]
    assert "97 %" in mine
    assert "my_maze" not in listing(120)


@pytest.mark.parametrize(
    ("comment", "means"),
    [
        ("A pole. 4 floats; solved at a mean return of 475 of 500.", "a mean return of 475 of 500"),
        ("Solved: cost <= 1.03 x the closed form. More.", "cost <= 1.03 x the closed form"),
        ("x. Solved means 90 % of seeds; chance 1 %", "90 % of seeds"),
        ("Nothing is said", ""),
    ],
)
def test_what_solved_means_is_read_from_the_comment(comment: str, means: str) -> None:
    assert solved_means(comment) == means

"""What must hold in the MOBA and the MMO whatever is done, and that the check would see it if it did not.

`tests/cpp/exercise_worlds.cpp` plays; ten million steps of agents are a minute: see benchmarks/LOG.md.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def exercise(sources: Path, program: Path, steps: int) -> subprocess.CompletedProcess[str]:
    """Builds the worlds of a copy of cpp_envs and plays them."""
    folders = ["-I", str(sources), "-I", str(ROOT / "tests" / "cpp")]
    source = str(ROOT / "tests" / "cpp" / "exercise_worlds.cpp")
    build = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", *folders, "-o", str(program), source]
    subprocess.run(build, check=True, timeout=300)
    return subprocess.run([program, str(steps)], capture_output=True, text=True, timeout=300)


def test_invariants_hold(tmp_path: Path) -> None:
    result = exercise(ROOT / "cpp_envs", tmp_path / "worlds", 400_000)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("all invariants held") == 2


# One statement each, broken as a careless edit would.
BREAKS = {
    "moba gold": ("moba_heroes.h", "hero.gold -= paid;", "hero.gold -= paid - 1;", "gold is not what was earned"),
    "mmo trade": ("mmo_world.h", "agent.gold -= price;", "agent.gold -= price - 1;", "gold lost or from nowhere"),
    "mmo places": ("mmo_world.h", "put(other, agent.cell, kAgentCode);", "", "two in one place"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_rule_is_noticed(name: str, tmp_path: Path) -> None:
    file, right, wrong, said = BREAKS[name]
    shutil.copytree(ROOT / "cpp_envs", tmp_path / "cpp_envs")
    broken = tmp_path / "cpp_envs" / "envs" / "parts" / file
    text = broken.read_text()
    assert text.count(right) == 1
    broken.write_text(text.replace(right, wrong))
    result = exercise(tmp_path / "cpp_envs", tmp_path / "worlds", 400_000)
    assert result.returncode == 1 and said in result.stderr

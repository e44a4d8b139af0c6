"""benchmarks/run_gpu.sh on the CPU: every stage runs and says what it should; one that fails is named.

The figures mean nothing here. What they mean on a GPU is in benchmarks/gpu/.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run_gpu.sh"
PHASES = ("rollout", "gradient", "optimizer", "exchange", "other")  # columns of benchmarks/throughput.py
STAGES = ("build", "tests", "limit", "throughput", "optimizers", "profile")
NUMBER = re.compile(r"^-?[\d,]+(\.\d+)?( ?%)?$")


def run(*options: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *options],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""},
    )


def sections(path: Path) -> dict[str, str]:
    """By heading; what comes before the first is the head."""
    parts = re.split(r"^## (.*)$", path.read_text(), flags=re.MULTILINE)
    return {"head": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text: str) -> list[list[list[str]]]:
    """Each with its header, without the line below it; cells stripped."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not set(line) <= set("|- "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return [table for table in found if table]


def number(cell: str) -> float:
    assert NUMBER.match(cell), cell
    return float(cell.replace(",", "").rstrip(" %"))


def test_every_stage_runs_on_the_cpu(tmp_path: Path) -> None:
    """Relative to the folder that it was called from; versions and device come first."""
    done = run("--dry-run", "--output", "report.md", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all stages passed" in done.stderr
    found = sections(tmp_path / "report.md")
    assert tuple(found) == ("head", *STAGES)
    assert "dry run" in found["head"]
    facts = {row[0]: row[1] for row in tables(found["head"])[0]}
    assert facts["torch"] == torch.__version__
    assert facts["device"].startswith("cpu")
    assert facts["Python"].startswith(".".join(map(str, sys.version_info[:2])))
    assert "heavyball" in facts["others"]

    (tests,) = tables(found["tests"])
    passed = {row[0]: number(row[1]) for row in tests[1:]}
    assert passed["tests.test_advantage"] > 10
    (limit,) = tables(found["limit"])
    for row in limit[1:]:
        cells = dict(zip(limit[0], row, strict=True))
        acting, learning, both = (number(cells[name]) for name in ("acting, steps/s", "learning", "both"))
        assert math.isclose(1 / both, 1 / acting + 1 / learning, rel_tol=1e-3)
        assert cells["link, in + out"] == "-"
    (throughput,) = tables(found["throughput"])
    for row in throughput[1:]:
        cells = dict(zip(throughput[0], row, strict=True))
        speed, most, ratio = (number(cells[name]) for name in ("steps/s", "limit", "ratio"))
        assert abs(speed / most - ratio) < 0.006
        assert abs(sum(number(cells[phase]) for phase in PHASES) - 100) < 5
    (optimizers,) = tables(found["optimizers"])
    assert [row[:2] for row in optimizers[1:]] == [
        ["adamw", "all along"],
        ["psgd_kron", "at the start"],
        ["psgd_kron", "in the end"],
    ]
    for row in optimizers[1:]:
        assert all(math.isfinite(number(cell)) for cell in row[2:])
    summary, kernels = tables(found["profile"])
    assert {row[0]: number(row[3]) for row in summary[1:]}["kernels"] > 100
    assert len(kernels) > 10
    assert len(limit) == len(throughput) == 2


def test_a_stage_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    """An environment that does not exist, beside one that does; and what is in the file already stays."""
    report = tmp_path / "report.md"
    assert run("--dry-run", "--stages", "build", "--output", str(report)).returncode == 0
    done = run("--dry-run", "--stages", "limit,build", "--envs", "nosuch,cartpole", "--output", str(report))
    assert done.returncode == 1
    assert "failed: limit" in done.stderr
    text = report.read_text()
    assert text.count("| torch |") == 1  # the head is there once
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## build", "## limit", "## build"]
    limit = sections(report)["limit"]
    assert "**FAILED: limit**" in limit
    assert "nosuch" in limit.partition("```")[2]  # what it complained of
    assert [row[0] for row in tables(limit)[-1]] == ["environment", "cartpole"]


def test_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    """Before anything is run or written."""
    for options, message in (
        (["--stages", "build,nosuch"], "--stages=nosuch: no such stage; valid: build,tests,limit"),
        (["--nosuch"], "--nosuch: no such option"),
        (["--output"], "--output needs a value"),
    ):
        done = run("--dry-run", *options, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
    assert not list(tmp_path.iterdir())

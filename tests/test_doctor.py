"""The doctor names what is wrong and what to do, and its exit status says whether a training would break."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dist_trainer import machine
from dist_trainer.doctor import Link, judge, measure_links
from dist_trainer.machine import OK, SLOW, WRONG, Finding, check_folder, check_machine, cores, cpu_quota
from tests.learners import learners_of_sizes

ROOT = Path(__file__).parents[1]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DIST_TRAINER_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "launch" / "doctor.sh"), "device=cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_a_machine_that_can_train(tmp_path: Path) -> None:
    """With two learners: their link is measured, too. Nothing is left in the folder."""
    done = doctor("--learners=2", f"run_dir={tmp_path / 'runs'}")
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("C++ compiler", "Python", "cores", "memory", "/dev/shm", "open files", "run folder", "torch"):
        assert f" {what}" in done.stdout
    assert "links in a machine    1 pairs: " in done.stdout
    assert "0 wrong" in done.stdout
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_would_break_is_named_and_is_the_exit_status() -> None:
    done = doctor("--learners=1", "run_dir=/proc/runs")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WRONG run folder            /proc/runs: No such file or directory" in done.stdout
    assert "-> name another run_dir" in done.stdout
    assert "1 wrong" in done.stdout


def test_a_python_without_the_module_is_named() -> None:
    environment = os.environ | {"DIST_TRAINER_PYTHON": "/bin/false"}
    command = ["bash", str(ROOT / "launch" / "doctor.sh")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    assert "WRONG Python                /bin/false cannot import dist_trainer" in done.stdout
    assert "launch/setup.sh" in done.stdout


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"job/cpu.max": "150000 100000"}, "0::/job", 1.5),
        ({"job/cpu.max": "max 100000"}, "0::/job", None),
        ({"cpu.max": "200000 100000", "job/cpu.max": "max 100000"}, "0::/job", 2.0),  # of the cgroup above
        (
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/job",
            0.5,
        ),
        ({"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, "4:cpu:/job", None),
        ({}, "0::/job", None),
    ],
)
def test_limits_of_cgroups_are_read(
    tmp_path: Path, files: dict[str, str], membership: str, quota: float | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "cgroup").write_text(membership + "\n")
    assert cpu_quota(tmp_path / "fs", tmp_path / "cgroup") == quota


@pytest.mark.parametrize(
    ("finding", "kind"),
    [
        (cores(8, None, 2), OK),
        (cores(8, 1.5, 2), SLOW),
        (cores(1, None, 2), SLOW),
        (machine.shared_memory(64 << 20, on_cuda=True), WRONG),  # Docker's default
        (machine.shared_memory(64 << 20, on_cuda=False), SLOW),
        (machine.shared_memory(8 << 30, on_cuda=True), OK),
        (machine.open_files(128), WRONG),
        (machine.open_files(1024), SLOW),
        (machine.open_files(resource.RLIM_INFINITY), OK),
        (machine.locked_memory(65536), WRONG),
        (machine.locked_memory(resource.RLIM_INFINITY), OK),
    ],
    ids=str,
)
def test_kinds_of_findings(finding: Finding, kind: str) -> None:
    """What is not well has an advice."""
    assert finding.kind == kind
    assert bool(finding.advice) == (kind != OK)


def test_a_slow_disk_is_named(tmp_path: Path) -> None:
    clock = itertools.count(step=60)  # each look a minute later
    [finding] = check_folder(tmp_path, now=lambda: float(next(clock)))
    assert finding.kind == SLOW and "checkpoint_minutes" in finding.advice
    [finding] = check_folder(tmp_path / "new")
    assert finding.kind == OK


def test_this_machine_can_be_looked_at() -> None:
    assert {finding.what for finding in check_machine(1, False, False)} >= {"cores", "memory", "/dev/shm"}


def test_a_slow_link_is_named() -> None:
    pairs = list(itertools.combinations(range(4), 2))
    links = [Link(pair, False, 1e-4, 0.2e9 if pair == (1, 3) else 10e9) for pair in pairs]
    whole, odd = judge(links, ["a", "b", "c", "d"])
    assert whole.kind == OK and whole.fact.startswith("6 pairs: 0.20 to 10.00 GB/s")
    assert odd.kind == SLOW and odd.fact == "b and d: 0.200 GB/s where 10.00 are usual"


def test_every_pair_is_measured() -> None:
    with learners_of_sizes([3]) as worlds:
        results = worlds[3].run(measure_links, ["one", "one", "two"])
    for links in results:
        assert [(link.ranks, link.inside) for link in links] == [((0, 1), True), ((0, 2), False), ((1, 2), False)]
        assert all(link.bytes_per_s > 1e6 and 0 < link.latency_s < 1 for link in links)

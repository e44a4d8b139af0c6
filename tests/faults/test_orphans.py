"""Learners do not outlive their torchrun, not even those that have only just been started."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.launched import Launched, wait_for

SETTINGS = ["env=cartpole", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16", "total_env_steps=1e9"]


def test_learners_that_were_just_started_end_with_torchrun(tmp_path: Path) -> None:
    """Nobody has told the kernel yet whose end is theirs."""
    with Launched(tmp_path / "log", 2, [*SETTINGS, f"run_dir={tmp_path / 'run'}"]) as launched:
        wait_for(lambda: launched.learner(0) is not None and launched.learner(1) is not None, 60, "the learners' start")
        assert not (tmp_path / "run").exists()
        launched.kill_torchrun()
        began = time.monotonic()
        launched.wait_until_gone()
        assert time.monotonic() - began < 30  # to import what comes before main; not until a deadline of the store's
    assert not (tmp_path / "run").exists()

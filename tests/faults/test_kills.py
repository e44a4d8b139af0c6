"""The short form of tests/faults/kills.py: a learner, torchrun, and the other learner are killed in one run."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.kills import trial


def test_killed_run_ends_as_the_whole_one(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    trial(tmp_path, 2, [1, None, 0], random.Random(seed))

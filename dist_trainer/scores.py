"""What a random and a reference player score in each environment: package data, written by benchmarks/env_scores.py."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

SCORES_FILE = Path(__file__).with_name("env_scores.json")


@dataclass(frozen=True)
class EnvScore:
    """Means over episodes of one metric, and their standard errors."""

    metric: str  # episode_return, or one of the environment's own
    random: float  # uniform among the legal actions
    random_error: float
    reference: float
    reference_error: float
    player: str  # who the reference is

    def normalized(self, value: float) -> float:
        """0 for the random player, 1 for the reference."""
        return (value - self.random) / (self.reference - self.random)


def load_scores(file: Path = SCORES_FILE) -> dict[str, EnvScore]:
    """By the name of the environment's yaml."""
    return {name: EnvScore(**entry) for name, entry in json.loads(file.read_text()).items()}


def write_scores(scores: dict[str, EnvScore], file: Path = SCORES_FILE) -> None:
    """Sorted by name, an entry of many lines each, so that changes to different environments merge."""
    file.write_text(json.dumps({name: asdict(scores[name]) for name in sorted(scores)}, indent=2) + "\n")

"""The learning rate over the whole global run, whatever the number of learners."""

from __future__ import annotations

import math

from dist_trainer.config import ScheduleConfig


def schedule_factor(config: ScheduleConfig, progress: float) -> float:
    """The factor on the base rate at `progress`, from 0 (start) to 1 (end of the run)."""
    if progress < config.warmup:
        return progress / config.warmup
    rest = (progress - config.warmup) / (1 - config.warmup) if config.warmup < 1 else 0.0
    if config.kind == "constant":
        return 1.0
    shape = 1 - rest if config.kind == "linear" else 0.5 * (1 + math.cos(math.pi * rest))
    return config.final + (1 - config.final) * shape

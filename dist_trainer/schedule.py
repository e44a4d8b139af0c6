"""The learning rate over the whole global run, for any number of learners: by a schedule, by the KL divergence."""

from __future__ import annotations

import math

from dist_trainer.config import AdaptiveRateConfig, ScheduleConfig


def schedule_factor(config: ScheduleConfig, progress: float) -> float:
    """The factor on the base rate at `progress`, from 0 (start) to 1 (end of the run)."""
    if progress < config.warmup:
        return max(progress / config.warmup, 1e-6)  # not 0: schedule-free averaging would divide 0 by 0
    rest = (progress - config.warmup) / (1 - config.warmup) if config.warmup < 1 else 0.0
    if config.kind == "constant":
        return 1.0
    shape = 1 - rest if config.kind == "linear" else 0.5 * (1 + math.cos(math.pi * rest))
    return config.final + (1 - config.final) * shape


def adapt_rate(factor: float, kl: float, config: AdaptiveRateConfig) -> float:
    """The factor on the rate for the next iteration, after one whose mean KL divergence was `kl`.

    The rule of rl_games 1.6 (`AdaptiveScheduler`) and RSL-RL. `kl` is the mean over the minibatches of an update, each
    before its own optimizer step: about half of what the whole update changed. Not a number: the update was undone.
    """
    if config.target_kl is None:
        return factor
    if math.isnan(kl) or kl > 2 * config.target_kl:
        factor /= config.step
    elif kl < config.target_kl / 2:
        factor *= config.step
    return min(max(factor, config.smallest), config.largest)

"""Which profiles a run can make."""

from __future__ import annotations

from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError

MOST_ITERATIONS = 100


def validate_profile(config: TrainConfig) -> None:
    """Raises ConfigError."""
    count, after, there_are = config.profile_iterations, config.profile_after, config.iterations
    if not 1 <= count <= MOST_ITERATIONS:
        most = f"must be from 1 to {MOST_ITERATIONS}: no viewer opens a trace of more"
        raise ConfigError("profile_iterations", count, most)
    if after < 0:
        raise ConfigError("profile_after", after, "must be at least 0")
    if not config.profile:
        for name in ("profile_iterations", "profile_after"):
            if getattr(config, name) != getattr(TrainConfig, name):
                raise ConfigError(name, getattr(config, name), "acts only with profile=true")
    elif count > there_are:
        raise ConfigError("profile_iterations", count, f"the run has {there_are} iterations; must be at most that")
    elif after + count > there_are:
        valid = f"must be at most {there_are - count}: {count} of the run's {there_are} iterations are to be traced"
        raise ConfigError("profile_after", after, valid)

"""Which self-play a run can make."""

from __future__ import annotations

from dist_trainer.config import SelfPlayConfig, TrainConfig
from dist_trainer.errors import ConfigError


def validate_self_play(config: TrainConfig) -> None:
    """What can be said without the environment. Raises ConfigError."""
    play = config.self_play
    if not 0 <= play.past <= 1:
        raise ConfigError("self_play.past", play.past, "must be from 0 to 1")
    for name, least in (("every", 1), ("keep", 2), ("hold", 1)):
        value = getattr(play, name)
        if value < least:
            raise ConfigError(f"self_play.{name}", value, f"must be at least {least}")
        if not play.past and value != getattr(SelfPlayConfig, name):
            raise ConfigError(f"self_play.{name}", value, "acts only with self_play.past above 0")
    if play.past and config.overlap:
        raise ConfigError("self_play.past", play.past, "must be 0 with overlap=true: opponents change between rollouts")

"""What a checkpoint has learned: the policy and the statistics of what it has seen."""

from __future__ import annotations

from pathlib import Path

import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.config import TrainConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError
from dist_trainer.learner import make_observation_normalizer, make_policy
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy


def choose_device(name: str) -> torch.device:
    """`name`: auto | cpu | cuda. Raises ConfigError if there is no GPU for the last."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", name, "there is no GPU here; device=cpu works")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda", 0) if cuda else torch.device("cpu")


def load_policy(
    trained: TrainConfig, spec: EnvSpec, checkpoint: Path, device: torch.device
) -> tuple[Policy, ObservationNormalizer]:
    """`trained`: the configuration of the run, `spec`: of the environment to play in. Raises ConfigError if the
    checkpoint is damaged."""
    saved = load_file(checkpoint)
    policy = make_policy(trained, spec, device)
    policy.load_state_dict(saved["policy"])
    normalizer = make_observation_normalizer(trained, spec, device)
    normalizer.load_state_dict(saved["observation_normalizer"])
    return policy, normalizer

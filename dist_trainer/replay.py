"""How the policy of a run plays now: pictures of one environment that belongs to nobody's training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.player import Player
from dist_trainer.policies import Policy

MOST_PIXELS = 20e6  # of all pictures together: a second or two, and a megabyte


def play(
    env: EnvConfig, policy: Policy, normalizer: ObservationNormalizer, *, seed: int, steps: int
) -> list[NDArray[np.uint8]]:
    """(height, width, 3) each: at most `steps` + 1. The environment must be one that draws pictures.

    Raises what the environment's pool does if a step fails.
    """
    pool = EnvPool(env, num_envs=1, first_env=0, seed=seed, threads=1)
    assert pool.spec.picture is not None
    steps = min(steps, int(MOST_PIXELS / math.prod(pool.spec.picture)))
    pool.reset()
    player = Player(policy, normalizer, pool)
    pictures = [pool.render(0)]
    for _ in range(steps):
        player.step()
        pictures.append(pool.render(0))
    return pictures

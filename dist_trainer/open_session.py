"""A session of what a command asks for."""

from __future__ import annotations

import torch

from dist_trainer.envs import EnvPool, env_spec
from dist_trainer.plan_view import ViewPlan
from dist_trainer.player import Player
from dist_trainer.session import Session
from dist_trainer.trained import choose_device, load_policy
from dist_trainer.verb_configs import PlayConfig, RecordConfig, WatchConfig


def open_session(plan: ViewPlan, config: WatchConfig | PlayConfig | RecordConfig, always: bool = False) -> Session:
    """Raises ConfigError if the checkpoint is damaged."""
    torch.set_num_threads(1)  # for one environment
    make_player = None
    if plan.trained is not None:
        trained, device = plan.trained, choose_device(config.device)
        learned = load_policy(trained.config, env_spec(plan.env), trained.checkpoint, device)

        def make_player(pool: EnvPool) -> Player:
            return Player(*learned, pool)

    return Session(plan.env, make_player, seed=config.seed, show=config.show, greedy=config.greedy, always=always)

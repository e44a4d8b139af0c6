"""A batch that grows with the number of learners: an explicit choice, for it makes another training run.

By default nothing here changes anything: the global batch, the minibatches and the learning rate are the same for any
number of learners. How far a larger batch helps is bounded by the gradient's noise scale (McCandlish et al., arXiv
1812.06162), which `diagnostics/noise_scale` estimates. The rules for the rate are those that are derived for Adam
(Malladi et al., arXiv 2205.10287: the square root) and for SGD (Goyal et al., arXiv 1706.02677: linear); none is known
for Muon, SOAP or PSGD, so that `constant` is the default.
"""

from __future__ import annotations

import math
from dataclasses import replace

from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError
from dist_trainer.validation import check_total_envs


def scale_batch(config: TrainConfig, learners: int) -> TrainConfig:
    """The configuration with the batch that `batch_scaling` makes of it for so many learners.

    Raises ConfigError if that would not be a whole number of environments or minibatches.
    """
    scaling = config.batch_scaling
    reference = scaling.reference_learners
    if not reference or reference == learners:
        return config
    more_steps = scaling.grow == "optimizer_steps"
    # What a user can change: total_envs for the reference. It must divide so that the scaled ones do.
    check_total_envs(config.total_envs, learners if more_steps else reference, config.ppo.minibatches)
    factor = learners / reference
    rate = {"constant": 1.0, "sqrt": math.sqrt(factor), "linear": factor}[scaling.lr_rule]
    minibatches = config.ppo.minibatches
    if more_steps:
        if minibatches * learners % reference:
            valid = f"with ppo.minibatches={minibatches}, {learners}/{reference} times as many is no whole number"
            raise ConfigError("batch_scaling.reference_learners", reference, valid)
        minibatches = minibatches * learners // reference
    return replace(
        config,
        total_envs=config.total_envs * learners // reference,
        ppo=replace(config.ppo, minibatches=minibatches),
        optimizer=config.optimizer | {"lr": config.optimizer["lr"] * rate},
        batch_scaling=replace(scaling, reference_learners=learners),  # what the result is for
    )

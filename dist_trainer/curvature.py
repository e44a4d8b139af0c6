"""What a Newton optimizer is given before some of its steps: a Hessian-vector product of the minibatch."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from dist_trainer.keyed import keyed_seed
from dist_trainer.learner import Learner
from dist_trainer.minibatch import Experience, add_gradient, curvature_rows
from dist_trainer.optimizers.newton import exact_product, finite_difference_product
from dist_trainer.policies import in_precision
from dist_trainer.ppo import ppo_loss


def hand_over_curvature(
    learner: Learner, experience: Experience, rows: Tensor, max_done: int, global_samples: int | Tensor
) -> Tensor:
    """Gives a Newton optimizer its Hessian-vector product of the minibatch `rows` (S,), where one is due.

    The loss is the unclipped surrogate (the clip's kinks are no curvature) of every `sub_batch`-th group of global
    environments, `global_samples` in all: the same ones for any number of learners. Returns the product's norm ();
    0 where none is due.
    """
    newton, world = learner.optimizer.newton, learner.world
    if newton is None or not newton.is_due(learner.optimizer_step):
        return torch.zeros((), device=world.device)
    chosen = rows[curvature_rows(learner).to(rows.device)]  # a learner may own none of the groups; it adds zeros
    unclipped = replace(learner.config.ppo, clip=math.inf, value_clip=None)
    weights = [parameter for parameter in learner.policy.parameters() if parameter.requires_grad]

    def loss() -> Tensor | None:
        if not len(chosen):
            return None
        batch = experience.take(chosen, max_done)
        return ppo_loss(learner.policy, learner.observations, batch, unclipped, global_samples)[0]

    def gradient() -> Tensor:
        learner.gradients.zero()
        add_gradient(learner, experience, chosen, max_done, unclipped, global_samples)
        return learner.gradients.flat

    exact = newton.product == "exact"
    seed = keyed_seed(learner.config.seed, "newton", learner.optimizer_step)
    with in_precision(learner.policy, "float32" if exact else newton.precision):
        if exact:
            vector, product = exact_product(weights, loss, seed)
        else:
            vector, product = finite_difference_product(weights, gradient, newton, seed)
    newton.hand_over(learner.optimizer.own_units, vector, world.sum_(product))
    return torch.linalg.vector_norm(product)

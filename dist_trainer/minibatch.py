"""A minibatch of all learners: this learner's rows of it, how many samples it has in all, and its gradient.

Legend: T horizon, M minibatches, S segments of this learner in a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_trainer.config import PPOConfig
from dist_trainer.device_link import to_device
from dist_trainer.learner import Learner
from dist_trainer.ppo import LOSS_SUMS, ppo_loss
from dist_trainer.prefetch import read_rows
from dist_trainer.rollout import Minibatch, Rollout, minibatch_rows, take_minibatch


@dataclass
class Experience:
    """What an update epoch learns from."""

    rollout: Rollout
    advantages: Tensor  # (T, N)
    targets: Tensor  # (T, N) of the values
    read: Callable[[Tensor, Tensor], Tensor] = read_rows  # of the observations

    def take(self, rows: Tensor, max_done: int) -> Minibatch:
        """The segments `rows` (S,). `max_done`: at least the largest of their done_counts."""
        return take_minibatch(self.rollout, self.advantages, self.targets, rows, max_done, self.read)


@dataclass(frozen=True)
class GlobalCounts:
    """Of all learners together, resting agents included. Rollouts cut short (preemption.py) make them smaller."""

    env_steps: int  # of the rollouts
    minibatch: int  # samples
    curvature: int  # samples of the sub-batch of a Newton product


def count_globally(learner: Learner, rollout: Rollout) -> GlobalCounts:
    """One all-reduce of two numbers, and only if rollouts may differ in length."""
    config, world, pool = learner.config, learner.world, learner.pool
    if config.preemption.fraction is not None:
        of_product = len(curvature_rows(learner))
        own = torch.tensor([rollout.horizon, rollout.horizon * of_product], device=world.device)
        steps, curvature = world.sum_(own).tolist()
    else:
        groups = -(-(config.total_envs // config.ppo.minibatches) // sub_batch(learner))
        steps, curvature = config.horizon * world.size, config.horizon * groups * pool.spec.num_agents
    return GlobalCounts(steps * pool.num_envs, steps * pool.rows // config.ppo.minibatches, curvature)


def samples_of(learner: Learner, rollout: Rollout, rows: Tensor, nominal: int) -> Sequence[int | Tensor]:
    """How many samples of the rows (M, S) of each minibatch count, of all learners together; at least 1.

    `nominal`: how many there are. Where agents may rest, one all-reduce of M numbers that stay on the device.
    """
    if rollout.acts is None:
        return [nominal] * len(rows)
    index = to_device(rows.flatten(), rollout.acts.device)
    own = rollout.acts.index_select(1, index).sum(0).view(rows.shape).sum(1)  # (M,) int64
    return learner.world.sum_(own).clamp(min=1).unbind()


def sub_batch(learner: Learner) -> int:
    """A Newton product is of every so many-th group of global environments."""
    return learner.optimizer.newton.sub_batch if learner.optimizer.newton else 1


def curvature_rows(learner: Learner) -> Tensor:
    """Which of this learner's rows in a minibatch its part of a Newton product is of; on the host, maybe none."""
    minibatches, agents = learner.config.ppo.minibatches, learner.pool.spec.num_agents
    groups = learner.pool.num_envs // minibatches
    own = torch.arange(groups) + learner.world.rank * groups  # each has one environment in every minibatch
    return (own % sub_batch(learner) == 0).repeat_interleave(agents).nonzero().flatten()


def my_minibatch_rows(learner: Learner, epoch: int) -> Tensor:
    """(M, S) rows of this learner; on the host."""
    config, first = learner.config, learner.world.rank * learner.pool.num_envs
    return minibatch_rows(
        config.seed,
        learner.iteration,
        epoch,
        total_envs=config.total_envs,
        minibatches=config.ppo.minibatches,
        envs=range(first, first + learner.pool.num_envs),
        agents=learner.pool.spec.num_agents,
    )


def add_gradient(
    learner: Learner,
    experience: Experience,
    rows: Tensor,
    max_done: int,
    config: PPOConfig,
    global_samples: int | Tensor,
) -> Tensor:
    """Adds the gradient of the rows (S,) to the learner's bucket, `micro_batches` parts one after another.

    Returns the detached sums LOSS_SUMS (6,) in float64. Nothing is reduced.
    """
    sums = torch.zeros(len(LOSS_SUMS), dtype=torch.float64, device=learner.world.device)
    for part in rows.chunk(config.micro_batches) if len(rows) else ():
        batch = experience.take(part, max_done)
        loss, part_sums = ppo_loss(learner.policy, learner.observations, batch, config, global_samples)
        loss.backward()
        sums += part_sums
    return sums

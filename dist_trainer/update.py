"""Learning from one rollout: advantages, minibatches, optimizer steps; all undone if something was not finite.

Legend: T horizon, N rows of this learner, M minibatches, S segments of a minibatch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.curvature import hand_over_curvature
from dist_trainer.device_link import to_device
from dist_trainer.diagnostics import Watch, is_due
from dist_trainer.learner import DTYPES, Learner, watched_tensors
from dist_trainer.minibatch import (
    Experience,
    add_gradient,
    count_globally,
    curvature_rows,
    my_minibatch_rows,
    samples_of,
)
from dist_trainer.policies import learning
from dist_trainer.ppo import LOSS_SUMS, estimate_advantages, mean_kl, normalize_globally, return_sums
from dist_trainer.prefetch import read_rows
from dist_trainer.rollout import Rollout, take_minibatch
from dist_trainer.schedule import schedule_factor
from dist_trainer.stopwatch import Phase


@dataclass
class Update:
    """What happened. `sums` are this learner's own; the rest is the same on all learners, but for diagnostics."""

    env_steps: int  # of all learners' rollouts
    sums: Tensor  # (LOSS_SUMS + return_sums,) float64 on the device
    lr: float
    rate_factor: float  # on the rate, by the KL divergence of earlier iterations; part of lr
    grad_norm: float  # before clipping, mean over the optimizer steps
    clipped_steps: float  # fraction of the optimizer steps whose gradient was clipped
    undone: bool  # something was not finite, or a weight too large: weights and state are what they were before
    estimated_d: float | None = None  # of optimizers that estimate their rate
    diagnostics: dict[str, float] = field(default_factory=dict)  # on the first learner, where due and not undone


class Backup:
    """A copy of all that an update changes.

    Skipping a single optimizer step would need the host to look at its gradient first, and the device would wait for
    it at every minibatch. Undoing the whole update needs one look at its end.
    """

    def __init__(self, learner: Learner):
        self.policy = {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()}
        moments = learner.returns.moments
        self.returns = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
        self.optimizer = optimizers.capture(learner.optimizer)

    def put_back(self, learner: Learner) -> None:
        learner.policy.load_state_dict(self.policy)
        learner.returns.moments.load_state_dict(self.returns)
        # The running returns belong to the environments, which have moved on; a reward that was not finite is dropped.
        learner.returns.running.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        optimizers.restore(learner.optimizer, self.optimizer)


def learn(learner: Learner, rollout: Rollout) -> Update:
    """All optimizer steps of one rollout. The host reads nothing from the device before the last of them is queued."""
    config, world, device = learner.config, learner.world, learner.world.device
    guarded = config.check_every > 0 and world.size > 1
    if guarded:
        learner.own_state.compare(watched_tensors(learner))
    before = Backup(learner)
    learner.returns.update(rollout.rewards, rollout.done, world, rollout.acts)
    rewards = learner.returns(rollout.rewards)

    def estimate(log_ratio: Tensor | None) -> Experience:
        advantages, targets = estimate_advantages(config.ppo, rollout, rewards, log_ratio)
        scaled = normalize_globally(advantages, world, rollout.acts) if config.ppo.normalize_advantages else advantages
        return Experience(rollout, scaled, targets, learner.prefetcher or read_rows)

    lags = config.overlap and config.ppo.advantage == "vtrace"  # acted with other weights
    experience = estimate(rollout_log_ratio(learner, rollout) if lags else None)
    lr = config.optimizer["lr"] * schedule_factor(config.schedule, learner.progress) * learner.rate_factor
    lr *= learner.rollback_factor
    precond_factor = schedule_factor(config.precond_schedule, learner.progress)
    counts = count_globally(learner, rollout)
    reduce_dtype = DTYPES[config.reduce_dtype] if config.reduce_dtype else None
    sums = torch.zeros(len(LOSS_SUMS), dtype=torch.float64, device=device)
    norms = torch.zeros(3, dtype=torch.float64, device=device)  # sum of norms, clipped steps, non-finite steps
    optimizer_steps = 0
    watch = Watch(learner, counts.minibatch) if is_due(config, learner.iteration) else None

    for epoch in range(config.ppo.update_epochs):
        if epoch > 0 and config.ppo.advantage == "vtrace":
            experience = estimate(rollout_log_ratio(learner, rollout))
        rows = my_minibatch_rows(learner, epoch)  # (M, S)
        max_done = rollout.done_counts[rows.numpy()].max(1).tolist()  # (M,)
        epoch_sums = torch.zeros_like(sums)
        if learner.prefetcher:
            parts = [part for index in rows for part in index.chunk(config.ppo.micro_batches)]
            learner.prefetcher.expect(rollout.observations, parts)
        samples = samples_of(learner, rollout, rows, counts.minibatch)
        of_curvature = samples_of(learner, rollout, rows[:, curvature_rows(learner)], counts.curvature)
        for index, most, all_of_it, of_product in zip(rows.unbind(), max_done, samples, of_curvature, strict=True):
            with Phase("curvature"):
                product_norm = hand_over_curvature(learner, experience, index, most, of_product)
            learner.gradients.zero()
            with Phase("gradient"):
                epoch_sums += add_gradient(learner, experience, index, most, config.ppo, all_of_it)
            if watch:
                watch.own_gradient(learner.gradients.flat)
            gradient = learner.gradients.reduce(world, reduce_dtype)
            if watch:
                watch.before_step(gradient)
            with Phase("optimizer"):
                optimizers.correct_gradient_(learner.optimizer, gradient)
                norm = learner.gradients.clip(config.ppo.max_grad_norm)
                key = {"seed": config.seed, "optimizer_step": learner.optimizer_step}
                optimizers.step(learner.optimizer, gradient, lr=lr, precond_factor=precond_factor, **key)
            if watch:
                watch.after_step()
            learner.optimizer_step += 1
            optimizer_steps += 1
            norms += torch.stack([norm, norm > config.ppo.max_grad_norm, ~(norm + product_norm).isfinite()])
        sums += epoch_sums
        target_kl = config.ppo.target_kl if epoch + 1 < config.ppo.update_epochs else None
        # Between epochs, not between minibatches: this reads from the device. The sum is the same everywhere.
        if target_kl is not None and mean_kl(world.sum_(epoch_sums.clone()).tolist()) > target_kl:
            break

    # A finite gradient can still ruin the weights, with a rate that is too high.
    largest = torch._foreach_norm([weight.detach() for weight in learner.policy.parameters()], math.inf)
    norms[2] += ~(torch.stack(largest) <= config.max_weight).all()  # of what is not a number neither holds
    norm_sum, clipped, bad = norms.tolist()
    if bad:  # reduced gradients are the same on all learners, and so is this decision
        before.put_back(learner)
    else:
        learner.observations.update(rollout.observations, world, rollout.acts)
    if guarded:
        learner.own_state.note(watched_tensors(learner))
    rate = learner.optimizer.rate
    return Update(
        env_steps=counts.env_steps,
        sums=torch.cat([sums, return_sums(experience.targets, rollout.values, rollout.acts)]),
        lr=lr,
        rate_factor=learner.rate_factor,
        grad_norm=norm_sum / optimizer_steps,
        clipped_steps=clipped / optimizer_steps,
        undone=bad > 0,
        estimated_d=rate.d.item() if rate else None,
        diagnostics=watch.read() if watch and not bad else {},
    )


@torch.no_grad()
def rollout_log_ratio(learner: Learner, rollout: Rollout) -> Tensor:
    """(T, N) log-probability of the actions under today's policy less that when acting; a minibatch at a time."""
    log_ratio = torch.empty_like(rollout.log_probs)
    count = learner.config.ppo.minibatches
    for index in torch.arange(learner.pool.rows).chunk(count):
        batch = take_minibatch(rollout, rollout.values, rollout.values, index, int(rollout.done_counts.max()))
        inputs = learner.observations(batch.observations)
        parameters, _ = learning(learner.policy, inputs, batch.initial_state, batch.done, batch.max_done)
        parameters = learner.policy.action_head.restrict(parameters, batch.legal)
        log_probs, _ = learner.policy.action_head.log_prob_and_entropy(parameters, batch.actions)
        log_ratio.index_copy_(1, to_device(index, log_ratio.device), log_probs - batch.log_probs)
    return log_ratio

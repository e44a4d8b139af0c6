"""The PPO loss, its global statistics, and the gradient's way from backward to the optimizer.

Legend: T horizon, S segments of a minibatch, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dist_trainer.advantage import gae, next_values, vtrace
from dist_trainer.config import PPOConfig
from dist_trainer.distributed import World
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy, learning
from dist_trainer.rollout import Minibatch, Rollout

# What ppo_loss sums over samples, in this order.
LOSS_SUMS = ("policy", "value", "entropy", "approx_kl", "clip_fraction", "samples")
RETURN_SUMS = 5  # numbers that return_sums gives


def estimate_advantages(
    config: PPOConfig, rollout: Rollout, rewards: Tensor, log_ratio: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets (T, N) from normalized rewards (T, N).

    `log_ratio` (T, N): log-probability under today's policy less that when acting; None if they are the same policy.
    """
    bootstrap = next_values(rollout.values, rollout.last_values, rollout.done, rollout.final_values)
    arguments = (rewards, rollout.values, bootstrap, rollout.done)
    if config.advantage == "gae" or log_ratio is None:  # with ratio 1, V-trace is GAE
        return gae(*arguments, config.gamma, config.gae_lambda)
    rho_clip, c_clip = config.vtrace_rho_clip, config.vtrace_c_clip
    return vtrace(*arguments, log_ratio, config.gamma, config.gae_lambda, rho_clip, c_clip)


def normalize_globally(advantages: Tensor, world: World, acts: Tensor | None = None) -> Tensor:
    """Mean 0 and variance 1 over the whole batch of all learners. One all-reduce of three float64 numbers.

    `acts` (T, N) bool: what counts; None: everything. The rest becomes 0.
    """
    x = only(acts, advantages.to(torch.float64))
    count, total, squares = world.sum_(torch.stack([_count(acts, x), x.sum(), x.square().sum()])).unbind()
    mean = total / count.clamp(min=1)
    variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
    return only(acts, ((x - mean) / (variance.sqrt() + 1e-8)).to(advantages.dtype))


def only(acts: Tensor | None, x: Tensor) -> Tensor:
    """0 where nobody acts. None: everybody does."""
    return x if acts is None else x.masked_fill(~acts, 0)


def _count(acts: Tensor | None, x: Tensor) -> Tensor:
    """() float64: the samples of x that count."""
    if acts is not None:
        return acts.sum(dtype=torch.float64)
    return torch.full((), x.numel(), dtype=torch.float64, device=x.device)


def ppo_loss(
    policy: Policy,
    normalizer: ObservationNormalizer,
    batch: Minibatch,
    config: PPOConfig,
    global_samples: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate of PPO (Schulman et al., arXiv 1707.06347, equations 7 and 9) of one minibatch.

    The loss is this learner's sum over samples, divided by the samples of all learners: gradients summed over the
    learners are then those of the global mean.

    Returns:
        loss () and the detached sums LOSS_SUMS (6,) in float64.
    """
    inputs = normalizer(batch.observations)
    parameters, values = learning(policy, inputs, batch.initial_state, batch.done, batch.max_done)
    parameters = policy.action_head.restrict(parameters, batch.legal)
    log_probs, entropy = policy.action_head.log_prob_and_entropy(parameters, batch.actions)  # (T, S) each
    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy_loss = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
    value_loss = (values - batch.targets).square()
    if config.value_clip is not None:
        near = batch.values + (values - batch.values).clamp(-config.value_clip, config.value_clip)
        value_loss = torch.maximum(value_loss, (near - batch.targets).square())
    value_loss = 0.5 * value_loss
    sums = [only(batch.acts, x).sum() for x in (policy_loss, value_loss, entropy)]
    loss = (sums[0] + config.value_coef * sums[1] - config.entropy_coef * sums[2]) / global_samples
    with torch.no_grad():
        approx_kl = only(batch.acts, (ratio - 1) - log_ratio).sum()  # Schulman's k3 estimator: unbiased, never negative
        clip_count = only(batch.acts, (ratio - 1).abs() > config.clip).sum()
        counts = [clip_count.to(loss.dtype), _count(batch.acts, ratio).to(loss.dtype)]
        detached = torch.stack([*sums, approx_kl, *counts]).detach().to(torch.float64)
    return loss, detached


class GradientBucket:
    """All gradients of a policy in one flat tensor, so that a single all-reduce sums them over the learners."""

    def __init__(self, policy: nn.Module):
        parameters = [p for p in policy.parameters() if p.requires_grad]
        self.flat = torch.zeros(
            sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=parameters[0].device
        )
        for parameter, part in zip(parameters, self.flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)  # backward accumulates into the bucket

    def zero(self) -> None:
        self.flat.zero_()

    def reduce(self, world: World, dtype: torch.dtype | None = None) -> Tensor:
        """Sums over all learners, in place; returns the bucket (parameters,). `dtype`: of what goes over the wire and
        of the sums on the way, which are rounded to it; with one learner nothing is.
        """
        if dtype is None or world.size == 1:
            return world.sum_(self.flat)
        return self.flat.copy_(world.sum_(self.flat.to(dtype)))

    def clip(self, max_norm: float) -> Tensor:
        """Clips by the global norm, after the reduction. Returns the norm () before clipping."""
        norm = torch.linalg.vector_norm(self.flat)
        self.flat.mul_((max_norm / (norm + 1e-6)).clamp(max=1))
        return norm


def return_sums(targets: Tensor, values: Tensor, acts: Tensor | None = None) -> Tensor:
    """(RETURN_SUMS,) float64 over what counts: samples, sums of targets and their squares, of errors and theirs."""
    y = only(acts, targets.to(torch.float64))
    error = y - only(acts, values)
    return torch.stack([_count(acts, y), y.sum(), y.square().sum(), error.sum(), error.square().sum()])


def explained_variance(sums: list[float]) -> float:
    """1 - Var(target - value) / Var(target) from return_sums that were added up over all learners."""
    count, total, squares, error, error_squares = sums
    variance = squares / count - (total / count) ** 2
    return 1 - (error_squares / count - (error / count) ** 2) / variance if variance > 0 else 0.0


def mean_kl(sums: list[float]) -> float:
    """Per sample, from what begins with LOSS_SUMS that were added up over all learners."""
    return sums[LOSS_SUMS.index("approx_kl")] / sums[LOSS_SUMS.index("samples")]

"""Running means and variances that are the same on every learner.

Sums and counts go over the wire, in float64, and one merge follows (Chan, Golub and LeVeque, 1979): never a mean of
means. Sums are taken about a pivot near the data that all learners share, so that nothing cancels: the running mean,
or, before there is one, the first learner's first sample.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dist_trainer import _cpp_envs
from dist_trainer.distributed import World

PART_SIZE = 2**18  # numbers at a time: 2 MiB, which stays in the cache
REAL = (torch.float32, torch.float64)


class RunningMoments(nn.Module):
    """Mean and variance, per feature, of everything that was ever fed in, over all learners. Kept in checkpoints."""

    mean: Tensor  # (*shape) float64
    m2: Tensor  # (*shape) float64: sum of squared deviations from the mean
    count: Tensor  # () float64

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64, device=device))
        self.register_buffer("m2", torch.zeros(shape, dtype=torch.float64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64, device=device))

    @torch.no_grad()
    def update(self, batch: Tensor, world: World, counted: Tensor | None = None) -> None:
        """Merges in a batch (..., *shape) from each learner. One broadcast of a sample and one all-reduce.
        `counted` (...,) bool: which samples; None: all.

        Works through it in parts: a float64 copy of all observations at once would be the largest tensor of the run,
        and they may be on the host.
        """
        rows = batch.reshape(-1, *self.mean.shape)
        first = world.broadcast_(rows[0].to(self.mean.device, torch.float64, copy=True))
        pivot = torch.where(self.count > 0, self.mean, first)
        sums = world.sum_(_deviation_sums(rows, pivot, None if counted is None else counted.flatten()))  # (3, *shape)
        added = sums[0].flatten()[0]
        total = (self.count + added).clamp(min=1)
        offset = sums[1] / added.clamp(min=1)  # from the pivot to the batch's mean
        batch_m2 = sums[2] - added * offset.square()
        shift = pivot - self.mean + offset  # from the running mean to the batch's
        self.m2 += batch_m2.clamp(min=0) + shift.square() * self.count * added / total
        self.mean += shift * added / total
        self.count += added

    @property
    def std(self) -> Tensor:
        """(*shape) float64; 1 before anything was fed in."""
        variance = self.m2 / self.count.clamp(min=1)
        return torch.where(self.count > 0, variance, torch.ones_like(variance)).sqrt()


def _deviation_sums(rows: Tensor, pivot: Tensor, counted: Tensor | None) -> Tensor:
    """(n, *shape) -> (3, *shape) float64 where the pivot (*shape) is: n, sums of deviations from it, of squares; of the
    rows that are `counted` (n,), or of all."""
    sums = torch.zeros((3, *pivot.shape), dtype=torch.float64, device=pivot.device)
    sums[0] = len(rows) if counted is None else counted.sum()
    if counted is None and _in_main_memory(rows, pivot):
        arrays = (_array(tensor) for tensor in (pivot, sums[1], sums[2]))
        _cpp_envs.add_deviations(rows.reshape(-1, pivot.numel()).numpy(), *arrays)
        return sums
    size = max(1, PART_SIZE // pivot.numel())
    which = counted.split(size) if counted is not None else repeat(None)
    for part, of_part in zip(rows.split(size), which, strict=False):
        deviations = part.to(pivot.device, torch.float64) - pivot
        if of_part is not None:
            deviations.masked_fill_(~of_part.to(pivot.device).view(-1, *[1] * pivot.dim()), 0)
        sums[1] += deviations.sum(0)
        sums[2] += deviations.square_().sum(0)
    return sums


def _in_main_memory(*tensors: Tensor) -> bool:
    """And as C++ wants them."""
    return all(
        x.device.type == "cpu" and x.dtype in REAL and x.is_contiguous() and not x.requires_grad for x in tensors
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.reshape(-1).numpy()


class ObservationNormalizer(nn.Module):
    """Observations as the policy wants them: floats to mean 0 and variance 1, bytes to [0, 1].

    The statistics stay fixed from acting to learning; `update` comes after the learning.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        is_bytes: bool,
        enabled: bool,
        clip: float,
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__()
        self.moments = RunningMoments(shape, device) if enabled and not is_bytes else None
        self.is_bytes, self.clip, self.dtype = is_bytes, clip, dtype

    def forward(self, observations: Tensor) -> Tensor:
        """(..., *shape) float32 or uint8 -> the same in the policy's dtype."""
        x = observations.to(self.dtype)
        if self.is_bytes:
            return x / 255
        if self.moments is None:
            return x
        mean, scale = self.mean_and_scale(self.moments)
        if not _in_main_memory(x):
            return (x - mean).mul_(scale).clamp_(-self.clip, self.clip)
        normalized = torch.empty_like(x)  # by C++ in one pass, with the same bits
        rows = [tensor.reshape(-1, mean.numel()).numpy() for tensor in (x, normalized)]
        _cpp_envs.normalize(rows[0], _array(mean), _array(scale), self.clip, rows[1])
        return normalized

    def mean_and_scale(self, moments: RunningMoments) -> tuple[Tensor, Tensor]:
        """(*shape) each, in the policy's dtype."""
        scale = (moments.std.square() + 1e-8).rsqrt()  # a feature that never changes stays at 0
        return moments.mean.to(self.dtype), scale.to(self.dtype)

    def update(self, observations: Tensor, world: World, counted: Tensor | None = None) -> None:
        """As RunningMoments.update."""
        if self.moments is not None:
            self.moments.update(observations, world, counted)


class FrozenNormalizer:
    """The same numbers for observations (N, *shape) of one shape, again and again while the statistics do not change.
    Statistics and results stay where they are in memory."""

    def __init__(self, normalizer: ObservationNormalizer, rows: int, shape: tuple[int, ...], device: torch.device):
        self.normalizer = normalizer
        self._result = torch.empty((rows, *shape), dtype=normalizer.dtype, device=device)
        self._mean, self._scale = torch.empty((2, *shape), dtype=normalizer.dtype, device=device).unbind()

    def refresh(self) -> None:
        """Takes over the statistics as they are now."""
        if self.normalizer.moments is not None:
            mean, scale = self.normalizer.mean_and_scale(self.normalizer.moments)
            self._mean.copy_(mean)
            self._scale.copy_(scale)

    def __call__(self, observations: Tensor) -> Tensor:
        """(N, *shape) -> the same in the policy's dtype, valid until the next call."""
        if self.normalizer.is_bytes:
            return self._result.copy_(observations).div_(255)
        if self.normalizer.moments is None:
            return observations.to(self.normalizer.dtype)
        clip = self.normalizer.clip
        return torch.sub(observations, self._mean, out=self._result).mul_(self._scale).clamp_(-clip, clip)


class ReturnNormalizer(nn.Module):
    """Scales rewards by the standard deviation of the discounted return (Engstrom et al., arXiv 2005.12729, 2.3)."""

    running: Tensor  # (N,) each agent's discounted return so far; belongs to the environments, not to the policy

    def __init__(self, rows: int, *, gamma: float, enabled: bool, clip: float, device: torch.device):
        super().__init__()
        self.moments = RunningMoments((), device)
        self.register_buffer("running", torch.zeros(rows, dtype=torch.float64, device=device))
        self.gamma, self.enabled, self.clip = gamma, enabled, clip

    @torch.no_grad()
    def update(self, rewards: Tensor, done: Tensor, world: World, counted: Tensor | None = None) -> None:
        """Merges in the returns along a rollout's rewards and dones (T, N) of each learner, where `counted` (T, N)."""
        if not self.enabled:
            return
        self.moments.update(self._returns(rewards, done), world, counted)

    def _returns(self, rewards: Tensor, done: Tensor) -> Tensor:
        """(T, N) float64: each agent's discounted return after each step. In main memory by C++, with the same bits."""
        returns = torch.empty(rewards.shape, dtype=torch.float64, device=rewards.device)
        if rewards.device.type == "cpu" and rewards.dtype in REAL:
            arrays = (rewards.contiguous().numpy(), done.contiguous().numpy())
            _cpp_envs.discounted_returns(*arrays, self.gamma, self.running.numpy(), returns.numpy())
            return returns
        for t in range(len(rewards)):
            self.running.mul_(self.gamma).add_(rewards[t])
            returns[t] = self.running
            self.running.masked_fill_(done[t], 0)
        return returns

    def forward(self, rewards: Tensor) -> Tensor:
        if not self.enabled:
            return rewards
        scale = (self.moments.std + 1e-8).reciprocal().to(rewards.dtype)
        return (rewards * scale).clamp_(-self.clip, self.clip)

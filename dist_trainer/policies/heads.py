"""Action distributions, sampled as a deterministic function of their parameters and of given uniform noise.

Legend: ... any leading dimensions, C action components, P action parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from functools import reduce

import torch
from torch import Tensor, nn

FEW_CHOICES = 16
ILLEGAL = -1e8  # a logit that leaves a probability of exactly 0, and finite logarithms: 0 log 0 is then 0


class ActionHead(nn.Module, ABC):
    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features (..., H) -> parameters (..., P)."""

    @abstractmethod
    def sample_with_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(..., P), uniform noise in (0, 1) (..., C) -> actions (..., C), and their log-probability (...,): the very
        bits that log_prob_and_entropy gives."""

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(..., P), uniform noise in (0, 1) (..., C) -> actions (..., C)."""
        return self.sample_with_log_prob(parameters, noise)[0]

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """(..., P) -> the most likely actions (..., C)."""

    def restrict(self, parameters: Tensor, legal: Tensor | None) -> Tensor:
        """(..., P), bool (..., P) -> parameters (..., P) of the same distribution, given that its actions are legal.
        None: all are."""
        return parameters if legal is None else parameters.masked_fill(~legal, ILLEGAL)

    @abstractmethod
    def log_prob_and_entropy(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(..., P), (..., C) -> log-probability (...,) and entropy (...,), summed over components."""


def log_softmax(logits: Tensor) -> Tensor:
    """Over the last dimension. On a CPU torch is up to 8 times as fast over the first one if the choices are few."""
    if logits.shape[-1] >= FEW_CHOICES:
        return logits.log_softmax(-1)
    return logits.movedim(-1, 0).log_softmax(0).movedim(0, -1)


def scaled_linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with orthogonal weights times gain and zero bias (Saxe et al., arXiv 1312.6120)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class CategoricalHead(ActionHead):
    """One categorical distribution for each action component: discrete and multi-discrete actions."""

    def __init__(self, features: int, sizes: tuple[int, ...]):
        super().__init__()
        self.sizes = sizes
        # A small gain: the first policy is close to uniform (Andrychowicz et al., arXiv 2006.05990, section 3.2).
        self.logits = scaled_linear(features, sum(sizes), gain=0.01)

    def forward(self, features: Tensor) -> Tensor:
        return self.logits(features)

    def _log_probs(self, parameters: Tensor) -> list[Tensor]:
        return [log_softmax(part) for part in parameters.split(self.sizes, -1)]

    def sample_with_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        if len(self.sizes) == 1:  # nothing to take apart
            return _sample_categorical(parameters, noise)
        components = zip(parameters.split(self.sizes, -1), noise.split(1, -1), strict=True)
        actions, log_probs = zip(*(_sample_categorical(part, u) for part, u in components), strict=True)
        return torch.cat(actions, -1), reduce(torch.add, log_probs)

    def mode(self, parameters: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in parameters.split(self.sizes, -1)], -1).to(torch.int32)

    def log_prob_and_entropy(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        log_prob = entropy = parameters.new_zeros(())
        for log_probs, action in zip(self._log_probs(parameters), actions.unbind(-1), strict=True):
            log_prob = log_prob + log_probs.gather(-1, action[..., None].long()).squeeze(-1)
            entropy = entropy - (log_probs.exp() * log_probs).sum(-1)
        return log_prob, entropy


def _sample_categorical(logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Inverts the cumulative distribution: the action is the number of its steps that lie below the noise.

    (..., choices), (..., 1) -> int32 (..., 1), log-probability (...,).
    """
    log_probs = log_softmax(logits)
    cumulative = log_probs.exp().cumsum(-1)
    # Its last step is 1 up to rounding; what is drawn must not lie above it, behind the last that is possible at all.
    action = (cumulative[..., :-1] < noise * cumulative[..., -1:]).sum(-1, keepdim=True)
    return action.to(torch.int32), log_probs.gather(-1, action).squeeze(-1)


class GaussianHead(ActionHead):
    """Independent normal distributions whose standard deviation does not depend on the observation.

    Actions are unbounded here; the pool clips them to the environment's bounds. The mean starts at the middle of the
    bounds and the standard deviation at a quarter of their range.
    """

    middle: Tensor
    half_range: Tensor

    def __init__(self, features: int, low: tuple[float, ...], high: tuple[float, ...]):
        super().__init__()
        bounds = torch.tensor([low, high])
        self.register_buffer("middle", bounds.mean(0), persistent=False)
        self.register_buffer("half_range", (bounds[1] - bounds[0]) / 2, persistent=False)
        self.mean = scaled_linear(features, len(low), gain=0.01)
        self.log_std = nn.Parameter(torch.full((len(low),), math.log(0.5)))  # in units of half the range

    def forward(self, features: Tensor) -> Tensor:
        """(..., H) -> (..., 2 C): means, then log standard deviations, in the environment's units."""
        mean = self.middle + self.half_range * self.mean(features)
        log_std = self.log_std + self.half_range.log()
        return torch.cat([mean, log_std.expand_as(mean)], -1)

    def sample_with_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.chunk(2, -1)
        actions = mean + log_std.exp() * torch.special.ndtri(noise.to(mean.dtype))
        return actions, _normal_log_prob(mean, log_std, actions)

    def mode(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, -1)[0]

    def log_prob_and_entropy(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.chunk(2, -1)
        entropy = log_std + 0.5 * math.log(2 * math.pi * math.e)
        return _normal_log_prob(mean, log_std, actions), entropy.sum(-1)


def _normal_log_prob(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """(..., C) each -> (...,), summed over components."""
    standardized = (actions.to(mean.dtype) - mean) * torch.exp(-log_std)
    return (-0.5 * standardized.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def make_action_head(
    features: int, kind: str, sizes: tuple[int, ...], low: tuple[float, ...], high: tuple[float, ...]
) -> ActionHead:
    """The head for an environment's actions; `kind`: discrete | multi_discrete | continuous."""
    return GaussianHead(features, low, high) if kind == "continuous" else CategoricalHead(features, sizes)


def action_and_value(features: Tensor, action_head: ActionHead, value_head: nn.Linear) -> Tensor:
    """Features (..., H) -> action parameters and, last, the value (..., P + 1); where both are linear, one product.

    In the weights' own type whatever the policy's precision: 8 bits of a value or of a logit are too few.
    """
    device = features.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        features = features.to(value_head.weight.dtype)
        if not isinstance(action_head, CategoricalHead):
            return torch.cat([action_head(features), value_head(features)], -1)
        heads = (action_head.logits, value_head)
        weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        return nn.functional.linear(features, weight, bias)

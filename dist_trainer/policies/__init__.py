"""Policies: observations in, action distributions and values out. A new one is one file here and one yaml.

A policy's constructor takes what it must fit (observation_shape, action_kind, action_sizes, action_low, action_high)
and its own settings from the yaml, all by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from dist_trainer.policies.heads import ActionHead


class Policy(nn.Module, ABC):
    """What rollout, ppo and evaluate ask of a policy.

    Legend: T steps, N agent rows, P action parameters, L x H recurrent state (L = 0 for a policy without memory).
    """

    action_head: ActionHead
    precision: str = "float32"  # or bfloat16: of matrix products in acting() and learning()
    double_backward: ClassVar[bool] = True  # whether its gradient can be differentiated again

    @abstractmethod
    def initial_state(self, rows: int) -> Tensor:
        """(L, rows, H) zeros: the recurrent state at the beginning of an episode."""

    @abstractmethod
    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step: (N, *observation_shape), (L, N, H) -> action parameters (N, P), values (N,), state (L, N, H)."""

    @abstractmethod
    def learn(self, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
        """A segment: (T, N, *observation_shape), (L, N, H), (T, N) -> action parameters (T, N, P), values (T, N).

        `state` is the state before the first step; it is zero again after every `done`. `max_done` is at least the
        largest number of dones of any row in the first T - 1 steps (the host knows it; the device need not be asked).
        """


def acting(policy: Policy, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`policy.act` in the policy's precision. Parameters and values are of the observations' type, the state is of the
    one that the policy goes on with: bfloat16 may be what has been computed."""
    with _autocast(policy, observations.device):
        parameters, values, next_state = policy.act(observations, state)
    return parameters.to(observations.dtype), values.to(observations.dtype), next_state


def learning(policy: Policy, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
    """`policy.learn` in the policy's precision; the results are of the types that went in."""
    with _autocast(policy, observations.device):
        parameters, values = policy.learn(observations, state, done, max_done)
    return parameters.to(observations.dtype), values.to(observations.dtype)


def _autocast(policy: Policy, device: torch.device) -> AbstractContextManager[object]:
    if policy.precision == "float32":
        return nullcontext()
    # Without its cache: that would go on with the weights of before a step, or before Newton's perturbation.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


@contextmanager
def in_precision(policy: Policy, precision: str) -> Iterator[None]:
    """The policy's precision is another one meanwhile."""
    before, policy.precision = policy.precision, precision
    try:
        yield
    finally:
        policy.precision = before

"""Policies: observations in, action distributions and values out. A new one is one file here and one yaml.

A policy's constructor takes what it must fit (observation_shape, action_kind, action_sizes, action_low, action_high)
and its own settings from the yaml, all by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from dist_trainer.policies.heads import ActionHead


class Policy(nn.Module, ABC):
    """What rollout, ppo and evaluate ask of a policy.

    Legend: T steps, N agent rows, P action parameters, L x H recurrent state (L = 0 for a policy without memory).
    """

    action_head: ActionHead
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

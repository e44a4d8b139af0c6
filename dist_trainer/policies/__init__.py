"""Policies: observations in, action distributions and values out. A new one is one file here and one yaml.

A policy is an nn.Module with a constructor (observation_shape, observation_is_bytes, action_head arguments, its own
settings) and the four members of `Policy`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from dist_trainer.policies.heads import ActionHead


@runtime_checkable
class Policy(Protocol):
    """What rollout, ppo and evaluate ask of a policy.

    Legend: T steps, N agent rows, P action parameters, L x H recurrent state (L = 0 for a policy without memory).
    """

    action_head: ActionHead

    def initial_state(self, rows: int) -> Tensor:
        """(L, rows, H) zeros: the recurrent state at the beginning of an episode."""
        ...

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step: (N, *observation_shape), (L, N, H) -> action parameters (N, P), values (N,), new state (L, N, H)."""
        ...

    def learn(self, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
        """A segment: (T, N, *observation_shape), (L, N, H), (T, N) -> action parameters (T, N, P), values (T, N).

        `state` is the state before the first step; it is zero again after every `done`. `max_done` is at least the
        largest number of dones of any row in the first T - 1 steps (the host knows it; the device need not be asked).
        """
        ...

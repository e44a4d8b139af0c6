"""A policy that plays on a pool: it acts, and remembers. For whoever looks on: evaluation, videos, windows.

Training acts by acting.ActingStep, which does the same without a copy too many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy, acting
from dist_trainer.pools import Pool


@dataclass(frozen=True)
class Choice:
    """What the policy makes of the pool's present observations. On the CPU.

    Legend: N agent rows, C action components, P action parameters.
    """

    actions: Tensor  # (N, C)
    parameters: Tensor  # (N, P) of the distribution that they are from, given what is legal
    values: Tensor  # (N,) of the discounted return from here on, in units of normalized rewards


class Player:
    """Owns the recurrent state of all rows of one pool. The policy and the normalizer may be those of a run that goes
    on training: they are read, never changed."""

    def __init__(self, policy: Policy, normalizer: ObservationNormalizer, pool: Pool, *, greedy: bool = False):
        """`greedy`: the most likely actions, not sampled ones. It may be changed at any time."""
        self.policy, self.normalizer, self.pool, self.greedy = policy, normalizer, pool, greedy
        self.forget()

    def forget(self) -> None:
        """To begin again, together with `pool.reset()`."""
        self.state = self.policy.initial_state(self.pool.rows)  # (L, N, H) after the last choice

    @torch.no_grad()
    def choose(self) -> Choice:
        """Chooses, and remembers what it saw: to be called exactly once for every step of the pool, also where somebody
        else decides. Rows whose episode has ended, or who rested, begin with an empty memory."""
        pool, device, head = self.pool, self.state.device, self.policy.action_head
        ended = torch.from_numpy(pool.terminated | pool.truncated).to(device)  # (N,)
        state = self.state.masked_fill(ended[None, :, None], 0)
        observations = self.normalizer(torch.from_numpy(pool.observations).to(device))
        parameters, values, self.state = acting(self.policy, observations, state)
        if pool.spec.has_legal:
            parameters = head.restrict(parameters, torch.from_numpy(pool.legal).to(device))
        noise = torch.from_numpy(pool.noise).to(device)
        actions = head.mode(parameters) if self.greedy else head.sample(parameters, noise)
        return Choice(actions.cpu(), parameters.cpu(), values.cpu())

    def step(self) -> Choice:
        """One step of the pool by the policy's own choice."""
        choice = self.choose()
        torch.from_numpy(self.pool.actions).copy_(choice.actions)
        self.pool.send()
        self.pool.recv()
        return choice

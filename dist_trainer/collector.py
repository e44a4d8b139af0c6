"""Collects rollouts: the policy acts, the environments step.

Legend: T horizon, E this learner's environments, A agents of each, N = E * A rows, C action components, L x H recurrent
state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dist_trainer.envs import EnvPool
from dist_trainer.normalize import FrozenNormalizer, ObservationNormalizer
from dist_trainer.policies import Policy, acting
from dist_trainer.rollout import Rollout, empty_rollout


class Collector:
    """Drives the pool with the policy. Owns the recurrent state, which is carried from rollout to rollout."""

    def __init__(
        self, pool: EnvPool, policy: Policy, normalizer: ObservationNormalizer, horizon: int, device: torch.device
    ):
        self.pool, self.policy, self.normalizer, self.horizon, self.device = pool, policy, normalizer, horizon, device
        self.state = policy.initial_state(pool.rows)  # (L, N, H) before the pool's current observation
        self._normalize = FrozenNormalizer(normalizer, pool.rows, pool.spec.observation_shape, device)
        # torch's view of the pool's buffers
        self._observations = torch.from_numpy(pool.observations)
        self._final_observations = torch.from_numpy(pool.final_observations)
        self._actions = torch.from_numpy(pool.actions)
        self._noise = torch.from_numpy(pool.noise)
        self._rewards = torch.from_numpy(pool.rewards)
        self._terminated = torch.from_numpy(pool.terminated)
        self._truncated = torch.from_numpy(pool.truncated)
        self._rollout = empty_rollout(pool.spec, horizon, pool.rows, self.state, normalizer.dtype, device)

    @torch.no_grad()
    def collect(self, stop_after: Callable[[int], bool] = lambda steps: False) -> Rollout:
        """The next T steps of every environment, or fewer: it ends when `stop_after` is true of the steps it has. The
        result's buffers are reused by the next call."""
        rollout, pool, policy = self._rollout, self.pool, self.policy
        rollout.initial_state.copy_(self.state)
        rollout.final_values.zero_()
        rollout.done_counts.fill(0)
        self._normalize.refresh()
        cut_off: list[tuple[int, Tensor, Tensor, Tensor]] = []  # step, rows, final observations, state before the reset
        for t in range(self.horizon):
            observations = rollout.observations[t].copy_(self._observations)
            parameters, values, self.state = acting(policy, self._normalize(observations), self.state)
            actions, log_probs = policy.action_head.sample_with_log_prob(parameters, self._noise.to(self.device))
            self._actions.copy_(actions)
            pool.send()
            rollout.actions[t].copy_(actions)
            rollout.values[t].copy_(values)
            rollout.log_probs[t].copy_(log_probs)
            pool.recv()
            rollout.rewards[t].copy_(self._rewards)
            rollout.terminated[t].copy_(self._terminated)
            rollout.done[t].copy_(self._terminated | self._truncated)
            done = pool.terminated | pool.truncated
            if done.any():
                if pool.truncated.any():
                    rows = torch.from_numpy(np.flatnonzero(pool.truncated))
                    cut_off.append((t, rows, self._final_observations[rows], self.state[:, rows.to(self.device)]))
                ended = torch.from_numpy(np.flatnonzero(done)).to(self.device)
                self.state.index_fill_(1, ended, 0)  # few rows: less than a pass over all
                if t < self.horizon - 1:
                    rollout.done_counts += done
            if stop_after(t + 1):
                break
        # The value of what comes next; the state stays as it is, for the next rollout acts on this observation.
        rollout.last_values.copy_(acting(policy, self._normalize(self._observations.to(self.device)), self.state)[1])
        if cut_off:
            self._bootstrap(rollout, cut_off)
        return rollout if t == self.horizon - 1 else rollout.first(t + 1)

    def _bootstrap(self, rollout: Rollout, cut_off: list[tuple[int, Tensor, Tensor, Tensor]]) -> None:
        """Values of the truncated episodes' final observations, all in one call."""
        observations = torch.cat([part[2] for part in cut_off]).to(self.device)
        state = torch.cat([part[3] for part in cut_off], 1)
        values = acting(self.policy, self.normalizer(observations), state)[1]
        where = torch.cat([step * self.pool.rows + rows for step, rows, _, _ in cut_off]).to(self.device)
        rollout.final_values.view(-1)[where] = values

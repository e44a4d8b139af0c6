"""Collects experience and cuts it into minibatches.

Legend: T horizon, E this learner's environments, A agents of each, N = E * A rows, C action components, L x H recurrent
state, M minibatches, S = N / M rows of a minibatch (its segments).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer.envs import EnvPool
from dist_trainer.keyed import keyed_seed
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy, acting

NOT_PER_STEP = ("last_values", "initial_state", "done_counts")


@dataclass
class Rollout:
    """obs[t] -> actions[t] -> rewards[t], done[t]; done[t] says that obs[t+1] begins the next episode."""

    observations: Tensor  # (T, N, *observation_shape) as the environment gives them
    actions: Tensor  # (T, N, C)
    log_probs: Tensor  # (T, N) of the actions when acting
    values: Tensor  # (T, N)
    rewards: Tensor  # (T, N)
    terminated: Tensor  # (T, N) bool
    done: Tensor  # (T, N) bool: terminated or truncated
    final_values: Tensor  # (T, N) value of the final observation where truncated, else 0
    last_values: Tensor  # (N,) value of obs[T]
    initial_state: Tensor  # (L, N, H) recurrent state before obs[0]
    done_counts: NDArray[np.int64]  # (N,) dones in the first T - 1 steps, known on the host

    @property
    def horizon(self) -> int:
        return len(self.rewards)

    def first(self, steps: int) -> Rollout:
        """Its first `steps` steps; the values after the last of them must be in last_values."""
        per_step = {f.name: getattr(self, f.name)[:steps] for f in fields(self) if f.name not in NOT_PER_STEP}
        return replace(self, **per_step)


@dataclass
class Minibatch:
    """S segments of a rollout, with what the advantage computation adds. Shapes as in Rollout with S for N."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    done: Tensor
    advantages: Tensor
    targets: Tensor
    initial_state: Tensor
    max_done: int


class Collector:
    """Drives the pool with the policy. Owns the recurrent state, which is carried from rollout to rollout."""

    def __init__(
        self, pool: EnvPool, policy: Policy, normalizer: ObservationNormalizer, horizon: int, device: torch.device
    ):
        self.pool, self.policy, self.normalizer, self.horizon, self.device = pool, policy, normalizer, horizon, device
        self.state = policy.initial_state(pool.rows)  # (L, N, H) before the pool's current observation
        # torch's view of the pool's buffers
        self._observations = torch.from_numpy(pool.observations)
        self._final_observations = torch.from_numpy(pool.final_observations)
        self._actions = torch.from_numpy(pool.actions)
        self._noise = torch.from_numpy(pool.noise)
        self._rewards = torch.from_numpy(pool.rewards)
        self._terminated = torch.from_numpy(pool.terminated)
        self._truncated = torch.from_numpy(pool.truncated)
        self._rollout = self._allocate()

    def _allocate(self) -> Rollout:
        steps, rows, dtype = self.horizon, self.pool.rows, self.normalizer.dtype

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        spec = self.pool.spec
        # Continuous actions keep the policy's type: what was sampled, not what the environment rounded and clipped.
        action_type = dtype if spec.action_kind == "continuous" else torch.int32
        return Rollout(
            observations=empty(steps, rows, *spec.observation_shape, dtype=self._observations.dtype),
            actions=empty(steps, rows, spec.action_components, dtype=action_type),
            log_probs=empty(steps, rows),
            values=empty(steps, rows),
            rewards=empty(steps, rows),
            terminated=empty(steps, rows, dtype=torch.bool),
            done=empty(steps, rows, dtype=torch.bool),
            final_values=empty(steps, rows),
            last_values=empty(rows),
            initial_state=torch.empty_like(self.state),
            done_counts=np.zeros(rows, np.int64),
        )

    @torch.no_grad()
    def collect(self, stop_after: Callable[[int], bool] = lambda steps: False) -> Rollout:
        """The next T steps of every environment, or fewer: it ends when `stop_after` is true of the steps it has. The
        result's buffers are reused by the next call."""
        rollout, pool, policy = self._rollout, self.pool, self.policy
        rollout.initial_state.copy_(self.state)
        rollout.final_values.zero_()
        rollout.done_counts.fill(0)
        cut_off: list[tuple[int, Tensor, Tensor, Tensor]] = []  # step, rows, final observations, state before the reset
        for t in range(self.horizon):
            rollout.observations[t].copy_(self._observations)
            parameters, values, self.state = acting(policy, self.normalizer(rollout.observations[t]), self.state)
            actions = policy.action_head.sample(parameters, self._noise.to(self.device))
            self._actions.copy_(actions)
            pool.send()
            rollout.actions[t].copy_(actions)
            rollout.values[t].copy_(values)
            rollout.log_probs[t].copy_(policy.action_head.log_prob_and_entropy(parameters, actions)[0])
            pool.recv()
            rollout.rewards[t].copy_(self._rewards)
            rollout.terminated[t].copy_(self._terminated)
            done = self._terminated | self._truncated
            if pool.truncated.any():
                rows = self._truncated.nonzero().flatten()
                cut_off.append((t, rows, self._final_observations[rows], self.state[:, rows.to(self.device)]))
            rollout.done[t].copy_(done)
            if done.any():
                self.state = self.state.masked_fill(rollout.done[t][None, :, None], 0)
                if t < self.horizon - 1:
                    rollout.done_counts += done.numpy()
            if stop_after(t + 1):
                break
        # The value of what comes next; the state stays as it is, for the next rollout acts on this observation.
        rollout.last_values.copy_(acting(policy, self.normalizer(self._observations.to(self.device)), self.state)[1])
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


def minibatch_rows(
    seed: int, iteration: int, epoch: int, *, total_envs: int, minibatches: int, envs: range, agents: int
) -> Tensor:
    """Which rows of this learner go to which minibatch: (M, S) int64.

    M consecutive global environments form a group. Every update epoch draws one permutation of 0..M-1 for each group,
    from a generator that all learners seed alike; position k goes to minibatch k. The split of the global environments
    is so the same for any number of learners that own whole groups.

    Args:
        envs: the global ids of this learner's environments.
    """
    generator = torch.Generator().manual_seed(keyed_seed(seed, "minibatches", iteration, epoch))
    order = torch.rand(total_envs // minibatches, minibatches, generator=generator).argsort(1)  # (groups, M)
    mine = order[envs.start // minibatches : envs.stop // minibatches]  # (E / M, M)
    local_env = mine + minibatches * torch.arange(len(mine))[:, None]
    rows = local_env.T[:, :, None] * agents + torch.arange(agents)  # (M, E / M, A)
    return rows.flatten(1)


def take_minibatch(rollout: Rollout, advantages: Tensor, targets: Tensor, rows: Tensor, max_done: int) -> Minibatch:
    """The segments `rows` (S,) of a rollout. `max_done`: at least the largest of their done_counts."""

    def take(tensor: Tensor) -> Tensor:
        return tensor.index_select(1, rows)

    return Minibatch(
        observations=take(rollout.observations),
        actions=take(rollout.actions),
        log_probs=take(rollout.log_probs),
        values=take(rollout.values),
        done=take(rollout.done),
        advantages=take(advantages),
        targets=take(targets),
        initial_state=take(rollout.initial_state),
        max_done=max_done,
    )

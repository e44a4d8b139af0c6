"""Experience, and how it is cut into minibatches.

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

from dist_trainer.device_link import to_device
from dist_trainer.envs import EnvSpec
from dist_trainer.keyed import keyed_seed
from dist_trainer.prefetch import read_rows

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
    legal: Tensor | None = None  # (T, N, K) bool: which of the choices of all components could be made; None: all
    acts: Tensor | None = None  # (T, N) bool: false where an agent was resting, and nothing counts; None: all act

    @property
    def horizon(self) -> int:
        return len(self.rewards)

    def first(self, steps: int) -> Rollout:
        """Its first `steps` steps; the values after the last of them must be in last_values."""
        per_step = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_PER_STEP}
        return replace(self, **{name: value[:steps] for name, value in per_step.items() if value is not None})


def empty_rollout(
    spec: EnvSpec,
    horizon: int,
    state: Tensor,
    dtype: torch.dtype,
    observation_device: torch.device,
    some_rest: bool = False,
) -> Rollout:
    """Room for a rollout of the environments whose recurrent state is like `state` (L, N, H); all but the observations
    are where that is. `dtype`: the policy's. `some_rest`: not everyone acts, even if the environment lets nobody rest.
    """
    rows, device = state.shape[1], state.device

    def empty(*shape: int, dtype: torch.dtype = dtype, device: torch.device = device) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    observation_type = torch.uint8 if spec.observation_is_bytes else torch.float32
    # Continuous actions keep the policy's type: what was sampled, not what the environment rounded and clipped.
    action_type = dtype if spec.action_kind == "continuous" else torch.int32
    return Rollout(
        observations=empty(horizon, rows, *spec.observation_shape, dtype=observation_type, device=observation_device),
        actions=empty(horizon, rows, spec.action_components, dtype=action_type),
        log_probs=empty(horizon, rows),
        values=empty(horizon, rows),
        rewards=empty(horizon, rows),
        terminated=empty(horizon, rows, dtype=torch.bool),
        done=empty(horizon, rows, dtype=torch.bool),
        final_values=empty(horizon, rows),
        last_values=empty(rows),
        initial_state=torch.empty_like(state),
        done_counts=np.zeros(rows, np.int64),
        legal=empty(horizon, rows, sum(spec.action_sizes), dtype=torch.bool) if spec.has_legal else None,
        acts=empty(horizon, rows, dtype=torch.bool) if spec.has_resting or some_rest else None,
    )


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
    legal: Tensor | None = None
    acts: Tensor | None = None


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


def take_minibatch(
    rollout: Rollout,
    advantages: Tensor,
    targets: Tensor,
    rows: Tensor,
    max_done: int,
    read: Callable[[Tensor, Tensor], Tensor] = read_rows,
) -> Minibatch:
    """The segments `rows` (S,) of a rollout; they may be given on the host. `max_done`: at least the largest of their
    done_counts. `read` takes rows of the observations, which may be on the host as well.
    """
    index = to_device(rows, rollout.values.device)

    def take(tensor: Tensor) -> Tensor:
        return tensor.index_select(1, index)

    return Minibatch(
        observations=to_device(read(rollout.observations, rows), index.device),
        actions=take(rollout.actions),
        log_probs=take(rollout.log_probs),
        values=take(rollout.values),
        done=take(rollout.done),
        advantages=take(advantages),
        targets=take(targets),
        initial_state=take(rollout.initial_state),
        max_done=max_done,
        legal=None if rollout.legal is None else take(rollout.legal),
        acts=None if rollout.acts is None else take(rollout.acts),
    )

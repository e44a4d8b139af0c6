"""Collects rollouts: the policy acts for one group of environments while the others step.

Legend: T horizon, E this learner's environments, A agents of each, N = E * A rows, n = N / G rows of a group,
C action components, L x H recurrent state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer.acting import ActingStep
from dist_trainer.device_link import DeviceLink, to_device
from dist_trainer.env_groups import EnvGroups
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.past_team import PastTeam
from dist_trainer.policies import Policy, acting
from dist_trainer.pools import Pool
from dist_trainer.rollout import Rollout, empty_rollout
from dist_trainer.stopwatch import Phase

PER_STEP = ("observations", "actions", "log_probs", "values", "rewards", "terminated", "done", "legal", "acts")


@dataclass
class Row:
    """A group's part of one step of a rollout, (n, ...) each: views."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    terminated: Tensor
    done: Tensor
    legal: Tensor | None = None
    acts: Tensor | None = None


@dataclass
class CutOff:
    """Episodes that were truncated in one step."""

    where: NDArray[np.int64]  # (K,) in the flattened (T * N,) rollout
    observations: NDArray[np.generic]  # (K, *observation_shape) their final ones
    state: Tensor  # (L, K, H) before the reset


class Group:
    """One pool, and the policy's part in stepping it."""

    past: PastTeam | None = None  # who acts for some of the rows

    def __init__(self, pool: Pool, step: ActingStep, link: DeviceLink, first_row: int, rollout: Rollout):
        self.pool, self.step, self.link, self.first_row, self.rollout = pool, step, link, first_row, rollout
        self.columns = slice(first_row, first_row + pool.rows)
        on_host = rollout.observations.device.type == "cpu"
        self.seen = torch.from_numpy(pool.observations) if on_host else link.incoming.observations
        per_step = {name: getattr(rollout, name) for name in PER_STEP}
        views = {name: x[:, self.columns].unbind() for name, x in per_step.items() if x is not None}
        self.rows = [Row(**{name: view[t] for name, view in views.items()}) for t in range(rollout.horizon)]
        self.ended = np.zeros((rollout.horizon, pool.rows), np.bool_)  # `done`, on the host
        self.cut_off: list[CutOff] = []

    def begin(self) -> None:
        self.cut_off.clear()
        self.link.receive()
        self.step.prepare()
        if self.past:
            self.past.prepare()
        self.rollout.initial_state[:, self.columns].copy_(self.step.state)

    def act(self, t: int) -> None:
        """Chooses the actions of step t; the environments set out."""
        row, step = self.rows[t], self.step
        with Phase("copies"):
            row.observations.copy_(self.seen)
            self._copy_rights(row)
        with Phase("inference"):
            (self.past or step).run()
        with Phase("copies"):
            self.link.answer(step.decision.actions)
            row.actions.copy_(step.decision.actions)
            row.log_probs.copy_(step.decision.log_probs)
            row.values.copy_(step.decision.values)
            self.link.wait()
        with Phase("environments"):
            self.pool.send()

    def _copy_rights(self, row: Row) -> None:
        """Who acts, and on what choices."""
        incoming = self.link.incoming
        if row.legal is not None and incoming.legal is not None:
            row.legal.copy_(incoming.legal)
        if row.acts is not None and incoming.resting is not None:
            torch.logical_not(incoming.resting, out=row.acts)
            if self.past:
                row.acts.index_fill_(0, self.past.rows, False)

    def receive(self, t: int) -> None:
        """What came of step t, once the environments are there. What the host must know it reads from the pool."""
        row, pool, incoming = self.rows[t], self.pool, self.link.incoming
        with Phase("environments"):
            pool.recv()
        with Phase("copies"):
            self.link.receive()
            row.rewards.copy_(incoming.rewards)
            row.terminated.copy_(incoming.terminated)
            torch.logical_or(incoming.terminated, incoming.truncated, out=row.done)
        np.logical_or(pool.terminated, pool.truncated, out=self.ended[t])
        if np.count_nonzero(pool.truncated):
            self._keep_cut_off(t)

    def _keep_cut_off(self, t: int) -> None:
        rows = np.flatnonzero(self.pool.truncated)
        state = self.step.state  # not yet reset: the next step begins with that
        where = t * self.rollout.initial_state.shape[1] + self.first_row + rows
        chosen = state.index_select(1, to_device(torch.from_numpy(rows), state.device))
        self.cut_off.append(CutOff(where, self.pool.final_observations[rows], chosen))


class Collector:
    """Drives the pools with the policy. Owns the recurrent state, which is carried from rollout to rollout."""

    def __init__(
        self,
        pool: EnvGroups,
        policy: Policy,
        normalizer: ObservationNormalizer,
        horizon: int,
        device: torch.device,
        *,
        cuda_graphs: bool = False,
        rollout_memory: str = "device",
        past: tuple[Policy, ObservationNormalizer] | None = None,
        past_rows: NDArray[np.bool_] | None = None,
    ):
        """`past`: who acts for `past_rows` (N,), of which nothing is learned and no episode counts."""
        self.policy, self.normalizer, self.horizon, self.device = policy, normalizer, horizon, device
        state = policy.initial_state(pool.rows)
        observation_device = torch.device("cpu") if rollout_memory == "host" else device
        self._rollout = empty_rollout(
            pool.spec, horizon, state, normalizer.dtype, observation_device, some_rest=past is not None
        )
        self.groups = []
        for index, own in enumerate(pool.pools):
            link = DeviceLink(own, device)
            step = ActingStep(policy, normalizer, link.incoming, graph=cuda_graphs and device.type == "cuda")
            self.groups.append(Group(own, step, link, index * own.rows, self._rollout))
            if past and past_rows is not None:
                self._hand_over(self.groups[-1], past, past_rows)

    def _hand_over(
        self, group: Group, past: tuple[Policy, ObservationNormalizer], past_rows: NDArray[np.bool_]
    ) -> None:
        its = past_rows[group.columns]
        group.pool.silent[:] = its
        rows = torch.from_numpy(np.flatnonzero(its))
        if self._rollout.acts is not None:  # for good, where nobody else ever rests
            self._rollout.acts[:, group.columns] = torch.from_numpy(~its).to(self._rollout.acts.device)
        if len(rows):
            group.past = PastTeam(group.step, *past, rows, graph=group.step.graph)

    @property
    def state(self) -> Tensor:
        """(L, N, H) before the pools' current observations."""
        state = torch.cat([group.step.state for group in self.groups], 1)
        return state.to(self._rollout.initial_state.dtype)

    @state.setter
    def state(self, state: Tensor) -> None:
        for group in self.groups:
            group.step.state.copy_(state[:, group.columns])  # in place: a graph holds it

    @torch.no_grad()
    def collect(self, stop_after: Callable[[int], bool] = lambda steps: False) -> Rollout:
        """The next T steps of every environment, or fewer: it ends when `stop_after` is true of the steps it has. The
        result's buffers are reused by the next call."""
        rollout, steps = self._rollout, 0
        rollout.final_values.zero_()
        for group in self.groups:
            group.begin()
        for t in range(self.horizon):
            for group in self.groups:
                if t > 0:
                    group.receive(t - 1)
                group.act(t)
            steps = t + 1
            if stop_after(steps):
                break
        for group in self.groups:
            group.receive(steps - 1)
            rollout.last_values[group.columns].copy_(group.step.value())
            rollout.done_counts[group.columns] = group.ended[: steps - 1].sum(0)
        self._bootstrap(rollout, [part for group in self.groups for part in group.cut_off])
        return rollout if steps == self.horizon else rollout.first(steps)

    def _bootstrap(self, rollout: Rollout, cut_off: list[CutOff]) -> None:
        """Values of the truncated episodes' final observations, all in one call."""
        if not cut_off:
            return
        final = torch.from_numpy(np.concatenate([part.observations for part in cut_off]))
        state = torch.cat([part.state for part in cut_off], 1)
        values = acting(self.policy, self.normalizer(to_device(final, self.device)), state)[1]
        where = torch.from_numpy(np.concatenate([part.where for part in cut_off]))
        rollout.final_values.view(-1).index_copy_(0, to_device(where, self.device), values)

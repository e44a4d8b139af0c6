"""A pool over somebody else's engine (gymnasium_engine.py, envpool_engine.py), with the face of envs.EnvPool.

Buffers, noise, statistics and checks are as the C++ pool's; what happens in a step is the engine's alone. Nothing is
done for each environment in Python. An engine has no snapshot: a restored pool begins new episodes.

Legend: N environments, one row each, C action components.
"""

from __future__ import annotations

import math
import mmap
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.envs import INCOMING, EnvSpec, WorkSpan, draw_noise, reset_seeds

CACHE_LINE = 64


@dataclass(frozen=True)
class Outcome:
    """Of a step of all environments. Without `final_observations` the engine resets an environment in the step after
    the last of its episode: what it shows now is the final observation, and that step counts for nothing."""

    observations: NDArray[Any]  # (N, *observation_shape)
    rewards: NDArray[Any]  # (N,)
    terminated: NDArray[np.bool_]  # (N,)
    truncated: NDArray[np.bool_]  # (N,)
    final_observations: Callable[[NDArray[np.int64]], NDArray[Any]] | None = None  # of these rows, which ended


class Engine(Protocol):
    resets_at_once: bool  # within the step that ends the episode; else one step later

    def begin(self, seeds: list[int]) -> NDArray[Any]:
        """(N, *observation_shape) the first observations of new episodes."""

    def send(self, actions: NDArray[Any]) -> None:
        """Starts a step with (N, C)."""

    def recv(self) -> Outcome:
        """Waits until it is done. Arrays are the caller's until the next send()."""

    def close(self) -> None:
        """Ends what runs for it."""


def page_aligned(layout: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
    """A zeroed block on pages of its own, and in it arrays of these types and shapes, each on its own cache lines."""
    offsets, total = {}, 0
    for name, (dtype, shape) in layout.items():
        offsets[name] = total
        total += -(-math.prod(shape) * np.dtype(dtype).itemsize // CACHE_LINE) * CACHE_LINE
    block = np.frombuffer(mmap.mmap(-1, max(total, 1)), np.uint8)
    return block, {name: np.ndarray(shape, dtype, block, offsets[name]) for name, (dtype, shape) in layout.items()}


class ForeignPool:
    """See envs.EnvPool, whose attributes these are."""

    keeps_state = False  # across snapshot and restore

    incoming: NDArray[np.uint8]
    incoming_layout: dict[str, tuple[int, str, tuple[int, ...]]]
    observations: NDArray[Any]
    final_observations: NDArray[Any]
    actions: NDArray[Any]
    noise: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    legal: NDArray[np.bool_]  # never there
    resting: NDArray[np.bool_]  # if the engine resets a step later
    silent: NDArray[np.bool_]  # never there: these environments have one agent
    statistics: NDArray[np.float64]

    def __init__(self, config: EnvConfig, spec: EnvSpec, engine: Engine, *, num_envs: int, first_env: int, seed: int):
        self.spec = replace(spec, has_resting=not engine.resets_at_once)
        self.num_envs, self._config, self._engine = num_envs, config, engine
        self._first_env, self._seed = first_env, seed
        seen = ("uint8" if spec.observation_is_bytes else "float32", (num_envs, *spec.observation_shape))
        taken = ("float32" if spec.action_kind == "continuous" else "int32", (num_envs, spec.action_components))
        layout = {"observations": seen, "noise": ("float32", taken[1]), "rewards": ("float32", (num_envs,))}
        layout |= dict.fromkeys(("terminated", "truncated", "resting"), ("bool", (num_envs,)))
        if engine.resets_at_once:
            del layout["resting"]
        self.incoming, inside = page_aligned(layout)
        outside = page_aligned({"actions": taken})[1] | page_aligned({"final_observations": seen})[1]
        for name, array in (inside | outside).items():
            setattr(self, name, array)
        self.incoming_layout = {
            name: (inside[name].ctypes.data - self.incoming.ctypes.data, inside[name].dtype.name, inside[name].shape)
            for name in INCOMING
            if name in inside
        }
        self.statistics = np.zeros((num_envs, 3))
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs)
        self._steps = np.zeros(num_envs, np.uint64)  # of each environment since the run began
        self._low, self._high = np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)
        self._ready = False
        self._traced, self._sent_ns = False, 0
        self._spans: list[WorkSpan] = []
        weakref.finalize(self, engine.close)

    @property
    def rows(self) -> int:
        return self.num_envs

    @property
    def memory_bytes(self) -> int:
        return self.incoming.nbytes + self.actions.nbytes + self.final_observations.nbytes

    def reset(self) -> None:
        self._begin(np.zeros(self.num_envs, np.uint64))

    def send(self) -> None:
        """Raises IndexError if an action is invalid."""
        if not self._ready:
            raise RuntimeError("send() on a pool that is new, or whose last step failed: call reset() or restore()")
        self._check_actions()
        self._ready = False
        self._sent_ns = time.monotonic_ns()
        self._engine.send(self.actions)

    def recv(self) -> None:
        """Raises RuntimeError that names the environment if what it gives cannot be, and whatever the engine raises."""
        outcome = self._engine.recv()
        if self._traced:
            self._spans.append(WorkSpan(self._sent_ns, time.monotonic_ns(), worker=0))
        self._steps += 1
        self.rewards[:] = outcome.rewards
        self.terminated[:] = outcome.terminated
        np.logical_and(outcome.truncated, ~self.terminated, out=self.truncated)
        rested = self.resting.copy() if self.spec.has_resting else np.zeros(self.num_envs, np.bool_)
        for result in (self.rewards, self.terminated, self.truncated):  # of the step that reset it
            result[rested] = 0
        self._check("reward", self.rewards)
        self._returns += self.rewards
        self._lengths += ~rested
        ended = self.terminated | self.truncated
        if ended.any():
            self._finish(ended, outcome)
        if self.spec.has_resting:
            self.resting[:] = ended
            self.terminated |= rested  # who is back has an empty memory
        self._show(outcome.observations)
        self._ready = True

    def _finish(self, ended: NDArray[np.bool_], outcome: Outcome) -> None:
        """Keeps what is known of episodes that are over."""
        cut_off = np.flatnonzero(self.truncated)
        if len(cut_off):
            of = outcome.final_observations
            with np.errstate(over="ignore"):
                self.final_observations[cut_off] = of(cut_off) if of else outcome.observations[cut_off]
            self._check("final observation", self.final_observations)
        self.statistics[ended] += np.stack([ended, self._returns, self._lengths], 1)[ended]
        self._returns[ended] = self._lengths[ended] = 0

    def trace(self, on: bool) -> None:
        """Whether to note steps, from now on: each from send() to recv(), of the engine as a whole."""
        self._traced = on

    def take_spans(self) -> list[WorkSpan]:
        """What was noted since the last call."""
        spans, self._spans = self._spans, []
        return spans

    def take_faults(self) -> list[str]:
        """None: an engine that fails ends the run."""
        return []

    def take_statistics(self) -> NDArray[np.float64]:
        """(3,): episodes, sum of returns, sum of lengths, since the last call."""
        total: NDArray[np.float64] = np.add.accumulate(self.statistics)[-1]
        self.statistics[:] = 0
        return total

    def snapshot(self) -> NDArray[np.uint8]:
        """(num_envs, 8): how many steps each has made, so that what comes after a restore is drawn anew."""
        return self._steps.view(np.uint8).reshape(self.num_envs, 8).copy()

    def restore(self, rows: NDArray[np.uint8]) -> None:
        """Begins new episodes. Raises ValueError if the rows are not of as many environments."""
        if rows.shape != (self.num_envs, 8) or rows.dtype != np.uint8:
            raise ValueError(f"a snapshot of this pool has shape ({self.num_envs}, 8)")
        self._begin(np.ascontiguousarray(rows).view(np.uint64).reshape(-1))

    def _begin(self, steps: NDArray[np.uint64]) -> None:
        for array in (self.rewards, self.terminated, self.truncated, self.statistics, self._returns, self._lengths):
            array[:] = 0
        if self.spec.has_resting:
            self.resting[:] = False
        self._steps[:] = steps
        self._show(self._engine.begin(reset_seeds(self._seed, self._first_env, steps)))
        self._ready = True

    def _show(self, observations: NDArray[Any]) -> None:
        if observations.shape != self.observations.shape:
            space, shown = self.observations.shape[1:], observations.shape[1:]
            raise RuntimeError(f"{self._config.id} shows observations of shape {shown}; its space says {space}")
        with np.errstate(over="ignore"):  # the check tells it
            self.observations[:] = observations
        self._check("observation", self.observations)
        draw_noise(self._seed, self._first_env, self._steps, self.noise)

    def _check(self, what: str, values: NDArray[Any]) -> None:
        if not self._config.check or values.dtype.kind != "f":
            return
        good = np.isfinite(values)
        if not good.all():
            row = int(np.flatnonzero(~good.reshape(self.num_envs, -1).all(1))[0])
            where = f"environment {self._first_env + row} of {self._config.id}"
            raise RuntimeError(f"{where}: an entry of its {what} is not finite (step {self._steps[row]})")

    def _check_actions(self) -> None:
        if self.spec.action_kind == "continuous":
            good = ~np.isnan(self.actions)
            np.clip(self.actions, self._low, self._high, out=self.actions)
        else:
            good = (self.actions >= 0) & (self.actions < np.array(self.spec.action_sizes))
        if not good.all():
            row, component = np.argwhere(~good)[0]
            where = f"action component {component} of environment {self._first_env + row} of {self._config.id}"
            raise IndexError(f"{where} is {self.actions[row, component]}, which is not valid")

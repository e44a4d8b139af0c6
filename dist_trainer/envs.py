"""The Python face of the C++ environments: which there are, what they look like, and the pool that steps them.

The only file that touches the C++ module. Buffers are numpy views of the pool's shared memory, never copies; nothing
here imports torch.

Legend: E global environments, A agents per environment, N = E/W * A agent rows of this pool, C action components.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.errors import ConfigError, choices

# What lies in EnvPool.incoming; the last two of environments that have them.
INCOMING = ("observations", "noise", "rewards", "terminated", "truncated", "legal", "resting")


@dataclass(frozen=True)
class EnvSpec:
    """What one agent sees and does. `action_kind`: discrete | multi_discrete | continuous."""

    observation_shape: tuple[int, ...]
    observation_is_bytes: bool  # uint8, else float32
    action_kind: str
    action_sizes: tuple[int, ...]  # choices of each component; empty if continuous
    action_low: tuple[float, ...]  # bounds of each component; empty if discrete
    action_high: tuple[float, ...]
    num_agents: int
    metrics: tuple[str, ...]  # names of what the environment reports at the end of an episode
    has_legal: bool = False  # not every action is legal at all times
    has_resting: bool = False  # agents may die, wait and come back
    teams: int = 1  # equal, contiguous parts of the agents, which play against each other
    picture: tuple[int, int] | None = None  # height and width, in pixels, of what EnvPool.render gives

    @property
    def sample_bytes(self) -> int:
        """Of one agent's step in a rollout, about: the observation, the action, and 30 bytes of scalars."""
        observation = math.prod(self.observation_shape) * (1 if self.observation_is_bytes else 4)
        return observation + 4 * self.action_components + 30

    @property
    def action_components(self) -> int:
        return len(self.action_sizes) or len(self.action_low)


class WorkSpan(NamedTuple):
    """When a thread or a process of a pool worked on one step of its environments."""

    begin_ns: int  # of time.monotonic_ns
    end_ns: int
    worker: int
    group: int = 0  # the pool's, of env_groups


def _checked_params(config: EnvConfig) -> dict[str, float]:
    for name, value in config.params.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"env.params.{name}", value, "must be a number")
    return {str(name): float(value) for name, value in config.params.items()}


def env_names() -> list[str]:
    return _cpp_envs.env_names()


def load_library(library: str | None) -> None:
    """Adds the environments of a shared library. Its code runs from now on: whoever calls this trusts it.

    Raises ConfigError if it cannot be loaded, or was built against something else than is here.
    """
    if library is None:
        return
    try:
        _cpp_envs.load_library(library)
    except RuntimeError as error:
        raise ConfigError("env.library", library, str(error)) from None


def default_params(name: str) -> dict[str, float]:
    """Every parameter that the C++ struct declares. Raises ConfigError if there is no such environment."""
    if name not in env_names():
        raise ConfigError("env.name", name, "no such environment; " + choices(env_names(), str(name)))
    return {key: int(x) if x.is_integer() else x for key, x in _cpp_envs.default_params(name).items()}


def env_spec(config: EnvConfig) -> EnvSpec:
    """Raises ConfigError if there is no such environment or parameter, or a parameter is out of its range, or its
    library cannot be loaded."""
    load_library(config.library)
    default_params(config.name)
    try:
        spec = _cpp_envs.spec(config.name, _checked_params(config))
    except ValueError as error:  # says field, value and valid range
        field, _, rest = str(error).partition("=")
        value, _, valid = rest.partition(": ")
        raise ConfigError(field, value, valid) from None
    return EnvSpec(
        observation_shape=tuple(spec.observation_shape),
        observation_is_bytes=_cpp_envs.observations_are_bytes(config.name),
        action_kind=spec.action.kind,
        action_sizes=tuple(spec.action.sizes),
        action_low=tuple(spec.action.low),
        action_high=tuple(spec.action.high),
        num_agents=spec.num_agents,
        metrics=tuple(spec.metrics),
        has_legal=_cpp_envs.has_legal(config.name),
        has_resting=_cpp_envs.has_resting(config.name),
        teams=spec.teams,
        picture=spec.picture if any(spec.picture) else None,
    )


def cores_to_pin(threads: int, local_rank: int, local_size: int) -> list[int]:
    """The cores for the threads of a pool, one each, or none if they are better left to the scheduler.

    The learners of a machine divide the cores that this process may use (its affinity mask, which Slurm and containers
    narrow) into equal parts. Nothing is pinned if there are more threads than cores in a part, nor if only some cores
    of a whole machine would be used: other runs would crowd on the same first ones.
    """
    allowed = sorted(os.sched_getaffinity(0))
    share = len(allowed) // local_size
    ours = threads == share or len(allowed) < (os.cpu_count() or 0)
    return allowed[local_rank * share :][:threads] if threads <= share and ours else []


def _processes(config: EnvConfig) -> _cpp_envs.ProcessConfig:
    return _cpp_envs.ProcessConfig(
        program=str(Path(_cpp_envs.__file__).with_name("env_worker")),  # built and installed with the module
        step_timeout_s=config.step_timeout_s,
        max_restarts=config.max_restarts,
        memory_bytes=(config.worker_memory_mb or 0) * 2**20,
    )


class EnvPool:
    """This learner's slice of the global environments.

    One cycle: read `observations` and `noise`, write `actions`, `send()`, `recv()`, read `rewards`, `terminated`,
    `truncated` and the next `observations`; rows that were truncated also have `final_observations`.

    All that the policy needs after `recv()` lies in one block, `incoming`, on pages of memory that hold nothing else:
    one copy brings it to another device, and the block can be page-locked for that. `actions` has its own pages too.
    """

    keeps_state = True  # across snapshot and restore

    incoming: NDArray[np.uint8]  # (bytes,) what INCOMING names, and gaps
    incoming_layout: dict[str, tuple[int, str, tuple[int, ...]]]  # name: (offset in bytes, numpy dtype, shape)

    observations: NDArray[Any]  # (N, *observation_shape) float32 or uint8
    final_observations: NDArray[Any]  # the same; written only where truncated
    actions: NDArray[Any]  # (N, C) int32, or float32 if continuous (clipped to the bounds by the pool)
    noise: NDArray[np.float32]  # (N, C) uniform in (0, 1), new for every step, to sample the action with
    rewards: NDArray[np.float32]  # (N,)
    terminated: NDArray[np.bool_]  # (N,)
    truncated: NDArray[np.bool_]  # (N,)
    legal: NDArray[np.bool_]  # (N, K) which of the K choices of all components may be made next; if spec.has_legal
    resting: NDArray[np.bool_]  # (N,) who does not act next: its actions count for nothing; if spec.has_resting
    silent: NDArray[np.bool_]  # (N,) the caller's, at first all false: whose episodes are left out of the statistics
    statistics: NDArray[np.float64]  # (E/W, 3 + metrics): what take_statistics sums up, per environment

    def __init__(
        self,
        config: EnvConfig,
        *,
        num_envs: int,
        first_env: int,
        seed: int,
        threads: int,
        cores: Sequence[int] = (),
    ):
        """`threads` step the environments, the caller's own among them: it helps in `recv()`, and with one thread
        `send()` does everything. Thread i is pinned to `cores[i]`, the caller excepted; see cores_to_pin. With
        `config.workers` "processes" as many processes do, and the caller waits for them.

        Raises ConfigError as env_spec does, ValueError if a size is out of range or there are fewer cores than threads,
        RuntimeError if a thread may not run on its core or a process cannot be started.
        """
        self.spec = env_spec(config)
        self.num_envs = num_envs
        self._pool = _cpp_envs.Pool(
            name=config.name,
            params=_checked_params(config),
            num_envs=num_envs,
            first_env=first_env,
            seed=seed,
            threads=threads,
            cores=list(cores),
            check=config.check,
            processes=_processes(config) if config.workers == "processes" else None,
            library=config.library or "",
        )
        buffers = self._pool.buffers()
        for name, buffer in buffers.items():
            setattr(self, name, buffer)
        self.incoming = self._pool.incoming()
        self.incoming_layout = {name: self._place(buffers[name]) for name in INCOMING if name in buffers}

    def _place(self, buffer: NDArray[Any]) -> tuple[int, str, tuple[int, ...]]:
        return buffer.ctypes.data - self.incoming.ctypes.data, buffer.dtype.name, buffer.shape

    @property
    def rows(self) -> int:
        return self.num_envs * self.spec.num_agents

    @property
    def memory_bytes(self) -> int:
        return self._pool.memory_bytes

    def reset(self) -> None:
        self._pool.reset()

    def send(self) -> None:
        self._pool.send()

    def recv(self) -> None:
        """Raises RuntimeError that names the environment and the step if one failed; with processes only if
        `max_restarts` are exceeded. IndexError if an action was invalid."""
        self._pool.recv()

    def take_faults(self) -> list[str]:
        """A line for every worker process that was lost since the last call: the environment, why, and where."""
        return self._pool.take_faults()

    def take_statistics(self) -> NDArray[np.float64]:
        """(3 + metrics,): episodes, sum of returns, sum of lengths, sums of metrics, since the last call."""
        return np.array(self._pool.take_statistics())

    def trace(self, on: bool) -> None:
        """Whether to note when each thread or process works, from now on. Raises RuntimeError while a step is in
        flight."""
        self._pool.trace(on)

    def take_spans(self) -> list[WorkSpan]:
        """What was noted since the last call."""
        return [WorkSpan(begin, end, worker) for worker, begin, end in self._pool.take_spans()]

    def snapshot(self) -> NDArray[np.uint8]:
        """(num_envs, bytes): the whole state, one row per environment, so that it can be cut over other pools."""
        return self._pool.snapshot()

    def restore(self, rows: NDArray[np.uint8]) -> None:
        """Raises ValueError if the rows are not of this environment and number of environments."""
        self._pool.restore(rows)

    def keep_ends(self) -> None:
        """From now on render() can show how episodes ended. Raises RuntimeError where processes step."""
        self._pool.keep_ends()

    def ends(self, env: int) -> int:
        """How many episodes of all its agents together environment `env` has ended since keep_ends()."""
        return self._pool.ends(env)

    def render(self, env: int, at_end: bool = False) -> NDArray[np.uint8]:
        """(*spec.picture, 3), red, green and blue: environment `env` of this pool, 0 to num_envs - 1, as it now is.

        A step that ends an episode begins the next one. `at_end`: the last state of the latest episode that ended since
        keep_ends(). Raises ValueError if this environment has no picture, IndexError if the pool has no such
        environment, RuntimeError while a step is in flight, or if no episode has ended.
        """
        return self._pool.render(env, at_end)

    def places(self, env: int) -> NDArray[np.float32] | None:
        """(agents, 2), x and y in the picture of where each agent is, negative if it is nowhere; None if the
        environment does not say. Raises as render()."""
        return self._pool.places(env)


def draw_noise(seed: int, first_env: int, steps: NDArray[np.uint64], noise: NDArray[np.float32]) -> None:
    """Fills `noise` (environments, C) as a pool does whose environments have made so many `steps` (environments,)."""
    _cpp_envs.draw_noise(seed, first_env, steps, noise)


def reset_seeds(seed: int, first_env: int, steps: NDArray[np.uint64]) -> list[int]:
    """Of 31 bits, one for each environment after so many `steps`: the first draw of its reset."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    counters = [(0, step & 0xFFFFFFFF, step >> 32 << 8, first_env + env) for env, step in enumerate(steps.tolist())]
    return [_cpp_envs.philox4x32(counter, key)[0] >> 1 for counter in counters]


def statistics_names(spec: EnvSpec) -> tuple[str, ...]:
    """Names of take_statistics' entries after the episode count."""
    return ("episode_return", "episode_length", *spec.metrics)


if __name__ == "__main__":  # python -m dist_trainer.envs
    from dist_trainer.env_list import main

    raise SystemExit(main())

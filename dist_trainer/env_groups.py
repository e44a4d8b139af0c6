"""A learner's environments in G contiguous groups, each a pool of its own: while the policy acts for one group the
others step.

Nothing depends on G: streams are keyed by global ids, and sums are taken in the order of the environments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.envs import WorkSpan
from dist_trainer.pools import make_pool


class EnvGroups:
    """Legend: E/W environments, A agents of each, N = E/W * A rows, G groups of N / G rows."""

    def __init__(
        self,
        config: EnvConfig,
        *,
        num_envs: int,
        first_env: int,
        seed: int,
        threads: int,
        groups: int = 1,
        cores: Sequence[int] = (),
    ):
        """`threads`: of each pool, the caller's own among them; for most of the time one pool steps. `groups` must
        divide `num_envs`. `cores`: of the threads of every pool, if there are enough; see envs.cores_to_pin."""
        if num_envs % groups:
            raise ValueError(f"{num_envs} environments cannot be cut into {groups} equal groups")
        self.num_envs = num_envs
        size = num_envs // groups
        # With the caller alone a pool steps inside send(), and nothing else could be done meanwhile.
        threads = max(2, threads) if groups > 1 and config.workers == "threads" else threads
        self.pools = [
            make_pool(
                config,
                num_envs=size,
                first_env=first_env + group * size,
                seed=seed,
                threads=threads,
                cores=cores if len(cores) >= threads else (),
            )
            for group in range(groups)
        ]
        self.spec = self.pools[0].spec

    @property
    def rows(self) -> int:
        return self.num_envs * self.spec.num_agents

    @property
    def keeps_state(self) -> bool:
        """Whether environments go on after a restore; else new episodes begin."""
        return self.pools[0].keeps_state

    @property
    def memory_bytes(self) -> int:
        return sum(pool.memory_bytes for pool in self.pools)

    def reset(self) -> None:
        for pool in self.pools:
            pool.reset()

    def take_statistics(self) -> NDArray[np.float64]:
        """(E/W, 3 + metrics): of each environment episodes, sum of returns, sum of lengths, sums of metrics, since the
        last call."""
        each = np.concatenate([pool.statistics for pool in self.pools])
        for pool in self.pools:
            pool.take_statistics()
        return each

    def take_faults(self) -> list[str]:
        """A line for every worker process that was lost since the last call."""
        return [fault for pool in self.pools for fault in pool.take_faults()]

    def trace(self, on: bool) -> None:
        """Whether to note when the pools' threads work, from now on."""
        for pool in self.pools:
            pool.trace(on)

    def take_spans(self) -> list[WorkSpan]:
        """What was noted since the last call."""
        return [span._replace(group=group) for group, pool in enumerate(self.pools) for span in pool.take_spans()]

    def snapshot(self) -> NDArray[np.uint8]:
        """(E/W, bytes): the whole state, one row per environment, so that it can be cut over other pools."""
        return np.concatenate([pool.snapshot() for pool in self.pools])

    def restore(self, rows: NDArray[np.uint8]) -> None:
        """Raises ValueError if the rows are not of this environment and number of environments."""
        if len(rows) != self.num_envs:
            raise ValueError(f"a snapshot of {len(rows)} environments, where there are {self.num_envs}")
        for pool, own in zip(self.pools, np.split(rows, len(self.pools)), strict=True):
            pool.restore(own)

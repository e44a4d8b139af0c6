"""Sums over learners of one machine on CPU, through memory that they share (cpp_envs/shared_sum.h).

gloo sends them through sockets, with threads of its own that must be woken: on 2 cores 2 to 3.4 ms for the 790 KB of a
gradient where the learners wait for each other at every minibatch (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dist_trainer._cpp_envs import SharedSum as Members

SLOT_BYTES = 4 << 20  # of each learner; larger tensors are summed in parts
SPIN_S = 2e-3  # about how unevenly the learners come to a sum
DTYPES = (torch.float32, torch.float64, torch.int64)


class SharedSum:
    """Of all learners; each makes the same calls in the same order."""

    def __init__(self, members: Members, patience_s: float):
        self._members = members
        self._patience_s = patience_s

    def takes(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cpu" and tensor.dtype in DTYPES

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums over all learners, in place; in the order of the ranks, with the same bits on every learner.

        Raises RuntimeError if the others have not come in time, or the process of one of them has ended.
        """
        terms = tensor.detach().contiguous()
        self._members.sum_(terms.numpy(), self._patience_s)
        return tensor if terms.data_ptr() == tensor.data_ptr() else tensor.copy_(terms)


def meet(rank: int, size: int, patience_s: float, all_values: Callable[[Any], list[Any]]) -> SharedSum | None:
    """What the learners of one machine sum with; None, for all of them, if one of them cannot have it.

    All must call it. `all_values` is World's.
    """
    members, ready = None, False
    with suppress(RuntimeError):
        members = Members(rank, size, SLOT_BYTES) if rank == 0 else None
    everyone = all_values((os.getpid(), os.sched_getaffinity(0), members.path if members else None))
    path = everyone[0][2]
    with suppress(RuntimeError):
        members = Members(rank, size, SLOT_BYTES, path) if rank > 0 and path else members
        if members:
            members.watch([process for process, _, _ in everyone])
            ready = True
    if not all(all_values(ready)) or members is None:
        return None
    cores = set[int]().union(*(cores for _, cores, _ in everyone))
    members.spin_for(SPIN_S if len(cores) >= size else 0.0)
    return SharedSum(members, patience_s)

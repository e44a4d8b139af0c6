"""Collectives of learners that are on one machine and on its CPU, through shared memory (cpp_envs/local_group.h).

gloo sends everything through sockets, with threads of its own that must be woken: on 2 cores 2 to 3.4 ms for the 790 KB
of a gradient where the learners wait for each other at every minibatch (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer._cpp_envs import LocalGroup as Members

SLOT_BYTES = 4 << 20  # of each learner; larger tensors go in parts
SPIN_S = 2e-3  # about how unevenly the learners come to a collective
SUMMED_DTYPES = (torch.float32, torch.float64, torch.int64)


class LocalGroup:
    """Of all learners; each makes the same calls in the same order. All raise RuntimeError if the others have not come
    in time, or the process of one of them has ended."""

    def __init__(self, members: Members, size: int, patience_s: float):
        self._members, self._size, self._patience_s = members, size, patience_s

    def can_sum(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cpu" and tensor.dtype in SUMMED_DTYPES

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums over all learners, in place; in the order of the ranks, with the same bits on every learner."""
        terms = tensor.detach().contiguous()
        self._members.sum_(terms.numpy(), self._patience_s)
        return tensor if terms.data_ptr() == tensor.data_ptr() else tensor.copy_(terms)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(size, *tensor.shape): the equally shaped tensors of all learners, of any type on the CPU."""
        own = tensor.detach().contiguous()
        everyone = torch.empty((self._size, *tensor.shape), dtype=tensor.dtype)
        self._members.gather(_bytes(own), _bytes(everyone), self._patience_s)
        return everyone


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.flatten().view(torch.uint8).numpy()


def meet(rank: int, size: int, patience_s: float, all_values: Callable[[Any], list[Any]]) -> LocalGroup | None:
    """The group of all learners, who are on one machine; None, for all of them, if one of them cannot have it.

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
    return LocalGroup(members, size, patience_s)

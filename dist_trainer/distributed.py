"""The learners of one run and what they tell each other. The only file that imports torch.distributed.

Every call that communicates is unconditional: all learners make it, in the same order. Nothing here looks at a clock or
at local data to decide whether to communicate.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from dist_trainer.arrival import LearnersMissing, arrive
from dist_trainer.board import Board
from dist_trainer.errors import ConfigError
from dist_trainer.heartbeat import Heartbeat
from dist_trainer.local_group import LocalGroup, meet
from dist_trainer.stopwatch import Phase
from dist_trainer.store import hold_store, store_address, store_client

P = ParamSpec("P")
T = TypeVar("T")

_heartbeat: Heartbeat | None = None  # while connected; one per process, as torch's process group is
_timeout: timedelta | None = None  # of a collective, in groups of some learners too
_attempt = ""  # the name that the learners agreed on; what they say in the store is said under it
_server: Store | None = None  # the store, where this learner holds it for the others


class CollectiveFailed(RuntimeError):
    """Some learner did not take part in a collective; the text says which, as far as can be seen from here."""


class Counter:
    """Numbers by name that all learners see and nobody waits for, in the store through which they have met."""

    def __init__(self, store: Store):
        self._store = store

    def add(self, name: str, amount: int = 1) -> int:
        """Returns the new number; it begins with 0. Raises CollectiveFailed if the store is gone."""
        try:
            return self._store.add(f"dist_trainer/counter/{name}", amount)
        except RuntimeError as error:
            raise CollectiveFailed("the store on the first learner's machine does not answer") from error

    def read(self, name: str) -> int:
        return self.add(name, 0)

    def forget(self, name: str) -> None:
        """It begins anew."""
        self._store.delete_key(f"dist_trainer/counter/{name}")


def _together(collective: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs one collective. Raises CollectiveFailed in place of whatever the backend raises."""
    if _heartbeat:
        _heartbeat.begin(getattr(collective, "__name__", ""))
    began = time.monotonic()
    try:
        with Phase("communication"):
            return collective(*args, **kwargs)
    except RuntimeError as error:
        seconds = time.monotonic() - began
        others = _heartbeat.others() if _heartbeat else "nobody watches"
        raise CollectiveFailed(
            f"learner {os.environ.get('RANK')}: a collective failed after {seconds:.1f} s; {others}"
        ) from error
    finally:
        if _heartbeat:
            _heartbeat.end()


@dataclass(frozen=True)
class World:
    """This learner's place among all learners. One learner alone is a world of size 1 that communicates with nobody."""

    rank: int
    size: int
    local_rank: int  # among the learners of this machine
    local_size: int
    device: torch.device
    group: dist.ProcessGroup | None = None  # None: all learners of the run
    members: tuple[int, ...] = ()  # of a group: the ranks of its learners in the run
    local_group: LocalGroup | None = None  # of all learners of the run, where they are on one machine

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums over all learners, in place. The result has the same bits on every learner."""
        if self.size > 1 and self.local_group and self.local_group.can_sum(tensor):
            _together(self.local_group.sum_, tensor)
        elif self.size > 1:
            _together(dist.all_reduce, tensor, group=self.group)
        return tensor

    def broadcast_(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Overwrites the tensor with that of the learner of rank `source`, in place."""
        if self.size > 1:
            _together(dist.broadcast, tensor, group=self.group, group_src=source)
        return tensor

    def broadcast(self, value: T) -> T:
        """The first learner's value, of any picklable type."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        _together(dist.broadcast_object_list, values, group=self.group, group_src=0, device=self.device)
        return values[0]

    def gather(self, tensor: Tensor, dim: int) -> Tensor | None:
        """On the first learner: the equally shaped tensors of all, joined along `dim` in the order of the ranks."""
        if self.size == 1:
            return tensor
        if tensor.numel() == 0:  # nothing to send, and backends differ in what they make of it
            return torch.cat([tensor] * self.size, dim)
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_first else None
        _together(dist.gather, tensor, parts, group=self.group, group_dst=0)
        return torch.cat(parts, dim) if parts else None

    def gather_values(self, value: T) -> list[T] | None:
        """On the first learner: the values of all, of any picklable type, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        _together(dist.gather_object, value, values, group=self.group, group_dst=0)
        return values

    def all_values(self, value: T) -> list[T]:
        """The values of all, of any picklable type, in the order of the ranks, on every learner."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            _together(dist.all_gather_object, values, value, group=self.group)
        return values

    def all_values_of_run(self, value: T) -> list[T]:
        """Those of all learners of the run, also where this world is a group of some; all must call it."""
        everyone = replace(self, size=dist.get_world_size(), group=None) if self.members else self
        return everyone.all_values(value)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(size, *tensor.shape): the equally shaped tensors of all learners, on every learner."""
        if self.size == 1:
            return tensor[None]
        if self.local_group and tensor.device.type == "cpu":
            return _together(self.local_group.all_gather, tensor)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        _together(dist.all_gather, parts, tensor.contiguous(), group=self.group)
        return torch.stack(parts)

    def bounce_(self, tensor: Tensor, other: int) -> None:
        """To and fro between two learners, which both call it, and nobody else; the lower rank sends first."""
        for sends in (self.rank < other, self.rank > other):
            _together(dist.send if sends else dist.recv, tensor, other)

    def counter(self) -> Counter:
        """With a connection of its own. For the world of all learners, not for groups; there must be at least two."""
        return Counter(_store())

    def board(self) -> Board:
        return Board(_store())  # as a counter

    def subgroup(self, size: int) -> World:
        """Of the groups of `size` consecutive learners the one that this learner is in, as a world of its own.

        All learners must call it. `size` must divide their number.
        """
        if size == self.size:
            return self
        return self._one_of([range(start, start + size) for start in range(0, self.size, size)])

    def peers(self, size: int) -> World:
        """The learners that have this learner's place in the other groups of `size`. All learners must call it."""
        return self if size == 1 else self._one_of([range(place, self.size, size) for place in range(size)])

    def _one_of(self, groups: Sequence[range]) -> World:
        """Of groups that divide all learners the one that this learner is in."""
        own = next(ranks for ranks in groups if self.rank in ranks)
        group = None
        for ranks in groups if len(own) > 1 else ():
            made = dist.new_group(list(ranks), timeout=_timeout)  # by all learners, members or not
            group = made if ranks is own else group
        return replace(
            self, rank=own.index(self.rank), size=len(own), group=group, members=tuple(own), local_group=None
        )


def share_of_cores(local_size: int) -> int:
    """The processor cores that one of the learners on this machine may use, by its CPU affinity."""
    return max(1, len(os.sched_getaffinity(0)) // local_size)


def device_of_learner(device: str) -> torch.device:
    """`device`: auto | cpu | cuda. Each learner of a machine has its own GPU. Raises ConfigError if it has none."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    local_rank, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            "device", device, f"learner {local_rank} of this machine has no GPU: it has {found}; device=cpu works"
        )
    return torch.device("cuda", local_rank)


def connect(device: str, timeout_s: float) -> World:
    """Joins the other learners (gloo on CPU; NCCL for CUDA tensors) as the launcher's environment variables say.

    Raises ConfigError if there are fewer GPUs than learners on this machine.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch_device = device_of_learner(device)
    on_cuda = torch_device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(torch_device)
    if size > 1:
        global _timeout
        _timeout = timedelta(seconds=timeout_s)
        _meet(rank, size, local_size, timeout_s)
        # NCCL's watchdog ends the process at the timeout, before an exception could say who was silent.
        _listen(rank, size, timeout_s, ends_by_itself=on_cuda)
        backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
        _together(dist.init_process_group, backend, store=_store(), rank=rank, world_size=size, timeout=_timeout)
    world = World(rank, size, local_rank, local_size, torch_device)
    if size > 1 and local_size == size and not on_cuda:
        world = replace(world, local_group=meet(rank, size, timeout_s, world.all_values))
    return world


def _meet(rank: int, size: int, local_size: int, patience_s: float) -> None:
    """Waits for all learners of this attempt. Raises LearnersMissing."""
    global _attempt, _server
    if local_size == size:  # on one machine, nothing need listen on its other interfaces
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "=lo")
    try:
        if rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # else torchrun holds it
            _server = None
            _server = hold_store(only_here=local_size == size)
        _attempt = arrive(store_client(patience_s), rank, size, patience_s, socket.gethostname())
    except LearnersMissing:
        raise
    except RuntimeError as error:
        what = "the store at {}:{} (learner 0 or its torchrun holds it) cannot be reached".format(*store_address())
        raise LearnersMissing(f"learner {rank}: {what}") from error


def _store() -> Store:
    """This attempt's, through a client of its own: a client serves one call at a time."""
    store = store_client(30)
    store.set_timeout(_timeout or timedelta(seconds=30))
    return PrefixStore(_attempt, store)


def _listen(rank: int, size: int, timeout_s: float, ends_by_itself: bool) -> None:
    """Starts this learner's heartbeat."""
    global _heartbeat
    almost = 0.8 * timeout_s
    _heartbeat = Heartbeat(_store(), rank, size, almost if ends_by_itself else None, almost)


def disconnect() -> None:
    """Leaves the other learners. In the course of an exception, the others can read which one it was."""
    global _heartbeat
    if _heartbeat:
        error = sys.exception()
        _heartbeat.stop(f"ended with {type(error).__name__}: {' '.join(str(error).split())[:200]}" if error else None)
        _heartbeat = None
    if dist.is_initialized():
        dist.destroy_process_group()

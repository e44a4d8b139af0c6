"""Observations of minibatches out of a rollout that is kept in main memory (`rollout_memory=host`).

    host    | gather 0 | gather 1 | gather 2 | ...        by a thread, into two page-locked buffers in turn
    link               | copy 0   | copy 1   | ...        on a stream of its own
    device                        | learn 0  | learn 1 | ...

Legend: T horizon, N rows, S segments of a part of a minibatch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor


def read_rows(observations: Tensor, rows: Tensor) -> Tensor:
    """(T, N, *shape), (S,) -> (T, S, *shape), where the observations are."""
    return observations.index_select(1, rows.to(observations.device))


@dataclass
class Staging:
    buffer: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    copied: torch.cuda.Event | None = None  # what it held last is on the device

    def room(self, shape: tuple[int, ...], dtype: torch.dtype, page_locked: bool) -> Tensor:
        """Once nobody reads what was in it before. The buffer is kept from one time to the next."""
        if self.copied:
            self.copied.synchronize()
        size = math.prod(shape) * dtype.itemsize
        if len(self.buffer) < size:
            self.buffer = torch.empty(size, dtype=torch.uint8, pin_memory=page_locked)
        return self.buffer[:size].view(dtype).view(shape)


class Prefetcher:
    """Reads rows that were announced while those before them are learned; any others at once. On a CPU the same, but
    that nothing has to be copied to a device."""

    def __init__(self, device: torch.device):
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        # A thread begins on the first GPU, where nothing of this learner's may be.
        choose_gpu = partial(torch.cuda.set_device, device) if self._on_gpu else None
        self._thread = ThreadPoolExecutor(1, "prefetch", choose_gpu)
        self._stagings = deque([Staging(), Staging()])
        self._coming: deque[Tensor] = deque()
        self._observations = torch.empty(0)
        self._next: tuple[Tensor, Future[Tensor]] | None = None  # rows, and what is being read of them

    def expect(self, observations: Tensor, parts: Iterable[Tensor]) -> None:
        """In this order rows (S,), on the host, will be asked for next of the observations (T, N, *shape)."""
        self._observations, self._coming = observations, deque(parts)
        self._begin()

    def __call__(self, observations: Tensor, rows: Tensor) -> Tensor:
        """(T, N, *shape), (S,) -> (T, S, *shape), valid until the next call."""
        announced = self._next and observations is self._observations and torch.equal(self._next[0], rows)
        if not announced or not self._next:
            return read_rows(observations, rows)
        taken = self._next[1].result()
        if self._stream:
            here = torch.cuda.current_stream(self._device)
            here.wait_stream(self._stream)
            taken.record_stream(here)  # its memory is not to be given away before `here` is through with it
        self._begin()
        return taken

    def _begin(self) -> None:
        self._next = None
        if self._coming:
            rows, staging = self._coming.popleft(), self._stagings[0]
            self._stagings.rotate()
            self._next = rows, self._thread.submit(self._read, self._observations, rows, staging)

    def _read(self, observations: Tensor, rows: Tensor, staging: Staging) -> Tensor:
        steps, _, *shape = observations.shape
        room = staging.room((steps, len(rows), *shape), observations.dtype, self._on_gpu)
        torch.index_select(observations, 1, rows, out=room)
        if not self._stream:
            return room
        with torch.cuda.stream(self._stream):
            taken = room.to(self._device, non_blocking=True)
            staging.copied = torch.cuda.Event()
            staging.copied.record()
        return taken

"""Between a pool's buffers and the policy's device: on a GPU one copy each way in every step, which the host waits for
only where it needs the actions; on a CPU nothing is copied but the actions.

Legend: N agent rows of the pool, C action components.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer.pools import Pool


@dataclass
class Incoming:
    """What a pool says after a step, on the policy's device."""

    observations: Tensor  # (N, *observation_shape), those to act on
    noise: Tensor  # (N, C) to sample the actions with
    rewards: Tensor  # (N,) of the last actions, as are the next two
    terminated: Tensor  # (N,) bool
    truncated: Tensor  # (N,) bool
    legal: Tensor | None = None  # (N, K) bool, which of the choices of all components may be made next; None: all
    resting: Tensor | None = None  # (N,) bool, who does not act next; None: nobody ever rests


class DeviceLink:
    """Tensors of one pool's: `incoming` always the same ones, filled by `receive`."""

    def __init__(self, pool: Pool, device: torch.device):
        self._source = torch.from_numpy(pool.incoming)
        self._target = torch.from_numpy(pool.actions)
        self._block = self._source
        self._answered: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._in = PageLocked(pool.incoming, device)
            self._out = PageLocked(pool.actions, device)
            self._block = torch.empty_like(self._source, device=device)
            self._answered = torch.cuda.Event()
        self.incoming = _views(self._block, pool.incoming_layout)

    def receive(self) -> None:
        """Brings over what the pool says, after its reset, restore or recv."""
        if self._answered:
            self._block.copy_(self._in.for_device(), non_blocking=True)

    def answer(self, actions: Tensor) -> None:
        """Sets out to bring the actions (N, C) to the pool."""
        if self._answered:
            self._out.tensor.copy_(actions, non_blocking=True)
            self._answered.record()
        else:
            self._target.copy_(actions)

    def wait(self) -> None:
        """Until the pool has the actions; all that was received has then been read, too."""
        if self._answered:
            self._answered.synchronize()
            self._out.to_pool()


class PageLocked:
    """A buffer of a pool's whose pages are locked in memory, so that a GPU copies from and to it by itself. Where the
    system refuses that, a page-locked copy stands in. Unlocked when this object goes, at the latest with the process.
    """

    def __init__(self, buffer: NDArray[Any], device: torch.device):
        self._buffer = torch.from_numpy(buffer)
        self.in_place = _lock(buffer, device)
        self.tensor = self._buffer if self.in_place else torch.empty_like(self._buffer, pin_memory=True)
        if self.in_place:
            weakref.finalize(self, _unlock, buffer)  # holds the buffer, and so the pool's memory, until then

    def for_device(self) -> Tensor:
        """What the device is to copy from."""
        return self.tensor if self.in_place else self.tensor.copy_(self._buffer)

    def to_pool(self) -> None:
        """Once the device has copied to `tensor`."""
        if not self.in_place:
            self._buffer.copy_(self.tensor)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for what the device is doing."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # does nothing to what is page-locked
    return tensor.to(device, non_blocking=True)


def _lock(buffer: NDArray[Any], device: torch.device) -> bool:
    """Whether the system has locked the buffer's pages."""
    cudart: Any = torch.cuda.cudart()
    refused = int(cudart.cudaHostRegister(buffer.ctypes.data, buffer.nbytes, 0)) != 0
    if refused:
        # CUDA keeps the error and would report it as the next kernel's.
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device=device)
    return not refused


def _unlock(buffer: NDArray[Any]) -> None:
    cudart: Any = torch.cuda.cudart()
    cudart.cudaHostUnregister(buffer.ctypes.data)


def _views(block: Tensor, layout: dict[str, tuple[int, str, tuple[int, ...]]]) -> Incoming:
    """Of a block of bytes, by the layout of a pool's incoming_layout."""
    tensors = {}
    for name, (offset, type_name, shape) in layout.items():
        dtype: torch.dtype = getattr(torch, type_name)
        tensors[name] = block[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
    return Incoming(**tensors)

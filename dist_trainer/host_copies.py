"""What is to be saved as it is now, copied into main memory while the program goes on: buffers that are used again.

From a GPU the copies go to page-locked memory in the order of the device's own work: whatever is queued later, such as
the next update, finds them made, and the host waits for nothing. (A stream of their own would need a second copy on the
device, for training must not overtake them.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class HostCopies:
    """Holds one snapshot. The next one needs no new memory where tensors have kept their shapes."""

    def __init__(self, device: torch.device):
        self._on_cuda = device.type == "cuda"
        self._buffers: dict[str, Tensor] = {}
        self._used: set[str] = set()
        self._arrived = torch.cuda.Event() if self._on_cuda else None
        self.bytes = 0  # of the tensors of the latest snapshot

    def take(self, value: Any) -> Any:
        """Like `value`, which is made of dicts, lists, tuples, tensors and plain data, with copies of all tensors.

        They are valid until the next call, and whole after `wait`. Strides are kept: matrix products may round by them.
        """
        self._used.clear()
        self.bytes = 0
        taken = self._walk("", value)
        for name in self._buffers.keys() - self._used:
            del self._buffers[name]
        if self._arrived:
            self._arrived.record()
        return taken

    def wait(self) -> None:
        """Until the copies are there, from any thread."""
        if self._arrived:
            self._arrived.synchronize()

    def _walk(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._copy(name, value.detach())
        if isinstance(value, dict):
            return {key: self._walk(f"{name}/{key}", item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._walk(f"{name}/{index}", item) for index, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or not _alike(buffer, tensor):
            pinned = self._on_cuda and tensor.device.type == "cuda"
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            self._buffers[name] = buffer
        self._used.add(name)
        self.bytes += tensor.nbytes
        return buffer.copy_(tensor, non_blocking=True)


def _alike(buffer: Tensor, tensor: Tensor) -> bool:
    pinned = tensor.device.type == "cpu" or buffer.is_pinned()
    same = buffer.dtype == tensor.dtype and buffer.shape == tensor.shape
    return same and pinned and buffer.stride() == torch.empty_like(tensor, device="meta").stride()

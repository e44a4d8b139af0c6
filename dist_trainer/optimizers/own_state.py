"""Has any bit of what a learner keeps changed by itself, between two updates?

A sharded optimizer's state may have no copy on another learner to compare with, and a weight that went wrong is spread,
or overwritten, by the next exchange of weights, before any comparison. But nothing changes them between updates. So
their bits are added up at the end of each and again before the next, on the device: a pass over them, twice an
iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element


@dataclass
class OwnState:
    noted: dict[str, Tensor] = field(default_factory=dict)  # by tensor: the sum of its bits, () int64
    changed: dict[str, Tensor] = field(default_factory=dict)  # () bool: at some comparison since the run began

    def note(self, tensors: Mapping[str, Tensor]) -> None:
        """They are right as they are now."""
        self.noted = {name: bit_sum(tensor) for name, tensor in tensors.items()}

    def compare(self, tensors: Mapping[str, Tensor]) -> None:
        """They should be as they were noted, those that were."""
        for name in self.noted.keys() & tensors.keys():
            changed = bit_sum(tensors[name]) != self.noted[name]
            self.changed[name] = self.changed[name] | changed if name in self.changed else changed

    def read(self) -> list[str]:
        """Names of what has changed. The host waits for the device."""
        names = sorted(self.changed)
        flags = torch.stack([self.changed[name].cpu() for name in names]).tolist() if names else []
        return [name for name, changed in zip(names, flags, strict=True) if changed]


def bit_sum(tensor: Tensor) -> Tensor:
    """() int64, of the elements' bits as integers. One flipped bit changes it; in one pass, unlike the checksum that
    compares learners and must tell any two tensors apart."""
    return tensor.detach().view(INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)

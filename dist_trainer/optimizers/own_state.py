"""State that one learner alone keeps, as sharded optimizers do in a single group: has any bit of it changed by itself?

No other learner has a copy to compare with. But nothing changes it between two updates, so its bits are added up at the
end of each and again before the next, on the device: one pass over the state, twice an iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element


@dataclass
class OwnState:
    """`changed`: (K,) bool for each of `names`, since the run began; None until something was noted."""

    names: list[str] = field(default_factory=list)
    sums: Tensor | None = None  # (K,) int64
    changed: Tensor | None = None

    def note(self, tensors: Mapping[str, Tensor]) -> None:
        """The state as it is now is right."""
        names, self.sums = list(tensors), bit_sums(tensors)
        if names != self.names or self.changed is None:  # an optimizer makes its state in its first steps
            self.names, self.changed = names, torch.zeros_like(self.sums, dtype=torch.bool)

    def compare(self, tensors: Mapping[str, Tensor]) -> None:
        """The state should be as it was noted."""
        if self.sums is not None and self.changed is not None:
            self.changed |= bit_sums(tensors) != self.sums

    def read(self) -> list[str]:
        """Names of what has changed. The host waits for the device."""
        flags = [] if self.changed is None else self.changed.tolist()
        return [name for name, changed in zip(self.names, flags, strict=False) if changed]


def bit_sums(tensors: Mapping[str, Tensor]) -> Tensor:
    """(K,) int64 on the device of the first: sums of the elements' bits as integers. One flipped bit changes the sum of
    its tensor."""
    device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
    sums = [x.detach().view(INTEGERS[x.element_size()]).sum(dtype=torch.int64).to(device) for x in tensors.values()]
    return torch.stack(sums) if sums else torch.zeros(0, dtype=torch.int64, device=device)

"""What can be put before and after any optimizer's step: MARS on the gradient, caution on the update.

heavyball 3.2.1 has flags of these names. Its `mars` swaps beta1 and gamma (a tenth of the coefficient asked for at the
defaults), and its `caution` changes nothing for PSGDPRO, QSGD and unclipped PSGDKron. These do what the papers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Mars:
    """Variance reduction (Yuan et al., "MARS", arXiv 2411.10438), the variant that reuses the last step's gradient.

    c[t] = g[t] + gamma * beta1 / (1 - beta1) * (g[t] - g[t - 1]). The paper clips c to norm 1; here the trainer's own
    clipping by the global norm follows.
    """

    parts: Sequence[tuple[slice, float, float]]  # of the flat gradient: place, gamma, beta1 of its optimizer
    previous: Tensor | None = None  # (parameters,) the last flat gradient

    def correct_(self, gradient: Tensor) -> None:
        """(parameters,), in place. The first gradient has no predecessor and stays as it is."""
        current = gradient.clone()
        if self.previous is not None:
            change = current - self.previous
            for part, gamma, beta1 in self.parts:
                gradient[part].add_(change[part], alpha=gamma * beta1 / (1 - beta1))
        self.previous = current


@torch.no_grad()
def apply_caution_(weights: Sequence[nn.Parameter], before: Sequence[Tensor], decay: float) -> None:
    """Cautious updates (Liang et al., arXiv 2411.16085, algorithm 1), after the step of any optimizer.

    Of an update u the entries that disagree in sign with the gradient g are dropped, the others scaled up: per tensor
    of n entries w <- w - lr * u * [u * g > 0] * n / (count + 1). Decoupled weight decay is not part of u.

    Args:
        weights: as they are after the step, with their gradients.
        before: as they were before it.
        decay: what decoupled weight decay subtracted, as a fraction of `before`.
    """
    for weight, old in zip(weights, before, strict=True):
        if weight.grad is None:
            continue
        decayed = old * (1 - decay)
        change = weight - decayed  # -lr * u
        agrees = change * weight.grad < 0
        weight.copy_(decayed + change * agrees * (agrees.numel() / (agrees.sum() + 1)))

"""What can be put before and after any optimizer's step: MARS on the gradient, caution on the update.

heavyball 3.2.1 has flags of these names. Its `mars` swaps beta1 and gamma (a tenth of the coefficient asked for at the
defaults), and its `caution` changes nothing for PSGDPRO, QSGD and unclipped PSGDKron. These do what the papers say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Mars:
    """Variance reduction (Yuan et al., "MARS", arXiv 2411.10438), the variant that reuses the last step's gradient.

    c[t] = g[t] + gamma * beta1 / (1 - beta1) * (g[t] - g[t - 1]). The paper clips c to norm 1; here the trainer's own
    clipping by the global norm follows.
    """

    gamma: float
    beta1: float
    previous: Tensor | None = None  # (parameters,) the last flat gradient

    def correct_(self, gradient: Tensor) -> None:
        """(parameters,), in place. The first gradient has no predecessor and stays as it is."""
        current = gradient.clone()
        if self.previous is not None:
            gradient.add_(current - self.previous, alpha=self.gamma * self.beta1 / (1 - self.beta1))
        self.previous = current


class CautiousStep:
    """Cautious updates (Liang et al., arXiv 2411.16085, algorithm 1).

    Of an update u the entries that disagree in sign with the gradient g are dropped, the others scaled up: per tensor
    of n entries w <- w - lr * u * [u * g > 0] * n / (count + 1). Decoupled weight decay is not part of u. Made before
    the optimizer's step; works for any optimizer, since it compares the weights.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.parts = [
            (p, p.detach().clone(), p.grad.detach().clone(), group["lr"] * group.get("weight_decay", 0.0))
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]

    @torch.no_grad()
    def mask_update_(self) -> None:
        """After the step: keeps what agrees with the gradient."""
        for parameter, before, gradient, decay in self.parts:
            decayed = before * (1 - decay)
            change = parameter - decayed  # -lr * u
            agrees = change * gradient < 0
            scale = agrees.numel() / (agrees.sum() + 1)
            parameter.copy_(decayed + change * agrees * scale)

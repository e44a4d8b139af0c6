"""Experimental: a learning rate that is estimated while training, for any base optimizer.

The step is x[k+1] = x[k] - lr[k] d[k] u[k]: u is what the base optimizer does at rate 1, lr a schedule around 1, and d
an estimate from below of how far the solution is from the start, which takes the place of a tuned rate:

    w[k]    = lr[k] d[k]                    method "dadaptation"
    w[k]    = lr[k] d[k]^2                  method "prodigy"
    r[k+1]  = beta r[k] + (1 - beta) w[k] <g[k], x[0] - x[k]>
    s[k+1]  = beta s[k] + (1 - beta) w[k] g[k]
    dhat    = r[k+1] / |s[k+1]|
    d[k+1]  = max(d[k], min(dhat, growth d[k]))

Why it is one from below: for a convex function <g[k], x[k] - x*> >= 0, hence r <= <s, x[0] - x*> <= |s| D, with |.|
the dual of the norm that the distance D is measured in. That holds for any base, any w and any beta, but not for PPO,
whose loss is not convex, is sampled, and moves. The distance is the largest over all blocks of a block's own:

    block     distance of the block             dual norm
    l1        max |x[0] - x*| / lr_scale        sum |s| lr_scale
    spectral  |x[0] - x*|_2 / (c lr_scale)      nuclear norm of s, times c lr_scale

c = max(1, rows / columns)^0.5 is the spectral norm of Muon's update (heavyball's scale), so one step at rate 1 goes the
distance 1. The nuclear norm would take an SVD; sqrt(min(rows, columns)) times the Frobenius norm bounds it from above,
and dhat stays a bound from below, up to that root too small.

What of this is the papers': "prodigy" is r, s, dhat and d of Prodigy's Adam variant (Mishchenko & Defazio, arXiv
2306.06101) as they stand there. "dadaptation" is r, s, dhat and d of Adam with D-Adaptation (Defazio & Mishchenko,
arXiv 2301.07733), in the version whose numerator is the inner product <g, s>, but for what that product is. beta is
sqrt(beta2) in both. (No numbers of algorithms: sources do not agree on them.) What is different here:

- The base's moments are those of g. In the papers they are those of d g (Prodigy: both moments, and d times Adam's
  eps; D-Adaptation: lr d g in the first), which forget faster what came before while d grows.
- The papers' Adam has no bias correction. A base that has one keeps it, and w does not contain it (in the authors'
  packages it does, where it is switched on).
- A bound on the growth: as in `dadaptation`, it is put on the latest dhat. `prodigyopt` remembers the largest dhat and
  goes on growing towards it.
- Weights decayed by the base are decayed at the rate lr d, as in the authors' packages, but x* above is then the
  solution without decay.
- D-Adaptation has <g[k], A^-1 s[k]> / (1 - beta) where <g[k], x[0] - x[k]> stands here; A is Adam's denominator, and
  the paper divides by 1 - beta in dhat. Were s the plain sum of w g, as in the paper's dual averaging, then A^-1 s
  would be x[0] - x, and the two the same. The form here needs no A, which Muon and PSGD cannot offer for s. The two
  differ in that the moving average s forgets, and x[0] - x[k] does not.
- The papers know no spectral blocks, and Adam's l1 is also taken for PSGD, whose steps are not bounded by 1.

Everything comes from the reduced gradient and the weights, both the same on all learners, by the same operations: d, r
and s agree bit for bit, and nothing has to be reduced for them. Nothing is read back to the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

POWERS = {"dadaptation": 1, "prodigy": 2}  # of d in the weight of a step
KINDS = ("l1", "spectral")


@dataclass(frozen=True)
class Block:
    """Weights whose step is bounded as one: elementwise ("l1"; any number of weights) or a matrix ("spectral").

    Of a spectral block the first dimension is the rows, all others together are the columns, as Muon does it.
    """

    part: slice  # of the flat parameters
    shape: tuple[int, ...]
    kind: str
    lr_scale: float = 1.0  # what the base multiplies the common rate by

    def dual_norm(self, flat: Tensor) -> Tensor:
        """() float64 of the flat (parameters,): for "spectral" a bound from above. float64, as squares can overflow."""
        own = flat[self.part]
        if self.kind == "l1":
            return self.lr_scale * torch.linalg.vector_norm(own, 1, dtype=torch.float64)
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        factor = math.sqrt(max(1.0, rows / columns) * min(rows, columns))
        return self.lr_scale * factor * torch.linalg.vector_norm(own, 2, dtype=torch.float64)


@dataclass
class RateEstimate:
    """The distance estimate d, by which every step is scaled (see `scale_step_`), and what it is made from.

    r and d are float64: they are single numbers and cost nothing, and r sums many small terms of both signs. s and
    start have the weights' type, as have the products in <g, x[0] - x>; only their sum is taken in float64. In w, d
    counts in units of initial_d: the factor cancels in dhat, and keeps s away from float32's smallest numbers.

    In float32, x cannot take steps below half a last digit: at initial_d = 1e-8 weights beyond 0.25 stay where they
    are (at the papers' 1e-6, those beyond 32), and if all weights are that large, so does d. A small lr lowers that.
    """

    method: str  # dadaptation | prodigy
    blocks: Sequence[Block]  # one after the other, over all parameters
    start: Tensor  # (parameters,) flat x[0]; copied
    initial_d: float = 1e-6
    growth: float = math.inf  # d becomes at most so many times larger in a step
    beta: float = math.sqrt(0.999)  # sqrt(beta2) of the base, in the papers
    d: Tensor = field(init=False)  # () float64, of the step in progress; replaced by observe, never changed in place
    r: Tensor = field(init=False)  # () float64
    s: Tensor = field(init=False)  # (parameters,)

    def __post_init__(self) -> None:
        if self.method not in POWERS:
            raise ValueError(f"method {self.method}: valid: {', '.join(POWERS)}")
        if not (0 < self.initial_d < math.inf and self.growth > 1 and 0 <= self.beta < 1):
            raise ValueError("initial_d must be positive, growth larger than 1, and beta in [0, 1)")
        at = 0
        for block in self.blocks:
            size = math.prod(block.shape)
            if block.kind not in KINDS or (block.part.start, block.part.stop) != (at, at + size):
                raise ValueError(f"{block}: must start at {at}, have the size of its shape, and be one of {KINDS}")
            at += size
        if self.start.shape != (at,):
            raise ValueError(f"the blocks have {at} parameters, start has the shape {tuple(self.start.shape)}")
        self.start = self.start.detach().clone()
        self.d = torch.full((), self.initial_d, dtype=torch.float64, device=self.start.device)
        self.r = torch.zeros_like(self.d)
        self.s = torch.zeros_like(self.start)

    @torch.no_grad()
    def observe(self, gradient: Tensor, weights: Tensor, lr: float) -> None:
        """Takes in a step, before the base makes it, and puts the next step's into d.

        The step in progress is scaled by the d from before: keep that tensor, or call this after the step with the
        weights of before it. A step whose gradient or statistics are not finite changes nothing.

        Args:
            gradient: (parameters,), flat, the one that the base gets.
            weights: (parameters,), flat, x[k] at which it was taken.
            lr: the schedule's, as the base gets it.
        """
        weight = (1 - self.beta) * lr * (self.d / self.initial_d) ** POWERS[self.method]
        inner = (gradient * (self.start - weights)).sum(dtype=torch.float64)
        r = self.beta * self.r + weight * inner
        s = self.beta * self.s + weight * gradient
        dual = torch.stack([block.dual_norm(s) for block in self.blocks]).sum()
        estimate = r / dual
        finite = torch.isfinite(dual) & torch.isfinite(estimate)  # then so are r and s
        grown = torch.maximum(self.d, torch.minimum(estimate, self.growth * self.d))
        self.r = torch.where(finite, r, self.r)
        self.s = torch.where(finite, s, self.s)
        self.d = torch.where(finite, grown, self.d)

    def state(self) -> dict[str, Tensor]:
        """A copy of all that a resume needs, besides the settings."""
        return {name: getattr(self, name).clone() for name in ("d", "r", "s", "start")}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` copied, bit for bit, onto this estimate's device.

        Raises ValueError if it was copied from an estimate for other parameters.
        """
        for name, value in self.state().items():
            if state[name].shape != value.shape or state[name].dtype != value.dtype:
                raise ValueError(f"the saved rate estimate belongs to other parameters: {name}")
        for name in self.state():
            setattr(self, name, state[name].to(self.start.device, copy=True))


@torch.no_grad()
def scale_step_(parameters: Sequence[Tensor], before: Sequence[Tensor], d: Tensor) -> None:
    """After the base's step from `before`, in place: p <- before + d (p - before). d is (), of any float type."""
    for parameter, old in zip(parameters, before, strict=True):
        parameter.sub_(old).mul_(d).add_(old)

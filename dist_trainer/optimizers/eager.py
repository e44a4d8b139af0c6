"""heavyball's elementwise loops, as they run when nothing is compiled: one call for all weights, bit for bit the same.

heavyball 3.2.1 writes them for a compiler, weight by weight and operator by operator. Run as they stand, they were a
third of a Muon step of an LSTM with 128 cells on a CPU, and on a GPU they are a launch each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from heavyball import utils
from torch import Tensor

EXACT = (torch.float32, torch.float64)  # what is not promoted, and not rounded at random when it is stored

_promote_any = utils.promote
_lerp_any, _add_any, _update_any = (
    utils._compilable_stochastic_lerp_,
    utils._compilable_stochastic_add_,
    utils._compilable_update_,
)


def promote(x: Any, *more: Any) -> Any:
    """heavyball's, without a walk through containers where there is none."""
    if isinstance(x, Tensor) and x.dtype in EXACT and not more and getattr(x, "_ecc", None) is None:
        return x
    return _promote_any(x, *more)


def _plain(factor: Any, *lists: Sequence[Any]) -> bool:
    """Whether all are tensors of one exact type, without the low-order bits that heavyball can keep beside them, and
    the factor is a scalar."""
    if utils.compile_mode is not None or not all(lists) or getattr(factor, "ndim", 0) != 0:
        return False
    first = lists[0][0]
    dtype = getattr(first, "dtype", None)
    return dtype in EXACT and all(
        isinstance(x, Tensor) and x.dtype == dtype and getattr(x, "_ecc", None) is None for xs in lists for x in xs
    )


def lerp_(x: list[Tensor], y: list[Tensor], a: Any) -> None:
    """x <- x (1 - a) + y a"""
    if not _plain(a, x, y):
        _lerp_any(x, y, a)
        return
    added = torch._foreach_mul(y, a)  # first: y may be x
    torch._foreach_mul_(x, 1 - a)
    torch._foreach_add_(x, added)


def add_(x: list[Tensor], y: list[Tensor], alpha: Any) -> None:
    """x <- x + alpha y"""
    if not _plain(alpha, x, y):
        _add_any(x, y, alpha)
        return
    torch._foreach_add_(x, torch._foreach_mul(y, alpha))


def update_(
    p: list[Tensor], u: list[Tensor], decay: Any, lr: Tensor, caution: bool, cautious_decay: bool, g: list[Any]
) -> None:
    """p <- p (1 - decay lr) - u lr"""
    if caution or cautious_decay or not _plain(lr, p, u):
        _update_any(p, u, decay, lr, caution, cautious_decay, g)
        return
    torch._foreach_mul_(p, 1 - decay * lr)
    torch._foreach_add_(p, torch._foreach_mul([x.view_as(y) for x, y in zip(u, p, strict=True)], -lr))


REPLACED: dict[str, Callable[..., Any]] = {
    "promote": promote,
    "_compilable_stochastic_lerp_": lerp_,
    "_compilable_stochastic_add_": add_,
    "_compilable_update_": update_,
}

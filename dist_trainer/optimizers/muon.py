"""Muon's orthogonalization, of all matrices of a shape at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def orthogonalize_stacks(
    group: dict[str, Any], update: list[Tensor], grad: list[Tensor], param: list[Tensor]
) -> list[Tensor]:
    """In place of heavyball's `orthogonalize_update`, which goes from matrix to matrix, and which rounds each to
    bfloat16 at random; here to nearest, as Muon's author does (https://kellerjordan.github.io/posts/muon)."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, matrix in enumerate(update):
        by_shape.setdefault((matrix.shape[0], matrix.numel() // matrix.shape[0]), []).append(index)
    result = list(update)
    for (rows, columns), members in by_shape.items():
        stack = torch.stack([update[index].flatten(1) for index in members])  # (members, rows, columns)
        orthogonal = newton_schulz(stack) * max(1.0, rows / columns) ** 0.5
        for index, matrix in zip(members, orthogonal.unbind(), strict=True):
            result[index] = matrix.view_as(update[index])
    return result


# Of the five polynomials a x + b x^3 + c x^5, as in heavyball 3.2.1's zeropower_via_newtonschulz5.
POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def newton_schulz(matrices: Tensor) -> Tensor:
    """(B, m, n) -> about the nearest semi-orthogonal matrices; in bfloat16, unless they are float64."""
    norms = matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    x = (matrices / norms).to(matrices.dtype if matrices.dtype == torch.float64 else torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT.contiguous() if tall else x
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b s + c s^2
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)

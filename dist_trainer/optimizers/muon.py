"""Muon's orthogonalization, of many matrices at once.

A Newton-Schulz iteration of one 128 x 128 matrix is mostly calls, and it is 15 of them: matrices of a size go through
it as one batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

# Of the five polynomials a x + b x^3 + c x^5, as in heavyball 3.2.1's zeropower_via_newtonschulz5.
POLYNOMIALS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
SIDE_MULTIPLE = 16  # matrices are enlarged to it: more of them are of a size, and kernels like it


def orthogonalize_all(
    group: dict[str, Any], update: list[Tensor], grad: list[Tensor], param: list[Tensor]
) -> list[Tensor]:
    """In place of heavyball's `orthogonalize_update`, which goes from matrix to matrix, and which rounds each to
    bfloat16 at random; here to nearest, as Muon's author does (https://kellerjordan.github.io/posts/muon)."""
    batches: dict[tuple[int, ...], list[int]] = {}
    enlarged = [_enlarge(matrix.flatten(1)) for matrix in update]
    for index, matrix in enumerate(enlarged):
        batches.setdefault(tuple(matrix.shape), []).append(index)
    result = list(update)
    for members in batches.values():
        orthogonal = newton_schulz(torch.stack([enlarged[index] for index in members]))
        for index, matrix in zip(members, orthogonal.unbind(), strict=True):
            rows, columns = update[index].flatten(1).shape
            found = matrix.mT[:rows, :columns] if rows > columns else matrix[:rows, :columns]
            result[index] = (found * max(1.0, rows / columns) ** 0.5).view_as(update[index])
    return result


def _enlarge(matrix: Tensor) -> Tensor:
    """(m, n) -> the wide one of the matrix and its transpose, with zeros up to multiples of SIDE_MULTIPLE on both
    sides: they stay zero, and change nothing of the rest."""
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    rows, columns = wide.shape
    return pad(wide, (0, -columns % SIDE_MULTIPLE, 0, -rows % SIDE_MULTIPLE))


def newton_schulz(matrices: Tensor) -> Tensor:
    """(B, m, n), m <= n -> about the nearest semi-orthogonal matrices; in bfloat16, unless they are float64."""
    norms = matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    x = (matrices / norms).to(matrices.dtype if matrices.dtype == torch.float64 else torch.bfloat16)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b s + c s^2
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.to(matrices.dtype)

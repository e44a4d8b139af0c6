"""The backward sum of an advantage on a GPU, as one Triton kernel instead of two small kernels for every time step.

Triton comes with torch's CUDA builds, not with those for CPUs, and compiles the kernel with the machine's C compiler at
its first use: `missing` says whether that works here. Only the sum is in the kernel. What it sums has no dependence
between steps: torch computes that at full speed, and its scalars keep float64's precision, which Triton's would not.

Legend: T steps, N agent rows.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


triton, tl = _import("triton"), _import("triton.language")

ROWS = tl.constexpr(32) if tl else 32  # of a program, which is one warp: 256 programs for 8,192 rows


# Triton compiles this text, and knows no names of ours but constants: hence the quotes.
def _sum_columns(delta: "Any", decay: "Any", sums: "Any", steps: int, rows: int) -> None:
    """For ROWS columns of (steps, rows) arrays; the first three are pointers."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    carry = tl.zeros([ROWS], dtype=delta.dtype.element_ty)
    t = steps - 1
    while t >= 0:
        at = t * rows + row
        carry = tl.load(delta + at, mask=inside, other=0.0) + tl.load(decay + at, mask=inside, other=0.0) * carry
        tl.store(sums + at, carry, mask=inside)
        t -= 1


_kernel = triton.jit(_sum_columns) if triton else None


def backward_sums(delta: Tensor, decay: Tensor) -> Tensor:
    """sums[t] = delta[t] + decay[t] * sums[t + 1], with 0 after the last step.

    Args:
        delta, decay: (T, N) of one type, float32 or float64, on the current GPU.

    Returns:
        (T, N), equal to the loop over time up to the rounding of fused multiply-adds. The host does not wait for it.

    Raises whatever Triton raises if it cannot compile; see `missing`.
    """
    delta, decay = delta.contiguous(), decay.contiguous()
    sums = torch.empty_like(delta)
    steps, rows = delta.shape
    if _kernel and sums.numel():
        _kernel[(-(-rows // int(ROWS)),)](delta, decay, sums, steps, rows, num_warps=1)
    return sums


@cache
def missing(device: torch.device) -> str | None:
    """Why backward_sums cannot run on this device, in words; None if it can. Compiles it and reads a result once."""
    if triton is None:
        return "the package triton is missing"
    one = torch.ones(2, 1, device=device)
    try:
        works = backward_sums(one, one).flatten().tolist() == [2.0, 1.0]
    except Exception as error:  # whatever the compiler and the driver may raise; the loop gives the same numbers
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if works else "its result was wrong"

"""The GPU's kernel of the backward sum, under Triton's interpreter on the CPU. tests/gpu/test_advantage_cuda.py runs
the compiled one.

In a process of its own: Triton reads TRITON_INTERPRET when it is imported.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dist_trainer import advantage_cuda

CHECK = """
import torch
from dist_trainer.advantage_cuda import backward_sums

generator = torch.Generator().manual_seed(1)
for steps, rows in ((1, 1), (2, 1), (7, 5), (33, 40), (64, 33), (5, 0)):
    delta = torch.randn(steps, rows, generator=generator, dtype=torch.float64)
    ended = torch.rand(steps, rows, generator=generator) < 0.2
    decay = 0.9 * (~ended).to(torch.float64) * torch.rand(steps, rows, generator=generator, dtype=torch.float64)
    expected = torch.zeros(steps, rows, dtype=torch.float64)
    for t in range(steps):  # from the definition: the sum over later steps, each with the decays on the way to it
        weight = torch.ones(rows, dtype=torch.float64)
        for later in range(t, steps):
            expected[t] += weight * delta[later]
            weight = weight * decay[later]
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        sums = backward_sums(delta.to(dtype), decay.to(dtype))
        assert sums.dtype == dtype
        torch.testing.assert_close(sums, expected.to(dtype), rtol=tolerance, atol=tolerance)
    transposed = backward_sums(delta.T.contiguous().T, decay)  # strided input
    torch.testing.assert_close(transposed, expected, rtol=1e-12, atol=1e-12)
print("same sums")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch's CUDA builds")
def test_the_kernel_sums_backwards() -> None:
    """Against the definition, for shapes that fill a program's block and that do not."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "same sums" in done.stdout


def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advantage_cuda, "triton", None)
    advantage_cuda.missing.cache_clear()
    assert advantage_cuda.missing(torch.device("cpu")) == "the package triton is missing"
    advantage_cuda.missing.cache_clear()

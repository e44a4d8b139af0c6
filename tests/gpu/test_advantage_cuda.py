"""GAE and V-trace on a GPU equal those on the CPU. On the CPU: tests/test_advantage.py, test_advantage_kernel.py."""

from __future__ import annotations

import pytest
import torch

from dist_trainer.advantage import gae, next_values, vtrace
from dist_trainer.advantage_cuda import backward_sums, missing
from tests.gpu.device import DEVICE, needs_gpu, relative_error
from tests.test_advantage import make_case

pytestmark = needs_gpu
SHAPES = [(1, 1), (1, 3), (7, 5), (64, 33), (64, 8192), (33, 100)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_advantages_equal_those_of_the_cpu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    case = make_case(shape, 3)
    results = []
    for device in (torch.device("cpu"), DEVICE):
        values, last_values, final_values, rewards, log_ratio = (
            x.to(device, dtype)
            for x in (case.values, case.last_values, case.final_values, case.rewards, 0.2 * case.log_ratio)
        )
        done = case.done.to(device)
        arguments = (rewards, values, next_values(values, last_values, done, final_values), done)
        results.append([*gae(*arguments, 0.99, 0.95), *vtrace(*arguments, log_ratio, 0.99, 0.95, 1.0, 1.0)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert on_gpu.is_cuda
        assert on_gpu.dtype == dtype
        assert relative_error(on_gpu, on_cpu) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_sums_backwards(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """And the host does not wait for it."""
    assert missing(DEVICE) is None  # compiles
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(shape, generator=generator, dtype=torch.float64)
    decay = torch.rand(shape, generator=generator, dtype=torch.float64)
    on_gpu = delta.to(DEVICE, dtype), decay.to(DEVICE, dtype)
    ours = backward_sums(*on_gpu)  # compiles for this shape and type
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = backward_sums(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected, carry = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        carry = delta[t] + decay[t] * carry
        expected[t] = carry
    assert torch.equal(ours, again)
    assert relative_error(ours, expected) < TOLERANCE[dtype]

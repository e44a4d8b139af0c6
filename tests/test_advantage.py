"""GAE and V-trace equal their definitions, written as sums over all later steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer import _cpp_envs
from dist_trainer.advantage import gae, next_values, vtrace

SHAPES = [(1, 3), (2, 1), (7, 5), (33, 4)]


@dataclass
class Case:
    """Random (T, N) data; a step ends its episode by termination, by truncation (never by both), or not at all."""

    rewards: Tensor
    values: Tensor
    last_values: Tensor
    terminated: Tensor
    truncated: Tensor
    final_values: Tensor
    log_ratio: Tensor

    @property
    def done(self) -> Tensor:
        return self.terminated | self.truncated

    @property
    def bootstrap(self) -> Tensor:
        return next_values(self.values, self.last_values, self.done, self.final_values)


def make_case(shape: tuple[int, int], seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    kind = torch.rand(shape, generator=generator)
    truncated = (kind > 0.2) & (kind < 0.4)
    return Case(
        rewards=normal(*shape),
        values=normal(*shape),
        last_values=normal(shape[1]),
        terminated=kind < 0.2,
        truncated=truncated,
        final_values=normal(*shape) * truncated,
        log_ratio=normal(*shape),
    )


def assert_equal_up_to_rounding(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def td_error(case: Case, t: int, n: int, gamma: float) -> float:
    """r + gamma * (value of what follows) - V, by cases."""
    if case.terminated[t, n]:
        following = 0.0
    elif case.truncated[t, n]:
        following = float(case.final_values[t, n])
    elif t + 1 == len(case.values):
        following = float(case.last_values[n])
    else:
        following = float(case.values[t + 1, n])
    return float(case.rewards[t, n]) + gamma * following - float(case.values[t, n])


def sum_over_later_steps(case: Case, gamma: float, weights: Tensor, traces: Tensor) -> Tensor:
    """sum over l >= 0 of gamma^l * (product of traces[t .. t+l-1], 0 beyond the episode) * weights[t+l] * td_error."""
    steps, rows = case.rewards.shape
    result = torch.zeros(steps, rows, dtype=torch.float64)
    for n in range(rows):
        for t in range(steps):
            for later in range(t, steps):
                product = 1.0
                for k in range(t, later):
                    product *= gamma * float(traces[k, n]) * (1 - float(case.done[k, n]))
                result[t, n] += product * float(weights[later, n]) * td_error(case, later, n, gamma)
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 1.0), (1.0, 0.0)])
def test_gae_is_its_definition(shape: tuple[int, int], seed: int, gamma: float, gae_lambda: float) -> None:
    """A[t] = sum of (gamma * lambda)^l * delta[t+l] within the episode; the targets are A + V."""
    case = make_case(shape, seed)
    ones = torch.ones(shape)
    expected = sum_over_later_steps(case, gamma, ones, gae_lambda * ones.double())
    advantages, targets = gae(case.rewards, case.values, case.bootstrap, case.done, gamma, gae_lambda)
    assert_equal_up_to_rounding(advantages, expected)
    assert_equal_up_to_rounding(targets, expected + case.values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("rho_clip", "c_clip"), [(1.0, 1.0), (2.0, 0.5), (0.3, 1.5)])
def test_vtrace_is_its_definition(shape: tuple[int, int], seed: int, rho_clip: float, c_clip: float) -> None:
    """Equation 1 of arXiv 1802.01561: clipped ratios weigh the errors, products of clipped ratios the later steps."""
    case = make_case(shape, seed)
    ratio = case.log_ratio.exp()
    rho = torch.where(ratio > rho_clip, rho_clip, ratio)
    c = 0.95 * torch.where(ratio > c_clip, c_clip, ratio)
    expected = sum_over_later_steps(case, 0.99, rho, c)
    advantages, targets = vtrace(
        case.rewards, case.values, case.bootstrap, case.done, case.log_ratio, 0.99, 0.95, rho_clip, c_clip
    )
    assert_equal_up_to_rounding(advantages, expected)
    assert_equal_up_to_rounding(targets, expected + case.values)


@pytest.mark.parametrize("shape", SHAPES)
def test_vtrace_on_policy_is_gae(shape: tuple[int, int]) -> None:
    """Ratios of 1, clipped at 1 or above, change nothing."""
    case = make_case(shape, 3)
    data = (case.rewards, case.values, case.bootstrap, case.done)
    for clip in (1.0, 5.0):
        on_policy = vtrace(*data, torch.zeros(shape, dtype=torch.float64), 0.97, 0.9, clip, clip)
        for actual, expected in zip(on_policy, gae(*data, 0.97, 0.9), strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (64, 37), (5, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_two_implementations_give_the_same_bits(
    shape: tuple[int, int], dtype: torch.dtype, transposed: bool
) -> None:
    """Tensors that want a gradient, and those of devices without a kernel, take the torch expressions, others C++."""
    case = make_case(shape[::-1] if transposed else shape, 4)
    tensors = [x.to(dtype) for x in (case.rewards, case.values, case.bootstrap)]
    rewards, values, bootstrap, done = (x.T if transposed else x for x in [*tensors, case.done])
    log_ratio = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    differentiable = values.clone().requires_grad_()
    for actual, expected in (
        (gae(rewards, values, bootstrap, done, 0.99, 0.95), gae(rewards, differentiable, bootstrap, done, 0.99, 0.95)),
        (
            vtrace(rewards, values, bootstrap, done, log_ratio, 0.99, 0.95, 1.0, 1.5),
            vtrace(rewards, differentiable, bootstrap, done, log_ratio, 0.99, 0.95, 1.0, 1.5),
        ),
    ):
        for ours, theirs in zip(actual, expected, strict=True):
            assert theirs.requires_grad and not ours.requires_grad
            torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)


def test_advantages_can_be_differentiated() -> None:
    """A[0] by V[t] within an episode, by the definition: delta[t] has -V[t] and delta[t-1] has gamma V[t]."""
    gamma, decay = 0.9, 0.9 * 0.8
    values = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    nothing, done = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.bool)
    bootstrap = next_values(values, torch.zeros(1, dtype=torch.float64), done, nothing)
    advantages, _ = gae(nothing, values, bootstrap, done, gamma, 0.8)
    (gradient,) = torch.autograd.grad(advantages[0].sum(), values)
    expected = [-1.0, *(decay ** (t - 1) * gamma - decay**t for t in (1, 2, 3))]
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"values": np.zeros((3, 5))}, ValueError),
        ({"done": np.zeros((4, 4), bool)}, ValueError),
        ({"advantages": np.zeros((4, 5), np.float32)}, TypeError),
        ({"advantages": np.zeros((5, 4)).T}, TypeError),
        ({"done": np.zeros((4, 5), np.int8)}, TypeError),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, NDArray[Any]], error: type[Exception]) -> None:
    """None is converted: the result would be written to the copy."""
    arrays: dict[str, Any] = {name: np.zeros((4, 5)) for name in ("rewards", "values", "next_values", "advantages")}
    arrays |= {"done": np.zeros((4, 5), bool)} | change
    with pytest.raises(error):
        _cpp_envs.gae(**arrays, gamma=0.9, gae_lambda=0.9)


def test_what_each_step_bootstraps_from() -> None:
    """Rows: goes on, terminates at step 0, is truncated at step 0, is truncated at the last step."""
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    last_values = torch.tensor([10.0, 20.0, 30.0, 40.0])
    done = torch.tensor([[False, True, True, False], [False, False, False, True]])
    final_values = torch.tensor([[0.0, 0.0, 33.0, 0.0], [0.0, 0.0, 0.0, 44.0]])
    expected = [[5.0, 0.0, 33.0, 8.0], [10.0, 20.0, 30.0, 44.0]]
    assert next_values(values, last_values, done, final_values).tolist() == expected


def test_gae_by_hand() -> None:
    """Two steps with gamma = 0.5, lambda = 0.5, in numbers that are exact in binary."""
    rewards, values = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [8.0]])
    last_values, nothing = torch.tensor([16.0]), torch.zeros(2, 1)

    def advantages(done: list[bool], final_values: Tensor) -> list[float]:
        ends = torch.tensor(done)[:, None]
        bootstrap = next_values(values, last_values, ends, final_values)
        return gae(rewards, values, bootstrap, ends, 0.5, 0.5)[0].flatten().tolist()

    # delta = [1 + 0.5 * 8 - 4, 2 + 0.5 * 16 - 8] = [1, 2]
    assert advantages([False, False], nothing) == [1 + 0.25 * 2, 2]
    # the first step terminates: delta[0] = 1 - 4, and nothing flows over from step 1
    assert advantages([True, False], nothing) == [-3, 2]
    # the first step is truncated where the value would have been 2: delta[0] = 1 + 0.5 * 2 - 4
    assert advantages([True, False], torch.tensor([[2.0], [0.0]])) == [-2, 2]
    # the last step terminates: delta[1] = 2 - 8
    assert advantages([False, True], nothing) == [1 - 0.25 * 6, -6]


def test_vtrace_by_hand() -> None:
    """Ratios 2 and 1/4 with rho clipped at 1 and c at 1: the first is clipped, the second is not."""
    rewards, values = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [8.0]])
    done = torch.zeros(2, 1, dtype=torch.bool)
    bootstrap = next_values(values, torch.tensor([16.0]), done, torch.zeros(2, 1))
    log_ratio = torch.tensor([[2.0], [0.25]]).log()
    advantages, targets = vtrace(rewards, values, bootstrap, done, log_ratio, 0.5, 1.0, 1.0, 1.0)
    second = 0.25 * 2
    torch.testing.assert_close(advantages, torch.tensor([[1 + 0.5 * 1 * second], [second]]))
    torch.testing.assert_close(targets, torch.tensor([[4 + 1.25], [8.5]]))

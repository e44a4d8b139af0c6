"""The LSTM with reset tokens on cuDNN equals the loop over time. On the CPU: tests/test_reset_lstm.py."""

from __future__ import annotations

import copy

import pytest
import torch

from dist_trainer.learner import allow_tf32
from dist_trainer.policies import learning
from tests.gpu.device import DEVICE, Operators, functions_behind, learner_for, needs_gpu, relative_error
from tests.test_reset_lstm import (
    PATTERNS,
    ROWS,
    Case,
    done_at,
    gradients,
    loop,
    make_case,
    needed,
    random_done,
    with_tokens,
)

pytestmark = needs_gpu
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}
LSTM = "CudnnRnnBackward0"


@pytest.fixture(autouse=True)
def full_precision() -> None:
    allow_tf32(False)


def on_device(case: Case) -> Case:
    inputs, state = (x.detach().to(DEVICE).requires_grad_() for x in (case.inputs, case.state))
    return Case(copy.deepcopy(case.lstm).to(DEVICE), inputs, state, case.weights_of_loss.to(DEVICE))


def doubled(case: Case) -> Case:
    inputs, state = (x.detach().double().requires_grad_() for x in (case.inputs, case.state))
    return Case(copy.deepcopy(case.lstm).double(), inputs, state, case.weights_of_loss.double())


def check(case: Case, done: torch.Tensor, max_done: int) -> None:
    """Outputs, and the gradients of inputs, initial state and every weight; against the loop in float64 on the CPU."""
    exact, ours = doubled(case), on_device(case)
    expected = loop(exact, done)
    outputs = with_tokens(ours.lstm, ours.inputs, ours.state, done.to(DEVICE), max_done)
    tolerance = TOLERANCE[case.inputs.dtype]
    assert LSTM in functions_behind(outputs)
    assert relative_error(outputs, expected) < tolerance
    for actual, wanted in zip(gradients(ours, outputs), gradients(exact, expected), strict=True):
        assert actual.isfinite().all()
        assert relative_error(actual, wanted) < tolerance or wanted.abs().max() < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_loop_at_each_place_of_a_done(pattern: str, dtype: torch.dtype) -> None:
    case = make_case(5, 6, dtype)
    for done in (done_at([PATTERNS[pattern]] * ROWS), done_at([PATTERNS[pattern], [], [1, 7], [3]])):
        check(case, done, needed(done))
        check(case, done, needed(done) + 2)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("features", "hidden", "steps"), [(1, 1, 9), (7, 8, 9), (12, 33, 9), (64, 128, 64)])
def test_equals_the_loop_at_each_size(features: int, hidden: int, steps: int, dtype: torch.dtype) -> None:
    """The last in the size of a real policy; its weights are scaled so that the loop does not blow up rounding."""
    case, done = make_case(features, hidden, dtype, steps=steps), random_done(steps, 0.1)
    with torch.no_grad():
        for weight in case.lstm.parameters():
            weight.div_(max(1.0, hidden / 16) ** 0.5)
    check(case, done, needed(done))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_nothing_passes_over_a_reset(dtype: torch.dtype) -> None:
    """Exactly: no gradient, and what follows depends on nothing before."""
    case, end = on_device(make_case(5, 8, dtype)), 3
    done = done_at([[end]] * ROWS).to(DEVICE)
    outputs = with_tokens(case.lstm, case.inputs, case.state, done, 1)
    of_inputs, of_state = torch.autograd.grad(outputs[end + 1 :].square().sum(), [case.inputs, case.state])
    assert of_inputs[: end + 1].eq(0).all()
    assert of_state.eq(0).all()
    assert of_inputs[end + 1 :].ne(0).any()
    changed = case.inputs.detach().clone()
    changed[: end + 1] *= -3
    again = with_tokens(case.lstm, changed, -5 * case.state, done, 1)
    assert torch.equal(again[end + 1 :], outputs[end + 1 :])
    assert not torch.equal(again[: end + 1], outputs[: end + 1])


def test_the_policy_learns_in_bfloat16_and_never_in_float16() -> None:
    """Autocast to bfloat16 computes cuDNN's LSTM in float16 (torch 2.11), in which the reset tokens' weights overflow
    and the small gradients of a mean over many samples vanish. On the CPU: tests/test_precision.py."""
    results = []
    for precision in ("float32", "bfloat16"):
        learner = learner_for(f"precision={precision}")
        generator = torch.Generator().manual_seed(3)
        observations = torch.randn(24, 16, 4, generator=generator).to(DEVICE)
        done = (torch.rand(24, 16, generator=generator) < 0.1).to(DEVICE)
        state = learner.policy.initial_state(16)
        weights = list(learner.policy.parameters())
        with Operators() as operators:
            parameters, values = learning(learner.policy, observations, state, done, needed(done.cpu()))
        assert LSTM in functions_behind(values)
        lstm = [types for name, types in operators.types.items() if name == "_cudnn_rnn"]
        assert lstm
        assert torch.float16 not in set().union(*operators.types.values())
        assert (torch.bfloat16 in lstm[0]) == (precision == "bfloat16")
        tiny = (parameters.square().sum() + values.square().sum()) / 2**24  # gradients as of a mean over millions
        flat = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(tiny, weights)])
        assert flat.isfinite().all()
        results.append((parameters.detach(), flat))
    for exact, rounded in zip(*results, strict=True):
        assert 0 < (rounded - exact).norm() / exact.norm() < 0.05

"""The LSTM with reset tokens equals a loop over time that multiplies the state by (1 - done)."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dist_trainer.policies.reset_lstm import ResetLSTM, make_layout

STEPS, ROWS = 9, 4
PATTERNS = {
    "none": [],
    "first": [0],
    "last": [STEPS - 1],
    "first and last": [0, STEPS - 1],
    "middle": [4],
    "consecutive": [2, 3, 4],
    "all": list(range(STEPS)),
}


def assert_equal_up_to_rounding(actual: Tensor, expected: Tensor) -> None:
    """Of numbers of a size around 1."""
    exact = expected.dtype == torch.float64
    torch.testing.assert_close(actual, expected, rtol=1e-12 if exact else 1e-5, atol=1e-12 if exact else 2e-6)


@dataclass
class Case:
    lstm: ResetLSTM
    inputs: Tensor
    state: Tensor
    weights_of_loss: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.inputs, self.state, *self.lstm.parameters()]


def make_case(features: int, hidden: int, dtype: torch.dtype, *, steps: int = STEPS, scale: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(features * 1000 + hidden)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    lstm = ResetLSTM(features, hidden).to(dtype)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.copy_(normal(*parameter.shape) * 0.4)
    inputs, state = normal(steps, ROWS, features), scale * normal(2, ROWS, hidden)
    return Case(lstm, inputs.requires_grad_(), state.requires_grad_(), normal(steps, ROWS, hidden))


def done_at(steps_of_rows: list[list[int]], steps: int = STEPS) -> Tensor:
    done = torch.zeros(steps, len(steps_of_rows), dtype=torch.bool)
    for row, ends in enumerate(steps_of_rows):
        done[ends, row] = True
    return done


def random_done(steps: int = STEPS, probability: float = 0.3) -> Tensor:
    return torch.rand(steps, ROWS, generator=torch.Generator().manual_seed(5)) < probability


def needed(done: Tensor) -> int:
    return int(done[:-1].sum(0).max())


def loop(case: Case, done: Tensor) -> Tensor:
    """One step at a time, from the equations of the LSTM."""
    lstm = case.lstm
    h, c = case.state
    outputs = []
    for x, ended in zip(case.inputs, done, strict=True):
        gates = functional.linear(x, lstm.weight_ih, lstm.bias) + functional.linear(h, lstm.weight_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
        going_on = 1 - ended[:, None].to(h.dtype)
        h, c = h * going_on, c * going_on
    return torch.stack(outputs)


def with_tokens(lstm: ResetLSTM, inputs: Tensor, state: Tensor, done: Tensor, max_done: int) -> Tensor:
    layout = make_layout(done, max_done)
    return layout.take(lstm(layout.expand(inputs), state, layout)) if layout else lstm(inputs, state, None)


def gradients(case: Case, outputs: Tensor) -> list[Tensor]:
    loss = (outputs * case.weights_of_loss + outputs.square()).sum()
    return list(torch.autograd.grad(loss, case.leaves()))


def check(case: Case, done: Tensor, max_done: int) -> None:
    """Outputs, and the gradients of inputs, initial state and every weight."""
    expected, outputs = loop(case, done), with_tokens(case.lstm, case.inputs, case.state, done, max_done)
    assert_equal_up_to_rounding(outputs, expected)
    for actual, wanted in zip(gradients(case, outputs), gradients(case, expected), strict=True):
        assert actual.isfinite().all()
        scale = max(1.0, float(wanted.abs().max()))
        assert_equal_up_to_rounding(actual / scale, wanted / scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_loop_at_each_place_of_a_done(pattern: str, dtype: torch.dtype) -> None:
    """All rows with the same dones; then one row with them beside rows with none and with others."""
    case = make_case(5, 6, dtype)
    for done in (done_at([PATTERNS[pattern]] * ROWS), done_at([PATTERNS[pattern], [], [1, 7], [3]])):
        check(case, done, needed(done))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("features", "hidden"), [(1, 1), (3, 5), (7, 8), (8, 7), (16, 16), (12, 33)])
def test_equals_the_loop_at_each_size(features: int, hidden: int, dtype: torch.dtype) -> None:
    """Features one below, at and above a multiple of 8; random dones."""
    done = random_done()
    assert needed(done) > 1
    check(make_case(features, hidden, dtype), done, needed(done))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_the_loop_on_a_long_segment(dtype: torch.dtype) -> None:
    done = random_done(80, 0.1)
    check(make_case(6, 10, dtype, steps=80), done, needed(done))


@pytest.mark.parametrize("steps", [1, 2])
def test_shortest_segments(steps: int) -> None:
    for rows in ([[0], [], [0], []], [list(range(steps))] * ROWS):
        done = done_at(rows, steps)
        for more in (0, 1):
            check(make_case(5, 6, torch.float64, steps=steps), done, needed(done) + more)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_more_room_than_needed_changes_nothing(pattern: str) -> None:
    """max_done is an upper bound."""
    case = make_case(5, 6, torch.float64)
    done = done_at([PATTERNS[pattern], [], [1, 7], [3]])
    for more in (1, 2, STEPS):
        check(case, done, needed(done) + more)


def test_inputs_and_outputs_of_other_episodes_do_not_mix() -> None:
    """No gradient flows over a reset, in neither direction: exactly 0, and what follows depends on nothing before."""
    case, end = make_case(5, 6, torch.float32), 3
    done = done_at([[end]] * ROWS)
    outputs = with_tokens(case.lstm, case.inputs, case.state, done, 1)
    of_inputs, of_state = torch.autograd.grad(outputs[end + 1 :].square().sum(), [case.inputs, case.state])
    assert of_inputs[: end + 1].eq(0).all()
    assert of_state.eq(0).all()
    assert of_inputs[end + 1 :].ne(0).all()
    changed = case.inputs.detach().clone()
    changed[: end + 1] *= -3
    again = with_tokens(case.lstm, changed, -5 * case.state, done, 1)
    assert torch.equal(again[end + 1 :], outputs[end + 1 :])
    assert not torch.equal(again[: end + 1], outputs[: end + 1])


def test_what_follows_a_reset_starts_from_zero() -> None:
    """The steps after a done are those of a segment of their own with a zero state."""
    case, end = make_case(5, 6, torch.float64), 3
    outputs = with_tokens(case.lstm, case.inputs, case.state, done_at([[end]] * ROWS), 1)
    fresh = with_tokens(
        case.lstm, case.inputs[end + 1 :], torch.zeros_like(case.state), done_at([[]] * ROWS, STEPS - end - 1), 0
    )
    torch.testing.assert_close(outputs[end + 1 :], fresh, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_large_states_are_forgotten_as_well(dtype: torch.dtype) -> None:
    """Cells of size 1e3 saturate every gate's tanh; resets still give exactly the loop's finite numbers."""
    done = random_done()
    check(make_case(5, 6, dtype, scale=1e3), done, needed(done))
    case = make_case(5, 6, dtype, scale=1e30)
    outputs = with_tokens(case.lstm, case.inputs, case.state, done_at([[0]] * ROWS), 1)
    fresh = with_tokens(case.lstm, case.inputs[1:], torch.zeros_like(case.state), done_at([[]] * ROWS, STEPS - 1), 0)
    assert_equal_up_to_rounding(outputs[1:], fresh)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_steps_agree_with_the_segment(dtype: torch.dtype) -> None:
    """Acting step by step, with the state zeroed after each done, gives what learning recomputes."""
    case, done = make_case(5, 6, dtype), random_done()
    state, outputs = case.state, []
    for x, ended in zip(case.inputs, done, strict=True):
        output, state = case.lstm.step(x, state)
        assert torch.equal(output, state[0])
        outputs.append(output)
        state = state.masked_fill(ended[None, :, None], 0)
    segment = with_tokens(case.lstm, case.inputs, case.state, done, needed(done))
    assert_equal_up_to_rounding(torch.stack(outputs), segment)


def test_only_the_lstm_s_own_weights_are_trained_and_saved() -> None:
    """The reset feature's weights are no parameters and not in checkpoints."""
    lstm = ResetLSTM(5, 6)
    names = {"weight_ih", "weight_hh", "bias"}
    assert {name for name, _ in lstm.named_parameters()} == names
    assert set(lstm.state_dict()) == names

"""A one-layer LSTM whose state returns to zero after chosen steps, at the speed of one fused call.

A fused LSTM runs a whole segment in one call but knows nothing of episode ends inside it. So each `done` becomes one
more time step, a *reset token*: an input that is zero but for one added feature. That feature's weight is fixed (-1e4
into the input and the forget gate, no parameter), which closes both gates exactly: sigmoid(-1e4) = 0, hence
c = 0 * c + 0 * g = 0, h = o * tanh(0) = 0, and no gradient passes back. The sequence stays rectangular: T plus the
largest number of dones of any row. A loop over time that multiplies the state by (1 - done) gives the same numbers;
tests/test_reset_lstm.py compares the two.

Legend: T steps, R reset tokens of the row that has most, N rows, F input features, F8 the same with at least one added
and rounded up to a multiple of 8 (for tensor cores), H hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

GATE_CLOSED = -1e4  # sigmoid gives exactly 0 in every floating-point type
FEATURE_MULTIPLE = 8


class ResetLSTM(nn.Module):
    reset_columns: Tensor  # (4 H, F8 - F)
    no_bias: Tensor  # (4 H,)

    def __init__(self, features: int, hidden_size: int):
        super().__init__()
        self.features, self.hidden_size = features, hidden_size
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, features))  # gates in the order i, f, g, o
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        for weight in (self.weight_ih, self.weight_hh):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate)
        added = FEATURE_MULTIPLE - features % FEATURE_MULTIPLE
        reset_columns = torch.zeros(4 * hidden_size, added)
        reset_columns[: 2 * hidden_size, 0] = GATE_CLOSED
        self.register_buffer("reset_columns", reset_columns, persistent=False)
        # The fused call wants two biases; a second trainable one would only double the step of the first.
        self.register_buffer("no_bias", torch.zeros(4 * hidden_size), persistent=False)

    def _fused(self, inputs: Tensor, state: Tensor, weight_ih: Tensor) -> tuple[Tensor, Tensor]:
        """(T, N, features), (2, N, H) -> outputs (T, N, H), state (2, N, H)."""
        weights = [weight_ih, self.weight_hh, self.bias, self.no_bias]
        h, c = state[0:1].contiguous(), state[1:2].contiguous()
        outputs, h, c = torch.lstm(inputs, [h, c], weights, True, 1, 0.0, self.training, False, False)
        return outputs, torch.cat([h, c])

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F), (2, N, H) -> outputs (N, H), new state (2, N, H)."""
        outputs, state = self._fused(inputs[None], state, self.weight_ih)
        return outputs[0], state

    def forward(self, inputs: Tensor, state: Tensor, done: Tensor, max_done: int) -> Tensor:
        """(T, N, F), (2, N, H), (T, N) bool -> outputs (T, N, H).

        `state` is that before the first step. `max_done` must be at least the largest number of dones of any row in
        the first T - 1 steps (a done at the last step resets nothing here); more costs time and changes nothing.
        """
        if max_done == 0:
            return self._fused(inputs, state, self.weight_ih)[0]
        steps, rows = done.shape
        place, source, is_token = _layout(done, max_done)
        expanded: Any = _PlaceRows.apply(inputs.flatten(0, 1), source, place, is_token, self.reset_columns.shape[1])
        weight_ih = torch.cat([self.weight_ih, self.reset_columns], 1)  # (4 H, F8)
        outputs, _ = self._fused(expanded.view(steps + max_done, rows, -1), state, weight_ih)
        taken: Any = _TakeRows.apply(outputs.flatten(0, 1), place, source)
        return taken.view(steps, rows, -1)


def _layout(done: Tensor, max_done: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the steps lie in the sequence with reset tokens. No shape depends on data: no host sync.

    Returns:
        place: (T * N,) row of each step in the expanded, flattened sequence; unique.
        source: ((T + R) * N,) its inverse: the step at each row, or T * N where there is none.
        is_token: ((T + R) * N,) 1 where a reset token lies.
    """
    steps, rows = done.shape
    resets = done[:-1].to(torch.int64)  # (T - 1, N)
    before = torch.nn.functional.pad(resets.cumsum(0), (0, 0, 1, 0))  # (T, N) tokens ahead of each step
    step = torch.arange(steps, device=done.device)[:, None]
    row = torch.arange(rows, device=done.device)
    place = ((step + before) * rows + row).flatten()  # (T * N,)
    source = torch.full(((steps + max_done) * rows,), steps * rows, device=done.device)
    source[place] = torch.arange(steps * rows, device=done.device)
    # The row after a step holds its token, or else the next step; either way it is written once.
    is_token = torch.zeros((steps + max_done) * rows, dtype=torch.bool, device=done.device)
    is_token[place[: (steps - 1) * rows] + rows] = done[:-1].flatten()
    return place, source, is_token


class _PlaceRows(torch.autograd.Function):
    """Steps (T * N, F) into the expanded sequence ((T + R) * N, F8). The rows are unique, so backward is a gather
    (the built-in backward of indexing is a slow scatter-add)."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, source: Tensor, place: Tensor, is_token: Tensor, added: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.features = steps.shape[1]
        padded = torch.nn.functional.pad(steps, (0, added, 0, 1))  # the last row: zeros
        expanded = padded.index_select(0, source)
        expanded[:, ctx.features] = is_token
        return expanded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (place,) = ctx.saved_tensors
        return gradients[0].index_select(0, place)[:, : ctx.features], None, None, None, None


class _TakeRows(torch.autograd.Function):
    """The expanded outputs ((T + R) * N, H) back to steps (T * N, H); backward is a gather too."""

    @staticmethod
    def forward(ctx: Any, expanded: Tensor, place: Tensor, source: Tensor) -> Tensor:
        ctx.save_for_backward(source)
        return expanded.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (source,) = ctx.saved_tensors
        padded = torch.nn.functional.pad(gradients[0], (0, 0, 0, 1))
        return padded.index_select(0, source), None, None

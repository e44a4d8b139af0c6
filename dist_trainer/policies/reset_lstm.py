"""A one-layer LSTM whose state returns to zero after chosen steps, at the speed of one fused call.

A fused LSTM runs a whole segment in one call but knows nothing of episode ends inside it. So each `done` becomes one
more time step, a *reset token*: an input that is zero but for one added feature. That feature's weight is fixed (-1e8
into the input and the forget gate, no parameter), which closes both gates exactly: sigmoid(-1e8) = 0, hence
c = 0 * c + 0 * g = 0, h = o * tanh(0) = 0, and no gradient passes back. The sequence stays rectangular: T plus the
largest number of dones of any row. A loop over time that multiplies the state by (1 - done) gives the same numbers;
tests/test_reset_lstm.py compares the two.

Tokens are put in where the sequence is cheapest to copy: among the observations, which need no gradient. They then go
through the encoder as if they were steps (whatever comes out of it, closed gates hide it, and send no gradient back),
and what the heads say of them is left out.

Legend: T steps, R reset tokens of the row that has most, N rows, F input features, F8 the same with at least one added
and, on CUDA, rounded up to a multiple of 8 (for tensor cores), H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

GATE_CLOSED = -1e8  # outweighs whatever the encoder makes of a token; sigmoid gives exactly 0 in every type
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
        training = self.training and torch.is_grad_enabled()  # else nothing is kept for a backward pass
        outputs, h, c = _fused_lstm(inputs, h, c, weights, training)
        return outputs, torch.cat([h, c])

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F), (2, N, H) -> outputs (N, H), new state (2, N, H)."""
        outputs, state = self._fused(inputs[None], state, self.weight_ih)
        return outputs[0], state

    def forward(self, inputs: Tensor, state: Tensor, layout: Layout | None) -> Tensor:
        """(T + R, N, F), (2, N, H) -> outputs (T + R, N, H); `state` is that before the first step. Without a layout
        nothing is reset."""
        if layout is None:
            return self._fused(inputs, state, self.weight_ih)[0]
        added = self.reset_columns if inputs.is_cuda else self.reset_columns[:, :1]  # (4 H, F8 - F)
        flags = inputs.new_zeros(*inputs.shape[:2], added.shape[1])
        flags[..., 0] = layout.is_token
        weight_ih = torch.cat([self.weight_ih, added], 1)  # (4 H, F8)
        return self._fused(torch.cat([inputs, flags], -1), state, weight_ih)[0]


def _fused_lstm(inputs: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], training: bool) -> Any:
    """torch.lstm of one layer. On CUDA autocast, asked for bfloat16, would run cuDNN's in float16 (torch 2.11)."""
    if inputs.is_cuda and torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", enabled=False):
            low = [weight.to(dtype) for weight in weights]
            return _fused_lstm(inputs.to(dtype), h.to(dtype), c.to(dtype), low, training)
    return torch.lstm(inputs, [h, c], weights, True, 1, 0.0, training, False, False)


@dataclass
class Layout:
    """Where the steps of a segment lie in the sequence with reset tokens. Its rows are unique: `take` is a gather, and
    so is its backward pass."""

    place: Tensor  # (T * N,) the row of each step in the expanded, flattened sequence
    source: Tensor  # ((T + R) * N,) its inverse: the step at each row; any step where there is none
    is_token: Tensor  # (T + R, N) bool
    steps: int

    def expand(self, sequence: Tensor) -> Tensor:
        """(T, N, ...) -> (T + R, N, ...): tokens, and rows behind the last step, repeat some step."""
        expanded = sequence.flatten(0, 1).index_select(0, self.source)
        return expanded.unflatten(0, self.is_token.shape)

    def take(self, expanded: Tensor) -> Tensor:
        """(T + R, N, ...) -> (T, N, ...): the steps."""
        taken: Any = _TakeRows.apply(expanded.flatten(0, 1), self.place)
        return taken.unflatten(0, (self.steps, -1))


def make_layout(done: Tensor, max_done: int) -> Layout | None:
    """For dones (T, N); None if there is nothing to reset. No shape depends on data: no host sync.

    `max_done` (R) must be at least the largest number of dones of any row in the first T - 1 steps (a done at the last
    step resets nothing here); more costs time and changes nothing.
    """
    if max_done == 0:
        return None
    steps, rows = done.shape
    resets = done[:-1].to(torch.int64)  # (T - 1, N)
    before = torch.nn.functional.pad(resets.cumsum(0), (0, 0, 1, 0))  # (T, N) tokens ahead of each step
    step = torch.arange(steps, device=done.device)[:, None]
    row = torch.arange(rows, device=done.device)
    place = ((step + before) * rows + row).flatten()  # (T * N,)
    source = torch.zeros((steps + max_done) * rows, dtype=torch.int64, device=done.device)
    source[place] = torch.arange(steps * rows, device=done.device)
    # The row after a step holds its token, or else the next step; either way it is written once.
    is_token = torch.zeros((steps + max_done) * rows, dtype=torch.bool, device=done.device)
    is_token[place[: (steps - 1) * rows] + rows] = done[:-1].flatten()
    return Layout(place, source, is_token.view(-1, rows), steps)


class _TakeRows(torch.autograd.Function):
    """Rows (n, ...) of a tensor (m, ...), each at most once. The built-in backward pass of indexing adds up row by row;
    here it only has to put them back."""

    @staticmethod
    def forward(ctx: Any, expanded: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        ctx.shape = expanded.shape
        return expanded.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (place,) = ctx.saved_tensors
        back = gradients[0].new_zeros(ctx.shape)
        return back.index_copy_(0, place, gradients[0]), None

"""The policy's own arithmetic in several forms of the same work, for benchmarks/limit.py: each may be the fastest here.

Plain torch modules of the policy's shapes (encoder, one-layer LSTM, heads), without resets of the state. In bfloat16
there is autocast (float32 weights, cast in each call), and a copy of the weights in bfloat16, made anew for each
minibatch. On CUDA only the latter is bfloat16: autocast runs cuDNN's LSTM in float16 whatever it was told (torch 2.11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dist_trainer.envs import EnvSpec
from dist_trainer.policies.encoders import make_encoder

State = tuple[Tensor, Tensor]  # h and c, (N, H) each
Step = Callable[[State], State]  # of all rows


@dataclass(frozen=True)
class Shape:
    """Of one learner's part of an iteration."""

    observation: tuple[int, ...]
    outputs: int  # action parameters
    hidden: int
    rows: int
    horizon: int
    minibatches: int

    @property
    def segments(self) -> int:
        """Of a minibatch."""
        return self.rows // self.minibatches


def shape_of(spec: EnvSpec, hidden: int, samples: int, horizon: int, minibatches: int, learners: int) -> Shape:
    outputs = sum(spec.action_sizes) or 2 * len(spec.action_low)
    return Shape(spec.observation_shape, outputs, hidden, samples // horizon // learners, horizon, minibatches)


class Plain(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.encoder = make_encoder(shape.observation, shape.hidden, 1, "relu")
        self.lstm = nn.LSTM(shape.hidden, shape.hidden)
        self.cell = nn.LSTMCell(shape.hidden, shape.hidden)
        self.heads = nn.Linear(shape.hidden, shape.outputs + 1)


@dataclass
class Arithmetic:
    """Weights in float32, what computes with them, and whether under autocast."""

    name: str
    weights: Plain
    policy: Plain  # the same, or a copy in bfloat16
    autocast: bool

    @property
    def dtype(self) -> torch.dtype:
        return self.policy.heads.weight.dtype

    def context(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, self.autocast)

    def refresh(self) -> None:
        """The copy has the weights of now; nothing where there is no copy."""
        if self.policy is not self.weights:
            with torch.no_grad():
                for copy, weight in zip(self.policy.parameters(), self.weights.parameters(), strict=True):
                    copy.copy_(weight)

    def clear_gradients(self) -> None:
        self.policy.zero_grad(set_to_none=True)


def arithmetics(shape: Shape, precision: str, device: torch.device) -> list[Arithmetic]:
    """`precision`: float32 | tf32 | bfloat16; for tf32 the switches of torch must have been set."""
    torch.manual_seed(0)
    weights = Plain(shape).to(device)
    if precision != "bfloat16":
        return [Arithmetic("", weights, weights, autocast=False)]
    copy = Plain(shape).to(device, torch.bfloat16)
    copied = Arithmetic(", bfloat16 weights", weights, copy, autocast=False)
    return [copied] if device.type == "cuda" else [Arithmetic("", weights, weights, autocast=True), copied]


def initial_state(arithmetic: Arithmetic, rows: int) -> State:
    h = arithmetic.policy.heads.weight.new_zeros(rows, arithmetic.policy.lstm.hidden_size)
    return h, torch.zeros_like(h)


def acting_steps(arithmetic: Arithmetic, shape: Shape, device: torch.device) -> dict[str, Step]:
    """By name: one step of all rows."""
    policy, dtype = arithmetic.policy, arithmetic.dtype
    observations = torch.randn(shape.rows, *shape.observation, device=device)

    def fused(state: State) -> State:
        outputs, (h, c) = policy.lstm(policy.encoder(observations.to(dtype))[None], (state[0][None], state[1][None]))
        policy.heads(outputs[0])
        return h[0], c[0]

    def cell(state: State) -> State:
        h, c = policy.cell(policy.encoder(observations.to(dtype)), state)
        policy.heads(h)
        return h, c

    return {f"fused step{arithmetic.name}": fused, f"cell{arithmetic.name}": cell}


def learning_forms(arithmetic: Arithmetic, shape: Shape, device: torch.device) -> dict[str, Callable[[], None]]:
    """By name: forward and backward of one minibatch, whole or in parts; the gradients are added to those before."""
    policy, dtype = arithmetic.policy, arithmetic.dtype
    observations = torch.randn(shape.horizon, shape.segments, *shape.observation, device=device)
    gradient = torch.randn(shape.horizon, shape.segments, shape.outputs + 1, device=device, dtype=dtype)
    state = torch.zeros(1, shape.segments, shape.hidden, device=device, dtype=dtype)

    def form(parts: int) -> Callable[[], None]:
        def learn() -> None:
            arithmetic.refresh()
            pieces = zip(observations.chunk(parts, 1), gradient.chunk(parts, 1), state.chunk(parts, 1), strict=True)
            for x, g, s in pieces:
                outputs, _ = policy.lstm(policy.encoder(x.to(dtype)), (s.contiguous(), s.contiguous()))
                policy.heads(outputs).backward(g)

        return learn

    counts = [parts for parts in (1, 2, 4) if parts == 1 or shape.segments >= 4 * parts]
    return {f"{parts} part(s){arithmetic.name}": form(parts) for parts in counts}

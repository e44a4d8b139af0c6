"""Encoder -> one-layer LSTM -> action head and value."""

from __future__ import annotations

from torch import Tensor

from dist_trainer.policies import Policy
from dist_trainer.policies.encoders import make_encoder
from dist_trainer.policies.heads import action_and_value, make_action_head, scaled_linear
from dist_trainer.policies.reset_lstm import ResetLSTM, make_layout


class RecurrentPolicy(Policy):
    """The state (2, N, H) is the LSTM's h and c."""

    double_backward = False  # no fused LSTM has it: neither cuDNN's nor oneDNN's

    def __init__(
        self,
        observation_shape: tuple[int, ...],
        action_kind: str,
        action_sizes: tuple[int, ...],
        action_low: tuple[float, ...],
        action_high: tuple[float, ...],
        hidden_size: int,
        encoder_layers: int,
        activation: str,
    ):
        super().__init__()
        self.encoder = make_encoder(observation_shape, hidden_size, encoder_layers, activation)
        self.lstm = ResetLSTM(hidden_size, hidden_size)
        self.action_head = make_action_head(hidden_size, action_kind, action_sizes, action_low, action_high)
        self.value_head = scaled_linear(hidden_size, 1, gain=1.0)

    def initial_state(self, rows: int) -> Tensor:
        return self.lstm.weight_hh.new_zeros(2, rows, self.lstm.hidden_size)

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, state = self.lstm.step(self.encoder(observations), state)
        both = action_and_value(features, self.action_head, self.value_head)
        return both[..., :-1], both[..., -1], state

    def learn(self, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
        layout = make_layout(done, max_done)
        inputs = layout.expand(observations) if layout else observations
        features = self.lstm(self.encoder(inputs), state, layout)
        both = action_and_value(features, self.action_head, self.value_head)
        if layout:
            both = layout.take(both)
        return both[..., :-1], both[..., -1]

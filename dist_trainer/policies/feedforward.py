"""Encoder -> action head and value: a policy without memory."""

from __future__ import annotations

from torch import Tensor

from dist_trainer.policies import Policy
from dist_trainer.policies.encoders import make_encoder
from dist_trainer.policies.heads import action_and_value, make_action_head, scaled_linear


class FeedforwardPolicy(Policy):
    """The state (0, N, 0) is empty."""

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
        self.action_head = make_action_head(hidden_size, action_kind, action_sizes, action_low, action_high)
        self.value_head = scaled_linear(hidden_size, 1, gain=1.0)

    def initial_state(self, rows: int) -> Tensor:
        return self.value_head.weight.new_zeros(0, rows, 0)

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = action_and_value(self.encoder(observations), self.action_head, self.value_head)
        return both[..., :-1], both[..., -1], state

    def learn(self, observations: Tensor, state: Tensor, done: Tensor, max_done: int) -> tuple[Tensor, Tensor]:
        parameters, values, _ = self.act(observations, state)
        return parameters, values

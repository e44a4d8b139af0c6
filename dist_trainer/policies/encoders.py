"""From one observation to features. Legend: B any number of rows, F features."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from dist_trainer.policies.heads import scaled_linear

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


class Encoder(nn.Sequential):
    """(..., *observation_shape) -> (..., F), over any leading dimensions."""

    def __init__(self, observation_shape: tuple[int, ...], *layers: nn.Module):
        super().__init__(*layers)
        self.observation_dims = len(observation_shape)

    def forward(self, observations: Tensor) -> Tensor:
        leading = observations.shape[: observations.dim() - self.observation_dims]
        return super().forward(observations.flatten(0, len(leading) - 1)).unflatten(0, leading)


def make_encoder(observation_shape: tuple[int, ...], features: int, layers: int, activation: str) -> Encoder:
    """A small convolutional network for images (channels, height, width), else a multilayer perceptron.

    Raises ValueError for sizes below 1 or an unknown activation.
    """
    if features < 1 or layers < 1:
        raise ValueError(f"hidden_size={features} and encoder_layers={layers} must be at least 1")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation} must be one of {', '.join(ACTIVATIONS)}")
    if len(observation_shape) == 3:
        return Encoder(observation_shape, *_convolutions(observation_shape, features, ACTIVATIONS[activation]))
    widths = [math.prod(observation_shape)] + layers * [features]
    perceptron: list[nn.Module] = [nn.Flatten(1)] if len(observation_shape) != 1 else []
    for inputs, outputs in pairwise(widths):
        perceptron += [scaled_linear(inputs, outputs, gain=math.sqrt(2)), ACTIVATIONS[activation]()]
    return Encoder(observation_shape, *perceptron)


def _convolutions(shape: tuple[int, ...], features: int, activation: type[nn.Module]) -> list[nn.Module]:
    """Two 3 x 3 convolutions that halve the picture while it is larger than 6 pixels, then one dense layer."""
    layers: list[nn.Module] = []
    channels, size = shape[0], torch.tensor(shape[1:])
    for outputs in (32, 64):
        stride = 2 if int(size.min()) > 6 else 1
        layers += [nn.Conv2d(channels, outputs, kernel_size=3, stride=stride, padding=1), activation()]
        channels, size = outputs, (size + stride - 1) // stride
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            nn.init.zeros_(layer.bias if layer.bias is not None else torch.empty(0))
    flat = channels * int(size.prod())
    return [*layers, nn.Flatten(1), scaled_linear(flat, features, gain=math.sqrt(2)), activation()]

"""Newton's products through cuDNN's LSTM are right. On the CPU: tests/test_newton.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from dist_trainer import curvature, minibatch, ppo, update
from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import make_learner
from dist_trainer.optimizers.newton import EPSILON, finite_difference_product
from tests.gpu.device import CARTPOLE, SIZES, Operators, learner_for, needs_gpu

pytestmark = needs_gpu


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_product_equals_differences_in_float64(activation: str, precision: str) -> None:
    """Of the same loss and minibatch on the CPU, for an LSTM of 128. TF32 in the rest of the training is off for them:
    its rounding would be larger than the difference."""
    settings = [f"policy.activation={activation}", "policy.hidden_size=128", "normalize.observations=false"]
    newton = ["optimizer=newton_psgd", "optimizer.newton_sub_batch=1", f"precision={precision}"]
    learner = learner_for(*settings, *newton)
    update.learn(learner, learner.collector.collect())
    learner.iteration += 1
    learner.optimizer_step = 0  # a product is due
    in_double = [*SIZES, *CARTPOLE, *settings, "device=cpu", "dtype=float64"]
    exact = make_learner(compose_train(in_double)[0], connect("cpu", 60))
    exact.policy.load_state_dict({name: x.cpu().double() for name, x in learner.policy.state_dict().items()})
    losses: list[Any] = []
    products: list[tuple[Tensor, Tensor]] = []

    def noting_loss(*args: Any) -> Any:
        losses.append(args)
        return loss(*args)

    def noting_product(*args: Any) -> tuple[Tensor, Tensor]:
        with Operators() as operators:
            products.append(product(*args))
        assert "_cudnn_rnn" in operators.types
        return products[-1]

    loss, product = ppo.ppo_loss, finite_difference_product
    with (
        mock.patch.object(minibatch, "ppo_loss", noting_loss),
        mock.patch.object(curvature, "finite_difference_product", noting_product),
    ):
        update.learn(learner, learner.collector.collect())
    _, _, batch, config, samples = losses[0]
    tensors = {name: x.cpu() for name, x in vars(batch).items() if isinstance(x, Tensor)}
    doubled = {name: x.double() if x.dtype == torch.float32 else x for name, x in tensors.items()}
    vector, ours = (x.cpu().double() for x in products[0])
    parameters = list(exact.policy.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach()
    epsilon, sides = EPSILON["float32"], []
    for distance in (epsilon, -epsilon):
        with torch.no_grad():
            nn.utils.vector_to_parameters(start + distance * vector, parameters)
        value, _ = ppo.ppo_loss(exact.policy, exact.observations, replace(batch, **doubled), config, samples)
        sides.append(torch.cat([x.flatten() for x in torch.autograd.grad(value, parameters)]))
    expected = (sides[0] - sides[1]) / (2 * epsilon)
    assert expected.norm() > 0
    assert (ours - expected).norm() / expected.norm() < 0.02


def test_newton_trains() -> None:
    """Some updates in each precision of the products."""
    for precision in ("float32", "bfloat16"):
        learner = learner_for("optimizer=newton_psgd", f"optimizer.newton_precision={precision}")
        for _ in range(4):
            assert not update.learn(learner, learner.collector.collect()).undone
            learner.iteration += 1

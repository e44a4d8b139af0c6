"""bfloat16 and TF32: where they act, and where they must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World, connect
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, replicated_tensors, warm_up_normalizer
from dist_trainer.minibatch import my_minibatch_rows
from dist_trainer.plan import plan_train
from dist_trainer.policies import learning
from dist_trainer.ppo import LOSS_SUMS
from dist_trainer.rollout import take_minibatch
from dist_trainer.update import learn
from tests.learners import Learners, learners_of_sizes

SETTINGS = [
    *("env=cartpole", "env.params.max_steps=20", "policy.hidden_size=32", "device=cpu", "torch_threads=1"),
    *("env_threads=1", "horizon=24", "total_envs=16", "ppo.minibatches=2", "normalize.warmup_steps=8"),
]


@pytest.fixture(scope="module")
def two() -> Iterator[Learners]:
    with learners_of_sizes([2]) as by_size:
        yield by_size[2]


def learner_for(*overrides: str) -> Learner:
    learner = make_learner(compose_train([*SETTINGS, *overrides])[0], connect("cpu", 60))
    warm_up_normalizer(learner)
    return learner


def log_ratio(learner: Learner) -> Tensor:
    """Of the actions of a rollout, between learning from them and taking them, before any update."""
    rollout = learner.collector.collect()
    rows = my_minibatch_rows(learner, 0).flatten()
    batch = take_minibatch(rollout, rollout.values, rollout.values, rows, int(rollout.done_counts.max()))
    inputs = learner.observations(batch.observations)
    parameters, values = learning(learner.policy, inputs, batch.initial_state, batch.done, batch.max_done)
    assert parameters.dtype == values.dtype == torch.float32
    assert batch.done.any()
    return learner.policy.action_head.log_prob_and_entropy(parameters, batch.actions)[0] - batch.log_probs


@pytest.mark.parametrize("policy", ["lstm", "mlp"])
def test_bfloat16_is_near_float32_and_is_not_it(policy: str) -> None:
    """8 bits of mantissa in products; types of everything that is kept do not change."""
    kinds: list[dict[str, torch.dtype]] = []
    outputs: list[Tensor] = []
    for precision in ("float32", "bfloat16"):
        learner = learner_for(f"policy={policy}", f"precision={precision}")
        rollout = learner.collector.collect()
        outputs.append(rollout.values.clone())
        learn(learner, rollout)
        kept = {name: tensor.dtype for name, tensor in replicated_tensors(learner).items()}
        kinds.append(kept | {"state": learner.collector.state.dtype, "flat": learner.gradients.flat.dtype})
    assert kinds[0] == kinds[1] and torch.bfloat16 not in kinds[1].values()
    first_step = (outputs[1][0] - outputs[0][0]).norm() / outputs[0][0].norm()  # later the episodes differ
    assert 1e-5 < first_step < 0.02


def test_learning_sees_the_probabilities_of_acting() -> None:
    """Up to rounding, for one computes a step at a time and the other a segment."""
    assert log_ratio(learner_for()).abs().max() < 1e-5
    assert log_ratio(learner_for("precision=bfloat16")).abs().max() < 0.02


def test_resets_stay_exact_in_bfloat16() -> None:
    """What comes after the end of an episode does not depend on what was before it."""
    learner = learner_for("precision=bfloat16")
    generator = torch.Generator().manual_seed(1)
    inputs, state = torch.randn(6, 3, 4, generator=generator), torch.randn(2, 3, 32, generator=generator)
    done = torch.zeros(6, 3, dtype=torch.bool)
    done[2] = True
    first = learning(learner.policy, inputs, state, done, 1)[1]
    inputs[:3] = 5.0
    second = learning(learner.policy, inputs, 3 * state, done, 1)[1]
    assert torch.equal(first[3:], second[3:])
    assert not torch.equal(first[:3], second[:3])


def test_newton_products_have_a_precision_of_their_own() -> None:
    """In float32 passes nothing is bfloat16, though the policy learns in it; also in the passes' gradients."""
    products: list[Tensor] = []
    rollout = None
    for precision in ("float32", "bfloat16"):
        learner = learner_for("optimizer=newton_psgd", f"precision={precision}", "normalize.observations=false")
        if rollout is None:
            rollout = learner.collector.collect()
        newton: Any = learner.optimizer.newton

        def hand_over(_: Any, __: Tensor, product: Tensor) -> None:
            products.append(product.clone())

        with mock.patch.object(newton, "hand_over", hand_over), mock.patch.object(optimizers, "step"):
            learn(learner, rollout)
    assert len(products) == 2 and products[0].norm() > 0
    torch.testing.assert_close(products[1], products[0], rtol=0, atol=0)


def end_of_run(world: World, config: TrainConfig) -> tuple[dict[str, Tensor], float]:
    learner = make_learner(config, world)
    warm_up_normalizer(learner)
    for _ in range(4):
        update = learn(learner, learner.collector.collect())
        assert not update.undone
        learner.iteration += 1
    samples = world.sum_(update.sums)[LOSS_SUMS.index("samples")].item()
    return {name: tensor.clone() for name, tensor in replicated_tensors(learner).items()}, samples


def test_learners_agree_in_bfloat16(two: Learners) -> None:
    (first, samples), (second, _) = two.run(end_of_run, compose_train([*SETTINGS, "precision=bfloat16"])[0])
    assert samples == 24 * 16
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(("precision", "wanted"), [("tf32", "tf32"), ("float32", "ieee"), ("bfloat16", "ieee")])
def test_tf32_is_on_where_asked_for_and_nowhere_else(precision: str, wanted: str) -> None:
    """torch's own default has it on in convolutions and LSTMs."""
    cudnn: Any = torch.backends.cudnn
    cuda: Any = torch.backends.cuda
    backends = [cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    try:
        learner_for(f"precision={precision}")
        assert [backend.fp32_precision for backend in backends] == [wanted] * 3
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["precision=float16"], r"precision=float16: .*bfloat16"),
        (["precision=bfloat16", "dtype=float64"], "precision=bfloat16: must be float32"),
    ],
)
def test_what_cannot_be_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_train([*SETTINGS, *settings], 1)

"""The global batch: how it may grow with the learners, how a learner divides its part, what goes over the wire."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.batch_scaling import scale_batch
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World, connect
from dist_trainer.errors import ConfigError
from dist_trainer.learner import make_learner
from dist_trainer.plan import plan_train
from dist_trainer.policies import Policy
from dist_trainer.run_folder import write_run
from dist_trainer.update import learn
from tests.learners import Learners, learners_of_sizes

SETTINGS = [
    *("env=cartpole", "env.params.max_steps=7", "policy.hidden_size=8", "device=cpu", "torch_threads=1"),
    *("env_threads=1", "horizon=12", "total_envs=24", "ppo.minibatches=2"),
]


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([2, 3]) as by_size:
        yield by_size


def config_for(*overrides: str) -> TrainConfig:
    return compose_train([*SETTINGS, *overrides])[0]


# --- growing with the learners


@pytest.mark.parametrize("learners", [1, 2, 3, 4, 64])
def test_by_default_nothing_depends_on_the_learners(learners: int) -> None:
    config = config_for("total_envs=384")
    assert scale_batch(config, learners) == config
    assert plan_train([*SETTINGS, "total_envs=384"], learners).config == config


@pytest.mark.parametrize(
    ("more", "learners", "envs", "minibatches", "rate"),
    [
        ([], 2, 96, 4, 1.0),
        ([], 8, 384, 4, 1.0),
        ([], 1, 48, 4, 1.0),  # fewer learners, a smaller batch
        (["batch_scaling.lr_rule=sqrt"], 8, 384, 4, 2.0),
        (["batch_scaling.lr_rule=linear"], 8, 384, 4, 4.0),
        (["batch_scaling.lr_rule=sqrt"], 1, 48, 4, math.sqrt(0.5)),
        (["batch_scaling.grow=optimizer_steps"], 8, 384, 16, 1.0),
    ],
)
def test_the_batch_grows_as_chosen(more: list[str], learners: int, envs: int, minibatches: int, rate: float) -> None:
    """From 96 environments and 4 minibatches on 2 learners; samples of a minibatch follow."""
    base = ["total_envs=96", "ppo.minibatches=4", "optimizer=adamw", "optimizer.lr=0.002"]
    settings = [*SETTINGS, *base, "batch_scaling.reference_learners=2", *more]
    config = plan_train(settings, learners).config
    assert (config.total_envs, config.ppo.minibatches) == (envs, minibatches)
    assert config.optimizer["lr"] == pytest.approx(0.002 * rate)
    assert scale_batch(config, learners) == config  # it says what it is for: used again, it is not scaled again


def test_a_run_that_goes_on_keeps_its_batch(tmp_path: Path) -> None:
    """On any number of learners: the environments are in the checkpoint."""
    settings = [*SETTINGS, "batch_scaling.reference_learners=1", "batch_scaling.lr_rule=sqrt", "optimizer.lr=0.01"]
    config = plan_train(settings, 4).config
    assert config.total_envs == 96 and config.optimizer["lr"] == pytest.approx(0.02)
    write_run(config, tmp_path, None)
    for learners in (1, 2, 4):
        with mock.patch("dist_trainer.plan.find_checkpoint", return_value=tmp_path / "checkpoints" / "x"):
            resumed = plan_train([f"resume={tmp_path}"], learners).config
        assert resumed.total_envs == 96 and resumed.optimizer["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("settings", "learners", "message"),
    [
        (["batch_scaling.reference_learners=5"], 2, r"total_envs=24: .*multiple of 5 learners x .*nearest: 20 or 30"),
        (["batch_scaling.grow=optimizer_steps", "batch_scaling.reference_learners=4"], 1, r"with ppo.minibatches=2"),
        (["batch_scaling.lr_rule=sqrt"], 4, r"lr_rule=sqrt: acts only with batch_scaling.reference_learners"),
        (["batch_scaling.grow=optimizer_steps"], 4, r"acts only with batch_scaling.reference_learners"),
        (
            ["optimizer.sync=sharded", "optimizer.shard_group=3"],
            4,
            r"shard_group=3: must divide 4 learners; valid: 1, 2, 4",
        ),
        (
            ["optimizer=newton_psgd", "policy=mlp", "optimizer.newton_product=exact", "ppo.micro_batches=2"],
            1,
            "ppo.micro_batches=2: .*newton_sub_batch",
        ),
        (["batch_scaling.reference_learners=0"], 1, "must be at least 1"),
        (["batch_scaling.grow=learners"], 1, "batch_scaling.grow=learners: .*minibatches, optimizer_steps"),
        (["batch_scaling.lr_rule=root"], 1, "batch_scaling.lr_rule=root"),
        (
            ["batch_scaling.grow=optimizer_steps", "batch_scaling.lr_rule=sqrt", "batch_scaling.reference_learners=1"],
            1,
            "batch_scaling.lr_rule=sqrt: must be constant",
        ),
        (["batch_scaling.reference_learners=2", "total_envs=22"], 3, r"total_envs=22: .*of 2 learners x .*: 20 or 24"),
    ],
)
def test_what_cannot_be_is_refused(settings: list[str], learners: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_train([*SETTINGS, *settings], learners)


# --- in parts, one after another


def first_gradients(world: World, config: TrainConfig) -> tuple[list[Tensor], list[int], int, Tensor]:
    """The reduced gradients of an update; segments in each forward pass; how often something of the gradient's size was
    summed over the learners; and the sums of the losses."""
    learner = make_learner(config, world)
    rollout = learner.collector.collect()
    seen: list[Tensor] = []
    segments: list[int] = []
    sums = 0
    learn_of, sum_ = type(learner.policy).learn, World.sum_

    def counted_learn(self: Policy, observations: Tensor, *rest: Any) -> Any:
        segments.append(observations.shape[1])
        return learn_of(self, observations, *rest)

    def counted_sum(self: World, tensor: Tensor) -> Tensor:
        nonlocal sums
        sums += tensor.numel() == learner.gradients.flat.numel()
        return sum_(self, tensor)

    def noted_step(_: Any, gradient: Tensor, **__: Any) -> None:
        seen.append(gradient.clone())

    with (
        mock.patch.object(type(learner.policy), "learn", counted_learn),
        mock.patch.object(World, "sum_", counted_sum),
        mock.patch.object(optimizers, "step", noted_step),
    ):
        update = learn(learner, rollout)
    return seen, segments, sums, update.sums


@pytest.mark.parametrize("optimizer", ["adamw", "newton_psgd"])
@pytest.mark.parametrize(("parts", "segments"), [(2, [3, 3]), (4, [2, 2, 2]), (6, [1] * 6), (100, [1] * 6)])
def test_micro_batches_add_up_to_the_minibatch(
    worlds: dict[int, Learners], parts: int, segments: list[int], optimizer: str
) -> None:
    """Same gradients and losses, reduced as often."""
    low = ["optimizer.q_dtype=float64", "optimizer.newton_every=1"] if optimizer == "newton_psgd" else []
    exact = ["dtype=float64", "optimizer.storage_dtype=float64", *low, f"optimizer={optimizer}"]
    whole = worlds[2].run(first_gradients, config_for(*exact))
    divided = worlds[2].run(first_gradients, config_for(*exact, f"ppo.micro_batches={parts}"))
    for (expected, _, reductions, sums), (found, lengths, same_reductions, same_sums) in zip(
        whole, divided, strict=True
    ):
        assert len(found) == 2 and reductions == same_reductions >= 2
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(same_sums, sums, rtol=1e-10, atol=1e-10)
        assert lengths[-len(segments) :] == segments and max(lengths) == max(segments)


# --- over the wire


def wire(world: World, config: TrainConfig) -> tuple[list[Tensor], list[torch.dtype]]:
    """The reduced gradients of an update, and the types of what of their size was summed over the learners."""
    learner = make_learner(config, world)
    types: list[torch.dtype] = []
    sum_ = World.sum_

    def noted_sum(self: World, tensor: Tensor) -> Tensor:
        if tensor.numel() == learner.gradients.flat.numel():
            types.append(tensor.dtype)
        return sum_(self, tensor)

    seen: list[Tensor] = []
    rollout = learner.collector.collect()
    with (
        mock.patch.object(World, "sum_", noted_sum),
        mock.patch.object(optimizers, "step", lambda _, gradient, **__: seen.append(gradient.clone())),
    ):
        learn(learner, rollout)
    return seen, types


@pytest.mark.parametrize("size", [2, 3])
def test_gradients_can_travel_in_bfloat16(worlds: dict[int, Learners], size: int) -> None:
    """Half the bytes, the same bits on every learner, and an error of bfloat16's size: 8 bits a number."""
    exact, low = (worlds[size].run(wire, config_for(*more)) for more in ([], ["reduce_dtype=bfloat16"]))
    assert exact[0][1] == [torch.float32] * 2 and low[0][1] == [torch.bfloat16] * 2
    for (gradients, _), (rounded, _) in zip(exact, low, strict=True):
        for expected, found in zip(gradients, rounded, strict=True):
            assert found.dtype == torch.float32
            assert 1e-4 < float((found - expected).norm() / expected.norm()) < 2**-8
    assert all(torch.equal(a, b) for found, _ in low for a, b in zip(found, low[0][0], strict=True))


def test_alone_nothing_is_rounded() -> None:
    runs = [wire(connect("cpu", 60), config_for(*more))[0] for more in ([], ["reduce_dtype=bfloat16"])]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_other_types_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"reduce_dtype=float16: .*bfloat16"):
        plan_train([*SETTINGS, "reduce_dtype=float16"], 1)

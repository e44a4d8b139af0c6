"""Rollouts that are cut short: what is in them, what is learned from them, and who is cut.

The clock decides who is cut, so most tests cut where they want to. One lets a slow learner be cut by fast ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dist_trainer import optimizers, trainer
from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.cli import compose_train
from dist_trainer.collector import Collector
from dist_trainer.config import PreemptionConfig, TrainConfig
from dist_trainer.distributed import World, connect
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner
from dist_trainer.minibatch import my_minibatch_rows
from dist_trainer.ppo import LOSS_SUMS, estimate_advantages
from dist_trainer.preemption import Preemption
from dist_trainer.rollout import Rollout
from dist_trainer.update import Update, learn
from dist_trainer.validation import validate_train
from tests.learners import Learners, learners_of_sizes
from tests.test_ppo import PlainPolicy, plain_loss

HORIZON, ENVS, MINIBATCHES = 12, 24, 2
SETTINGS = [
    *("env=cartpole", "env.params.max_steps=7", "policy.hidden_size=8", "policy.encoder_layers=2"),
    *(
        "device=cpu",
        "torch_threads=1",
        "env_threads=1",
        f"horizon={HORIZON}",
        f"total_envs={ENVS}",
        f"ppo.minibatches={MINIBATCHES}",
    ),
]
EXACT = ["dtype=float64", "optimizer.storage_dtype=float64"]


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([2, 3]) as by_size:
        yield by_size


def config_for(*overrides: str) -> TrainConfig:
    config = compose_train([*SETTINGS, *overrides])[0]
    validate_train(config, 1)
    return config


def learner_for(*overrides: str) -> Learner:
    return make_learner(config_for(*overrides), connect("cpu", 60))


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_cut_rollout_and_the_next_are_the_long_one(cut: int) -> None:
    """Nothing is lost or collected twice, and the value after the last step is that of what comes next."""
    whole = learner_for().collector.collect()
    learner = learner_for()
    first = learner.collector.collect(lambda steps: steps == cut)
    assert first.horizon == cut and whole.horizon == HORIZON
    torch.testing.assert_close(first.last_values, whole.values[cut], rtol=0, atol=0)
    at_most = first.done[: cut - 1].sum(0).numpy()
    assert (first.done_counts >= at_most).all() and (first.done_counts <= first.done.sum(0).numpy()).all()
    kept = {name: getattr(first, name).clone() for name in ("observations", "actions", "rewards", "done", "log_probs")}
    kept |= {name: getattr(first, name).clone() for name in ("values", "terminated", "final_values")}
    second = learner.collector.collect(lambda steps: steps == HORIZON - cut)
    for name, tensor in kept.items():
        both = torch.cat([tensor, getattr(second, name)])
        assert torch.equal(both, getattr(whole, name)), name
    assert whole.done.any() and whole.final_values.any()


def parts_of_a_ragged_batch(world: World, config: TrainConfig, steps: list[int]) -> dict[str, Any]:
    """What this learner's update has made of a rollout of `steps[rank]` steps, and what a plain implementation makes of
    this learner's samples: the gradient of the sum of their losses, for every minibatch."""
    learner = make_learner(config, world)
    rollout = learner.collector.collect(lambda count: count == steps[world.rank])
    assert rollout.horizon == steps[world.rank]
    scaled, targets = estimate_advantages(config.ppo, rollout, rollout.rewards, None)
    inputs = learner.observations(rollout.observations)
    plain: list[Tensor] = []
    for rows in my_minibatch_rows(learner, 0):
        policy = PlainPolicy(learner)
        loss, sums = plain_loss(policy, config.ppo, rollout, inputs, scaled, targets, rows)
        (loss * sums["samples"]).backward()
        gradients = [x.grad for x in policy.weights.values()]
        plain.append(torch.cat([x.flatten() for x in gradients if x is not None]))
    seen: list[Tensor] = []
    with mock.patch.object(optimizers, "step", lambda optimizer, gradient, **_: seen.append(gradient.clone())):
        update = learn(learner, rollout)
    sums_of_losses = dict(zip(LOSS_SUMS, update.sums.tolist(), strict=False))
    return {"plain": plain, "seen": seen, "env_steps": update.env_steps, "samples": sums_of_losses["samples"]}


@pytest.mark.parametrize("steps", [[12, 5], [3, 12], [12, 12, 1], [4, 9, 7]])
def test_ragged_rollouts_are_one_batch_of_samples(worlds: dict[int, Learners], steps: list[int]) -> None:
    """The gradient is the mean over all samples, as if one learner had them: longer rollouts weigh more."""
    off = ["normalize.returns=false", "ppo.normalize_advantages=false", "ppo.max_grad_norm=1e9"]
    config = config_for(*EXACT, *off, "preemption.fraction=0.5", "optimizer=adamw")
    results = worlds[len(steps)].run(parts_of_a_ragged_batch, config, steps)
    envs = ENVS // len(steps)
    total = sum(steps) * envs
    assert [result["env_steps"] for result in results] == [total] * len(steps)
    assert [result["samples"] for result in results] == [count * envs for count in steps]
    for index in range(MINIBATCHES):
        mean = sum(result["plain"][index] for result in results) / (total / MINIBATCHES)
        for result in results:
            torch.testing.assert_close(result["seen"][index], mean, rtol=1e-9, atol=1e-12)


def products_of_a_ragged_batch(world: World, config: TrainConfig, steps: list[int]) -> Tensor:
    learner = make_learner(config, world)
    rollout = learner.collector.collect(lambda count: count == steps[world.rank])
    products: list[Tensor] = []
    newton = learner.optimizer.newton
    assert newton

    def hand_over(_: Any, __: Tensor, product: Tensor) -> None:
        products.append(product.clone())

    with (
        mock.patch.object(newton, "hand_over", hand_over),
        mock.patch.object(optimizers, "step"),
    ):
        learn(learner, rollout)
    return torch.stack(products)


@pytest.mark.parametrize("sub_batch", [1, 4])
def test_newton_products_count_samples_too(worlds: dict[int, Learners], sub_batch: int) -> None:
    """If all are cut alike, nothing differs from one learner that is cut; a count of whole horizons would."""
    settings = [
        "optimizer=newton_psgd",
        "optimizer.newton_every=1",
        f"optimizer.newton_sub_batch={sub_batch}",
        "dtype=float64",
    ]
    config = config_for(
        *settings, "optimizer.storage_dtype=float64", "optimizer.q_dtype=float64", "preemption.fraction=0.5"
    )
    alone = config_for(*settings, "optimizer.storage_dtype=float64", "optimizer.q_dtype=float64", "horizon=5")
    expected = products_of_a_ragged_batch(connect("cpu", 60), alone, [5])
    assert expected.norm() > 0
    for products in worlds[3].run(products_of_a_ragged_batch, config, [5, 5, 5]):
        torch.testing.assert_close(products, expected, rtol=1e-4, atol=1e-6 * float(expected.norm()))


def train_with_a_slow_learner(
    world: World, config: TrainConfig, run_dir: Path, slow: int, resume: bool
) -> dict[str, Any]:
    """Lengths of this learner's rollouts; its weights, env_steps and what was counted, in the end."""
    lengths: list[int] = []
    kept: list[Learner] = []
    updates: list[int] = []
    collect = Collector.collect

    def slow_collect(self: Collector, *arguments: Any) -> Rollout:
        (group,) = self.groups
        recv = group.pool.recv

        def slow_recv() -> None:
            time.sleep(0.1 if world.rank == slow else 0)  # this is the slow learner; nobody waits for it
            recv()

        with mock.patch.object(group.pool, "recv", slow_recv):
            rollout = collect(self, *arguments)
        lengths.append(rollout.horizon)
        return rollout

    def watched_learn(learner: Learner, rollout: Rollout) -> Update:
        kept[:] = [learner]
        update = learn(learner, rollout)
        updates.append(update.env_steps)
        return update

    resume_from = list_checkpoints(run_dir)[-1] if resume else None
    with mock.patch.object(Collector, "collect", slow_collect), mock.patch.object(trainer, "learn", watched_learn):
        trainer.train(config, world, run_dir, resume_from)
    (learner,) = kept
    weights = torch.cat([x.detach().flatten() for x in learner.policy.parameters()])
    counts = {"env_steps": learner.env_steps, "iteration": learner.iteration, "of_updates": updates}
    return {"lengths": lengths, "weights": weights, "finished": learner.finished, **counts}


def test_a_slow_learner_is_cut_short_by_the_others(worlds: dict[int, Learners], tmp_path: Path) -> None:
    """It keeps its minimum; steps that were collected are counted, and the run goes on until it has all of them."""
    wanted = 6 * HORIZON * ENVS
    settings = ["normalize.observations=false", "preemption.fraction=0.6", "preemption.min_horizon=0.5"]
    config = config_for(*settings, f"total_env_steps={wanted}", "check_every=1")
    results = worlds[3].run(train_with_a_slow_learner, config, tmp_path, 1, False)
    fast, slow = [results[0], results[2]], results[1]
    assert all(result["lengths"] == [HORIZON] * result["iteration"] for result in fast)
    assert all(HORIZON // 2 <= length <= HORIZON for length in slow["lengths"])
    assert sum(slow["lengths"]) < 0.8 * HORIZON * slow["iteration"]
    counted = sum(sum(result["lengths"]) for result in results) * ENVS // 3
    for result in results:
        assert result["env_steps"] == sum(result["of_updates"]) == counted >= wanted
        assert result["finished"] and result["iteration"] > 6
        assert torch.equal(result["weights"], results[0]["weights"])
    assert load_file(list_checkpoints(tmp_path)[-1])["missed_env_steps"] > 0

    longer = config_for(*settings, f"total_env_steps={counted + HORIZON * ENVS}", "check_every=1")
    more = worlds[3].run(train_with_a_slow_learner, longer, tmp_path, 1, True)
    assert [result["env_steps"] - counted for result in more] == [sum(more[0]["of_updates"])] * 3
    assert all(result["finished"] for result in more)


class NoCounter:
    """Stands for the others: so many have their rollout."""

    def __init__(self, through: int):
        self.through, self.reads = through, 0

    def read(self, _: str) -> int:
        self.reads += 1
        return self.through

    def add(self, _: str) -> None: ...
    def forget(self, _: str) -> None: ...


@pytest.mark.parametrize(
    ("learners", "fraction", "min_horizon", "through", "length"),
    [
        (5, 0.6, 0.25, 2, HORIZON),
        (5, 0.6, 0.25, 3, 3),  # a quarter of 12
        (5, 0.6, 0.3, 3, 4),  # rounded up
        (5, 0.6, 0.0, 4, 1),  # at least a step
        (5, 0.6, 1.0, 4, HORIZON),
        (2, 0.6, 0.25, 1, HORIZON),  # rounded up: both
        (2, 0.5, 0.25, 1, 3),
        (5, 0.0, 0.5, 1, 6),  # at least one
        (5, 0.0, 0.5, 0, HORIZON),
    ],
)
def test_when_a_rollout_ends(learners: int, fraction: float, min_horizon: float, through: int, length: int) -> None:
    world = World(0, learners, 0, learners, torch.device("cpu"))
    counter: Any = NoCounter(through)
    with mock.patch.object(World, "counter", return_value=counter):
        preemption = Preemption(PreemptionConfig(fraction, min_horizon), world, HORIZON)
    assert preemption.collect(learner_for().collector, 0).horizon == length


def test_off_by_default_and_with_one_learner() -> None:
    with mock.patch.object(World, "counter", side_effect=AssertionError("asked for")):
        for learners, fraction in ((4, None), (1, 0.5)):
            world = World(0, learners, 0, learners, torch.device("cpu"))
            preemption = Preemption(PreemptionConfig(fraction), world, HORIZON)
            assert preemption.collect(learner_for().collector, 0).horizon == HORIZON


@pytest.mark.parametrize("setting", ["preemption.fraction=1.5", "preemption.min_horizon=-0.1"])
def test_fractions_are_checked(setting: str) -> None:
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        config_for("preemption.fraction=0.5", setting)
    with pytest.raises(ConfigError, match=r"preemption.min_horizon=0.5: acts only with preemption.fraction"):
        config_for("preemption.min_horizon=0.5")


@pytest.mark.parametrize(("learners", "fraction", "enough"), [(25, 0.28, 7), (100, 0.55, 55), (128, 0.6, 77)])
def test_how_many_are_enough(learners: int, fraction: float, enough: int) -> None:
    """Rounded up, and not by what binary fractions add."""
    with mock.patch.object(World, "counter"):
        world = World(0, learners, 0, learners, torch.device("cpu"))
        assert Preemption(PreemptionConfig(fraction), world, HORIZON).enough == enough


def test_a_fraction_that_cuts_nobody_is_told() -> None:
    world = World(0, 2, 0, 2, torch.device("cpu"))
    with mock.patch.object(World, "counter"), pytest.warns(UserWarning, match=r"0.6 of 2 learners are all"):
        Preemption(PreemptionConfig(0.6), world, HORIZON)

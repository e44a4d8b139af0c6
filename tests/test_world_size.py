"""The number of learners changes nothing: same environments, same noise, same statistics, same weights.

Every test runs real processes that are joined by gloo. Their global random generators are in different states, so that
anything that draws from one of them shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import config_dir
from dist_trainer.distributed import World
from dist_trainer.identical import LearnersDiffer, check_identical
from dist_trainer.learner import Learner, make_learner, replicated_tensors, warm_up_normalizer
from dist_trainer.normalize import ReturnNormalizer, RunningMoments
from dist_trainer.ppo import normalize_globally
from dist_trainer.report import add_up
from dist_trainer.update import learn
from tests.learners import Learners, LearnersFailed, learners_of_sizes

SMALL = [
    "device=cpu",
    "torch_threads=1",
    "env_threads=1",
    "total_envs=64",
    "horizon=16",
    "ppo.minibatches=4",
    "policy.hidden_size=32",
    "normalize.warmup_steps=8",
]
CARTPOLE = ["env=cartpole", "env.params.max_steps=20"]  # episodes that are truncated and episodes that fall
EXACT = ["dtype=float64", "optimizer.storage_dtype=float64"]
OPTIMIZERS = sorted(path.stem for path in (config_dir() / "optimizer").glob("*.yaml"))
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers by their size in bytes


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([1, 2, 3, 4]) as by_size:
        yield by_size


def make_config(*settings: str, iterations: int = 20) -> TrainConfig:
    return compose_train([*SMALL, f"total_env_steps={iterations * 64 * 16}", *settings])[0]


def start(config: TrainConfig, world: World) -> Learner:
    """A learner as the trainer has it before its first iteration."""
    learner = make_learner(config, world)
    warm_up_normalizer(learner)
    return learner


# --- what the learners do; these run in processes of their own


def draw(_: World) -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def fail_on_last(world: World) -> Tensor:
    if world.rank == world.size - 1:
        raise ValueError("rank that fails")
    return world.sum_(torch.ones(()))  # waits for the one that failed


def first_rollout(world: World, config: TrainConfig) -> dict[str, NDArray[Any]]:
    """The first rollout and its noise, time first and rows second."""
    learner = start(config, world)
    noise: list[NDArray[Any]] = []
    (pool,) = learner.pool.pools
    send = pool.send

    def recording_send() -> None:
        noise.append(pool.noise.copy())
        send()

    with mock.patch.object(pool, "send", recording_send):
        rollout = learner.collector.collect()
    names = ("observations", "actions", "rewards", "terminated", "done")
    return {name: getattr(rollout, name).numpy().copy() for name in names} | {"noise": np.stack(noise)}


def train(world: World, config: TrainConfig) -> tuple[dict[str, Tensor], list[list[float]]]:
    """The replicated tensors after the whole run, and the sums of every iteration."""
    learner = start(config, world)
    sums = []
    while learner.iteration < config.iterations:
        update = learn(learner, learner.collector.collect())
        learner.iteration += 1
        totals = add_up(learner, update, [0.0], 0.0)
        sums.append([*totals.losses, *totals.returns, *totals.episodes, totals.restarts])
        assert not update.undone
    return {name: tensor.clone() for name, tensor in replicated_tensors(learner).items()}, sums


def digests_of_steps(world: World, config: TrainConfig, steps: int, keyed: bool) -> list[dict[str, str]]:
    """A digest of every replicated tensor after every optimizer step."""
    learner = start(config, world)
    digests: list[dict[str, str]] = []
    step = optimizers.step

    def watched_step(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        digests.append({name: digest(tensor) for name, tensor in replicated_tensors(learner).items()})

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(optimizers, "step", watched_step))
        if not keyed:
            stack.enter_context(mock.patch.object(optimizers, "keyed_generators", not_keyed))
            stack.enter_context(mock.patch.object(optimizers, "seed_generators"))
        while len(digests) < steps:
            learn(learner, learner.collector.collect())
            learner.iteration += 1
    return digests


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


@contextlib.contextmanager
def not_keyed(_seed: int, _device: torch.device) -> Iterator[None]:
    """In place of keyed_generators: leaves the learner's own global generators in charge."""
    yield


def reduce(world: World, parts: list[Tensor], rewards: list[Tensor], done: list[Tensor]) -> dict[str, Tensor]:
    """This learner's share through everything that reduces over learners."""
    mine, device = world.rank, world.device
    normalized = normalize_globally(parts[mine][:, 0], world)
    observations = RunningMoments((3,), device)
    for batch in (parts[mine], parts[mine] * 2 + 1):
        observations.update(batch, world)
    returns = ReturnNormalizer(rewards[mine].shape[1], gamma=0.9, enabled=True, clip=10.0, device=device)
    for half in range(2):  # returns go on from one rollout to the next
        steps = slice(8 * half, 8 * half + 8)
        returns.update(rewards[mine][steps], done[mine][steps], world)
    moments = {"observations": observations, "returns": returns.moments}
    named = {f"{name}.{key}": x for name, module in moments.items() for key, x in module.state_dict().items()}
    return named | {"normalized": normalized, "scaled rewards": returns(rewards[mine]).T}


def flip_a_bit(world: World, config: TrainConfig, name: str, bit: int) -> tuple[str, str]:
    """What check_identical says of equal learners, and of learners of which the second has one bit flipped."""
    learner = start(config, world)
    learn(learner, learner.collector.collect())
    tensors = replicated_tensors(learner)
    before = complaint(world, tensors)
    if world.rank == 1:
        tensor = tensors[name].detach()
        tensor.view(BITS[tensor.element_size()]).view(-1)[-1] ^= 1 << bit
    return before, complaint(world, replicated_tensors(learner))


def complaint(world: World, tensors: dict[str, Tensor]) -> str:
    try:
        check_identical(world, tensors)
    except LearnersDiffer as error:
        return str(error)
    return ""


def first_names(_: World, config: TrainConfig) -> list[str]:
    learner = make_learner(config, World(0, 1, 0, 1, torch.device("cpu")))
    learn(learner, learner.collector.collect())
    return list(replicated_tensors(learner))


# --- the laws


def test_learners_draw_different_random_numbers(worlds: dict[int, Learners]) -> None:
    """Without this, the other tests of this file could not fail."""
    for numbers in zip(*worlds[4].run(draw), strict=True):
        assert len(set(numbers)) == 4


def test_failure_of_one_learner_is_reported_with_its_traceback() -> None:
    """An error on one learner ends the call, though the others wait for it, and leaves no process behind."""
    learners = Learners(2)
    with pytest.raises(LearnersFailed, match=r"learner 1 of 2: Traceback[\s\S]*ValueError: rank that fails"):
        learners.run(fail_on_last)
    assert not learners.running


@pytest.mark.parametrize(
    "env",
    [
        CARTPOLE,
        ["env=tmaze", "env.params.corridor=3"],
        ["env=probe_multi_discrete"],
        ["env=probe_continuous"],
        ["env=probe_masks"],
    ],
)
def test_first_rollout_does_not_depend_on_world_size(worlds: dict[int, Learners], env: list[str]) -> None:
    """Observations, noise, rewards, dones and actions of all learners, in the order of the ranks, are bit-identical.

    Continuous actions are the policy's own floating-point numbers, and the order of additions in a matrix product
    depends on the number of rows: they, and the rewards that they earn, agree to rounding.
    """
    config = make_config(*env, "policy=lstm")
    by_size = {
        size: {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
        for size in (1, 2, 4)
        for parts in [worlds[size].run(first_rollout, config)]
    }
    alone = by_size[1]
    assert alone["done"].any()
    assert len(np.unique(alone["noise"])) > 0.99 * alone["noise"].size
    rounded = {"actions", "rewards"} if "env=probe_continuous" in env else set()
    for size in (2, 4):
        for name, expected in alone.items():
            if name in rounded:
                np.testing.assert_allclose(by_size[size][name], expected, rtol=0, atol=1e-5, err_msg=f"{name}, {size}")
            else:
                np.testing.assert_array_equal(by_size[size][name], expected, err_msg=f"{name} of {size} learners")


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_in_float64_do_not_depend_on_world_size(worlds: dict[int, Learners], optimizer: str) -> None:
    """After 20 iterations the weights, normalizers and optimizer states of 2 and 4 learners are those of one.

    Needs float64 in the optimizer's states as well (optimizer.storage_dtype): rounding them to float32 would turn
    differences of the last bit of a float64 gradient into now and then one of a float32 state.
    """
    config = make_config(*CARTPOLE, *EXACT, f"optimizer={optimizer}", "policy=lstm", "ppo.update_epochs=2")
    expected, expected_sums = worlds[1].run(train, config)[0]
    first = worlds[1].run(train, make_config(*CARTPOLE, *EXACT, f"optimizer={optimizer}", iterations=1))[0][0]
    for size in (2, 4):
        for tensors, sums in worlds[size].run(train, config):
            for name, tensor in tensors.items():
                assert relative_difference(tensor.double(), expected[name].double()) < 1e-9, f"{name}, {size} learners"
            np.testing.assert_allclose(sums, expected_sums, rtol=1e-9, atol=1e-9)
    # Weights that do not move would be equal too.
    moved = [name for name in expected if name.startswith("policy.")]
    assert all(relative_difference(first[name], expected[name]) > 1e-3 for name in moved)


def test_weights_in_float32_with_psgd_agree_to_rounding(worlds: dict[int, Learners]) -> None:
    config = make_config(*CARTPOLE, "optimizer=psgd_kron", "policy=lstm", iterations=3)
    expected, _ = worlds[1].run(train, config)[0]
    for size in (2, 4):
        tensors, _ = worlds[size].run(train, config)[0]
        for name in (name for name in expected if name.startswith("policy.")):
            assert relative_difference(tensors[name], expected[name]) < 1e-4, f"{name} of {size} learners"


@pytest.mark.parametrize(("optimizer", "size"), [*((name, 2) for name in OPTIMIZERS), ("psgd_kron", 4)])
def test_learners_are_identical_after_every_step(worlds: dict[int, Learners], optimizer: str, size: int) -> None:
    """Every bit of weights, optimizer state and normalizers, for every file in configs/optimizer."""
    config = make_config(*CARTPOLE, f"optimizer={optimizer}", "policy=lstm")
    first, *others = worlds[size].run(digests_of_steps, config, 12, True)
    assert len(first) == 12
    for other in others:
        for step, (ours, theirs) in enumerate(zip(other, first, strict=True)):
            assert [name for name in theirs if ours[name] != theirs[name]] == [], f"after step {step}"
            assert ours.keys() == theirs.keys()
    states = [name for name in first[-1] if name.startswith("optimizer/")]
    weights = [name for name in first[-1] if name.startswith("policy.")]
    assert len(states) >= len(weights)
    assert all(first[0][name] != first[-1][name] for name in weights)


def test_learners_drift_apart_without_keyed_generators(worlds: dict[int, Learners]) -> None:
    """The test above can fail: optimizers do draw random numbers, and keyed_generators is what makes them equal."""
    config = make_config(*CARTPOLE, "optimizer=psgd_kron", "policy=lstm")
    ours, theirs = worlds[2].run(digests_of_steps, config, 4, False)
    assert ours[-1] != theirs[-1]


@pytest.mark.parametrize("size", [2, 4])
def test_every_reduction_is_a_sum_and_a_count(worlds: dict[int, Learners], size: int) -> None:
    """Advantage normalization and running moments over learners that hold different amounts of different data.

    A mean of the learners' means, or of their variances, would differ.
    """
    generator = torch.Generator().manual_seed(0)
    rows = 40
    shares = {2: [3, 37], 4: [1, 7, 12, 20]}[size]
    everything = 5 + torch.randn(rows, 3, generator=generator, dtype=torch.float64) * torch.arange(1, rows + 1)[:, None]
    rewards = torch.randn(16, rows, generator=generator, dtype=torch.float64) + torch.arange(rows) / 4
    done = torch.rand(16, rows, generator=generator) < 0.1
    (alone,) = worlds[1].run(reduce, [everything], [rewards], [done])
    arguments = (list(everything.split(shares)), list(rewards.split(shares, 1)), list(done.split(shares, 1)))
    results = worlds[size].run(reduce, *arguments)
    for name, expected in alone.items():
        if name in ("normalized", "scaled rewards"):
            torch.testing.assert_close(torch.cat([part[name] for part in results]), expected, rtol=1e-12, atol=1e-12)
        else:
            for part in results:
                torch.testing.assert_close(part[name], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone["observations.count"].item(), 2.0 * rows)
    both = torch.cat([everything, everything * 2 + 1])
    torch.testing.assert_close(alone["observations.mean"], both.mean(0))
    torch.testing.assert_close(alone["observations.m2"] / (2 * rows), both.var(0, unbiased=False))
    torch.testing.assert_close(alone["normalized"].std(unbiased=False).item(), 1.0)


@pytest.mark.parametrize("env", [CARTPOLE, ["env=probe_multi_discrete", "env.params.episode_steps=5"]])
def test_episode_statistics_do_not_depend_on_world_size(worlds: dict[int, Learners], env: list[str]) -> None:
    """Episodes, sums of returns, lengths and metrics of all learners together; whole numbers, hence exact."""
    config = make_config(*env, *EXACT, "optimizer=adamw", "policy=mlp", iterations=3)
    losses = 6 + 5  # LOSS_SUMS and return_sums come first
    expected = [sums[losses:] for sums in worlds[1].run(train, config)[0][1]]
    assert all(sums[0] > 0 for sums in expected[1:])
    for size in (2, 4):
        for _, sums in worlds[size].run(train, config):
            assert [entry[losses:] for entry in sums] == expected


@pytest.mark.parametrize(("kind", "bit"), [("policy.", 0), ("policy.", 31), ("optimizer/", 0), ("returns.", 63)])
def test_one_flipped_bit_is_found(worlds: dict[int, Learners], kind: str, bit: int) -> None:
    """check_identical passes equal learners; one bit on one of three is told, to all of them, by tensor and rank."""
    config = make_config(*CARTPOLE, "optimizer=muon", "policy=lstm")
    all_names = worlds[1].run(first_names, config)[0]
    # No counter and no rate: units that are stepped together have one between them.
    names = [name for name in all_names if name.startswith(kind) and not name.endswith(("/step", "/prev_lr"))]
    name = names[len(names) // 2]
    for before, after in worlds[3].run(flip_a_bit, config, name, bit):
        assert before == ""
        assert f"different values of {name} (1 of " in after
        assert "ranks [1]" in after


def test_optimizers_are_found() -> None:
    """The glob above sees the files that there are."""
    assert {"adamw", "muon", "psgd_kron"} <= set(OPTIMIZERS)
    assert all(Path(config_dir() / "optimizer" / f"{name}.yaml").exists() for name in OPTIMIZERS)

"""overlap=true: every rollout is acted one update behind, nothing else differs, and no run depends on the clock."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.checkpoint_search import remove_checkpoint
from dist_trainer.cli import compose_train, load_train_config
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, replicated_tensors, warm_up_normalizer
from dist_trainer.overlap import Overlap, copy_, copy_of
from dist_trainer.plan import plan_train
from dist_trainer.rollout import Rollout
from dist_trainer.trainer import train
from dist_trainer.update import learn
from tests.learners import learners_of_sizes

ITERATIONS = 6
STEPS = 32 * 16  # of an iteration
SETTINGS = [
    *("env=cartpole", "env.params.max_steps=20", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=32"),
    *("horizon=16", "ppo.minibatches=4", "policy.hidden_size=16", "normalize.warmup_steps=8", "checkpoint_every=1"),
    *("dtype=float64", "optimizer.storage_dtype=float64", "optimizer.lr=0.02", "keep_checkpoints=100"),
    f"total_env_steps={ITERATIONS * STEPS}",
]
ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def config_for(*settings: str) -> TrainConfig:
    return compose_train([*SETTINGS, *settings])[0]


def start(config: TrainConfig, world: World = ALONE) -> Learner:
    learner = make_learner(config, world)
    warm_up_normalizer(learner)
    return learner


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in replicated_tensors(learner).items()}


def overlapped(config: TrainConfig, world: World = ALONE, seconds: float = 0.0) -> list[dict[str, Tensor]]:
    """Weights after every iteration; collecting, or learning if negative, takes so much longer."""
    learner = start(config, world)
    overlap = Overlap(learner)
    collect = learner.collector.collect

    def slowly() -> Rollout:
        time.sleep(max(0.0, seconds))
        return collect()

    found = []
    with mock.patch.object(learner.collector, "collect", slowly):
        while not learner.finished:
            with overlap.next(learner.iteration) as rollout:
                time.sleep(max(0.0, -seconds))
                learn(learner, rollout)
            learner.iteration += 1
            found.append(weights(learner))
    overlap.close()
    return found


def one_behind(config: TrainConfig) -> list[dict[str, Tensor]]:
    """The same without threads: rollout k + 1 by the weights and statistics from before update k."""
    learner = start(config)
    collector = learner.collector
    acting = [(collector.policy, learner.policy), (collector.normalizer, learner.observations)]
    assert all(ours is not theirs for ours, theirs in acting)
    for ours, theirs in acting:
        ours.load_state_dict(theirs.state_dict())
    rollout = copy_of(collector.collect())
    found = []
    while not learner.finished:
        before = [copy.deepcopy(module.state_dict()) for _, module in acting]
        learn(learner, rollout)
        learner.iteration += 1
        found.append(weights(learner))
        for (module, _), state in zip(acting, before, strict=True):
            module.load_state_dict(state)
        rollout = copy_of(collector.collect())
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("advantage", ["gae", "vtrace"])
def test_every_rollout_is_one_update_behind(advantage: str) -> None:
    """Whichever of the two is through first. And it is not the run that waits for its own weights."""
    config = config_for("overlap=true", f"ppo.advantage={advantage}")
    expected = one_behind(config)
    for seconds in (0.0, 0.05, -0.05):
        assert all(same(*pair) for pair in zip(overlapped(config, seconds=seconds), expected, strict=True))
    learner = start(config_for(f"ppo.advantage={advantage}"))
    for after in expected[:2]:
        learn(learner, learner.collector.collect())
        learner.iteration += 1
        assert same(weights(learner), after) == (learner.iteration == 1)


def train_here(world: World, *settings: str) -> None:
    """The real trainer."""
    plan = plan_train(settings, world.size)
    assert plan.config.run_dir
    train(plan.config, world, Path(plan.config.run_dir), plan.resume_from)


def final(run_dir: Path) -> dict[str, Any]:
    return load_file(checkpoint_path(run_dir, ITERATIONS))


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds", "event_sizes"}:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        for pair in zip(a, b, strict=True):
            assert_equal(*pair)
    else:
        assert a == b


@pytest.mark.parametrize("at", [0, 1, 3])
def test_resume_is_exact(tmp_path: Path, at: int) -> None:
    """From any checkpoint, the first one too: weights, optimizer, environments and statistics of episodes."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train_here(ALONE, *SETTINGS, "overlap=true", f"run_dir={whole}")
    shutil.copytree(whole, resumed)
    for iteration in range(at + 1, ITERATIONS + 1):
        remove_checkpoint(checkpoint_path(resumed, iteration))
    train_here(ALONE, f"resume={resumed}")
    assert_equal(final(resumed), final(whole))


def test_any_number_of_learners_has_the_same_run() -> None:
    config = config_for("overlap=true")
    alone = overlapped(config)[-1]
    with learners_of_sizes([2]) as worlds:
        for found in worlds[2].run(overlapped_elsewhere, config):
            for name, tensor in alone.items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9)


def overlapped_elsewhere(world: World, config: TrainConfig) -> dict[str, Tensor]:
    return overlapped(config, world)[-1]


def test_an_error_in_learning_or_collecting_is_not_lost() -> None:
    """And leaves the pool idle, so that it can be closed."""
    learner = start(config_for("overlap=true"))
    overlap = Overlap(learner)
    with pytest.raises(ArithmeticError, match="learning"), overlap.next(0):
        raise ArithmeticError("learning")
    learner.pool.snapshot()  # raises if a step were in flight
    begun = Overlap(learner)
    with begun.next(0):
        assert learner.iteration == 0
    failing = mock.patch.object(learner.collector, "collect", side_effect=OSError("collecting"))
    with failing, pytest.raises(OSError, match="collecting"), begun.next(1):
        assert learner.iteration == 0
    overlap.close()
    begun.close()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"preemption\.fraction=0\.5: .*overlap"):
        plan_train([*SETTINGS, "overlap=true", "preemption.fraction=0.5"], 2)
    run_dir = tmp_path / "run"
    train_here(ALONE, *SETTINGS, f"run_dir={run_dir}")
    assert load_train_config(run_dir).overlap is False
    with pytest.raises(ConfigError, match=r"^overlap=True"):
        plan_train([f"resume={run_dir}", "overlap=true"], 1)


def test_copies_go_on_where_they_lie() -> None:
    learner = start(config_for("overlap=true"))
    acting = learner.collector.policy
    places = [parameter.data_ptr() for parameter in acting.parameters()]
    with torch.no_grad():
        for parameter in learner.policy.parameters():
            parameter.add_(1)
    copy_(acting, learner.policy)
    assert places == [parameter.data_ptr() for parameter in acting.parameters()]
    assert all(torch.equal(*pair) for pair in zip(acting.parameters(), learner.policy.parameters(), strict=True))

"""The player does in an evaluation what the collector does in training."""

import numpy as np
import pytest
import torch

from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner, make_pool
from dist_trainer.player import Player


def learner_for(*overrides: str) -> Learner:
    sizes = ["total_envs=6", "horizon=40", "ppo.minibatches=2", "policy.hidden_size=16"]
    machine = ["device=cpu", "torch_threads=1", "env_threads=1"]
    return make_learner(compose_train([*sizes, *machine, *overrides])[0], connect("cpu", 60))


@pytest.mark.parametrize(
    "overrides",
    [
        ("env=tmaze", "policy=lstm", "env.params.corridor=3"),
        ("env=cartpole", "policy=mlp"),
        ("env=pendulum", "policy=lstm", "env.params.max_steps=15"),
        ("env=probe_multi_discrete", "policy=lstm"),
        ("env=probe_masks", "policy=lstm"),  # rows that rest, and have forgotten all when they are back
        ("env=probe_image", "policy=lstm"),
    ],
)
def test_it_acts_as_the_collector(overrides: tuple[str, ...]) -> None:
    learner = learner_for(*overrides)
    learner.observations.update(torch.randn(50, *learner.pool.spec.observation_shape) * 3, learner.world)
    rollout = learner.collector.collect()
    pool = make_pool(learner.config, learner.world, learner.config.seed).pools[0]
    pool.reset()
    player = Player(learner.policy, learner.observations, pool)
    for t in range(rollout.horizon):
        assert (rollout.observations[t].numpy() == pool.observations).all()
        choice = player.step()
        acts = np.ones(pool.rows, bool) if rollout.acts is None else rollout.acts[t].numpy()
        assert (choice.actions == rollout.actions[t])[acts].all()
        torch.testing.assert_close(choice.values[acts], rollout.values[t][acts])
        log_probs, _ = learner.policy.action_head.log_prob_and_entropy(choice.parameters, choice.actions)
        torch.testing.assert_close(log_probs[acts], rollout.log_probs[t][acts])
    assert rollout.done.any()  # an episode's end was among it


def test_greedy_takes_the_mode_and_forgetting_begins_again() -> None:
    learner = learner_for("env=repeat_copy", "policy=lstm")
    pool = learner.pool.pools[0]
    player = Player(learner.policy, learner.observations, pool, greedy=True)
    first = player.choose()
    assert (first.actions[:, 0] == first.parameters.argmax(1)).all()
    again = player.choose()  # of the same observations, with a memory of having seen them
    assert player.state.abs().sum() > 0 and not torch.equal(again.values, first.values)
    player.forget()
    assert torch.equal(player.choose().values, first.values)

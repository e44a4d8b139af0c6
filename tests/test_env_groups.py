"""Environments in groups that take turns: the same rollouts, statistics and snapshots for any number of groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dist_trainer.checkpoint import load_checkpoint, shard_of
from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.cli import compose_train
from dist_trainer.config import EnvConfig
from dist_trainer.distributed import connect
from dist_trainer.env_groups import EnvGroups
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.pools import Pool
from dist_trainer.rollout import Rollout
from dist_trainer.update import learn
from dist_trainer.validation import validate_train
from tests.checkpoint_files import saved, write_checkpoint

SETTINGS = [
    *("total_envs=16", "horizon=20", "ppo.minibatches=2", "policy.hidden_size=16", "normalize.warmup_steps=5"),
    *("torch_threads=1", "env_threads=1", "device=cpu", "dtype=float64", "optimizer.storage_dtype=float64"),
]
ENVS = {
    "cartpole": "env.params.max_steps=12",  # episodes that are truncated and episodes that fall
    "probe_multi_discrete": "env.params.episode_steps=7",  # three agents
    "probe_continuous": "env.params.episode_steps=7",
    "probe_image": "env.params.episode_steps=7",
}
PER_STEP = ("observations", "actions", "log_probs", "values", "rewards", "terminated", "done", "final_values")


def learner_for(env: str, groups: int | None, *overrides: str) -> Learner:
    more = [f"env={env}", ENVS[env], f"env_groups={'null' if groups is None else groups}", *overrides]
    learner = make_learner(compose_train([*SETTINGS, *more])[0], connect("cpu", 60))
    warm_up_normalizer(learner)
    return learner


def assert_same_rollout(one: Rollout, other: Rollout) -> None:
    """Products of matrices of other sizes may be rounded otherwise."""
    for name in (*PER_STEP, "last_values", "initial_state"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12, msg=name)
    assert one.done_counts.tolist() == other.done_counts.tolist()


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("env", ENVS)
def test_rollouts_and_updates_are_the_same_for_any_number_of_groups(env: str, groups: int) -> None:
    whole, cut = learner_for(env, 1), learner_for(env, groups)
    ended = 0
    for _ in range(3):
        rollout = whole.collector.collect()
        assert_same_rollout(cut.collector.collect(), rollout)
        ended += int(rollout.done.sum())
        learn(whole, whole.collector.collect())
        learn(cut, cut.collector.collect())
        assert np.array_equal(whole.pool.snapshot(), cut.pool.snapshot())
        assert whole.pool.take_statistics().tolist() == cut.pool.take_statistics().tolist()
        torch.testing.assert_close(whole.collector.state, cut.collector.state, rtol=1e-9, atol=1e-9)
    assert ended


def test_by_default_a_cpu_has_one_group() -> None:
    assert len(learner_for("cartpole", None).pool.pools) == 1


def test_groups_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy acts for one group while the other is stepping."""
    learner = learner_for("cartpole", 2, "horizon=3")
    calls: list[str] = []

    def noting(pool: Pool, method: str, name: str) -> None:
        plain: Callable[[], None] = getattr(pool, method)

        def noted() -> None:
            calls.append(name)
            plain()

        monkeypatch.setattr(pool, method, noted)

    for index, pool in enumerate(learner.pool.pools):
        noting(pool, "send", f"send {index}")
        noting(pool, "recv", f"recv {index}")
    learner.collector.collect()
    turn = ["recv 0", "send 0", "recv 1", "send 1"]
    assert calls == ["send 0", "send 1", *turn, *turn, "recv 0", "recv 1"]


@pytest.mark.parametrize("cut", [1, 7])
def test_a_cut_rollout_and_the_next_are_the_long_one(cut: int) -> None:
    whole = learner_for("cartpole", 1).collector.collect()
    collector = learner_for("cartpole", 4).collector
    first = collector.collect(lambda steps: steps == cut)
    assert first.horizon == cut
    torch.testing.assert_close(first.last_values, whole.values[cut], rtol=1e-12, atol=1e-12)
    kept = {name: getattr(first, name).clone() for name in PER_STEP}
    second = collector.collect(lambda steps: steps == 20 - cut)
    for name, tensor in kept.items():
        both = torch.cat([tensor, getattr(second, name)])
        torch.testing.assert_close(both, getattr(whole, name), rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_run_is_resumed_at_any_number_of_groups(groups: int, tmp_path: Path) -> None:
    """Exactly at the same one, up to rounding at another."""
    learner = learner_for("cartpole", 2)
    learn(learner, learner.collector.collect())
    learner.iteration += 1
    write_checkpoint(checkpoint_path(tmp_path, 1), saved(shard_of(learner, dict)))
    resumed = learner_for("cartpole", groups)
    load_checkpoint(resumed, checkpoint_path(tmp_path, 1))
    for _ in range(2):
        rollout, again = learner.collector.collect(), resumed.collector.collect()
        assert_same_rollout(again, rollout)
        if groups == 2:
            assert all(torch.equal(getattr(again, name), getattr(rollout, name)) for name in PER_STEP)
            assert torch.equal(resumed.collector.state, learner.collector.state)
        assert np.array_equal(resumed.pool.snapshot(), learner.pool.snapshot())


def test_statistics_are_told_of_each_environment_in_their_order() -> None:
    """Bit for bit: whoever adds them up one after another gets the same, however they are cut."""
    config = EnvConfig("probe_continuous", {"episode_steps": 3})
    totals = []
    for groups in (1, 2, 5):
        pool = EnvGroups(config, num_envs=20, first_env=0, seed=1, threads=1, groups=groups)
        pool.reset()
        for _ in range(40):
            for part in pool.pools:
                part.actions[:] = 2 * part.noise - 1
                part.send()
            for part in pool.pools:
                part.recv()
        totals.append(pool.take_statistics().tolist())
        assert not np.any(pool.take_statistics())
    assert totals[0] == totals[1] == totals[2]
    assert [each[0] for each in totals[0]] == [13] * 20 and len({each[1] for each in totals[0]}) > 1


def test_what_does_not_divide_is_refused() -> None:
    config = compose_train([*SETTINGS, "env=cartpole", "env_groups=3"])[0]
    with pytest.raises(ConfigError, match=r"env_groups=3: must divide the 16 environments.*valid: 1, 2, 4, 8, 16"):
        validate_train(config, 1)
    with pytest.raises(ConfigError, match=r"env_groups=0: must be at least 1"):
        validate_train(compose_train([*SETTINGS, "env=cartpole", "env_groups=0"])[0], 1)
    with pytest.raises(ValueError, match="5 equal groups"):
        EnvGroups(EnvConfig("cartpole"), num_envs=16, first_env=0, seed=1, threads=1, groups=5)
    pool = EnvGroups(EnvConfig("cartpole"), num_envs=16, first_env=0, seed=1, threads=1, groups=2)
    pool.reset()
    with pytest.raises(ValueError, match="14 environments, where there are 16"):
        pool.restore(pool.snapshot()[:14])

"""Environments of other engines: the same pool to the trainer, exact about when an episode ends and what came last."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from dist_trainer.config import EnvConfig
from dist_trainer.distributed import World
from dist_trainer.envs import EnvPool, reset_seeds
from dist_trainer.errors import ConfigError
from dist_trainer.gymnasium_engine import spec_of_spaces
from dist_trainer.learner import make_learner
from dist_trainer.plan import plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.pools import Pool, env_spec, make_pool
from dist_trainer.run_folder import write_run
from dist_trainer.train import run
from tests.checkpoint_files import write_checkpoint

SEED, FIRST, ENVS = 11, 3, 6
SYNC = EnvConfig("gymnasium", id="CartPole-v1", params={"max_episode_steps": 12})
ASYNC = replace(SYNC, workers="processes")
VECTORIZED = replace(SYNC, params={**SYNC.params, "vectorization_mode": "vector_entry_point"})
ENVPOOL = EnvConfig("envpool", id="CartPole-v1", params={"max_episode_steps": 12})
needs_envpool = pytest.mark.skipif(find_spec("envpool") is None, reason="the extra envpool is not installed")
ENGINES = [
    pytest.param(SYNC, id="sync"),
    pytest.param(ASYNC, id="async"),
    pytest.param(VECTORIZED, id="vectorized"),
    pytest.param(ENVPOOL, id="envpool", marks=needs_envpool),
]
SMALL = ["device=cpu", "torch_threads=1", "env_threads=1", "total_envs=8", "horizon=16", "ppo.minibatches=4"]
SMALL += ["policy.hidden_size=8", "normalize.warmup_steps=0", "env=gymnasium", "env.id=CartPole-v1"]


def pool_of(config: EnvConfig, num_envs: int = ENVS, first_env: int = FIRST) -> Pool:
    pool = make_pool(config, num_envs=num_envs, first_env=first_env, seed=SEED, threads=1)
    pool.reset()
    return pool


def step(pool: Pool) -> NDArray[Any]:
    """With random actions of the pool's own noise, which are returned."""
    pool.actions[:] = np.floor(2 * pool.noise)
    actions = pool.actions[:, 0].copy()
    pool.send()
    pool.recv()
    return actions


@pytest.mark.parametrize("config", [pytest.param(SYNC, id="sync"), pytest.param(ASYNC, id="async")])
def test_gymnasium_one_by_one_is_the_truth(config: EnvConfig) -> None:
    pool = pool_of(config)
    assert not pool.spec.has_resting and not hasattr(pool, "resting")
    envs = [gymnasium.make("CartPole-v1", max_episode_steps=12) for _ in range(ENVS)]
    seeds = reset_seeds(SEED, FIRST, np.zeros(ENVS, np.uint64))
    shown = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    assert (pool.observations == shown).all()
    returns, statistics, seen = np.zeros(ENVS), np.zeros(3), np.zeros(2, int)
    for _ in range(60):
        for row, action in enumerate(step(pool)):
            observation, reward, terminated, truncated, _ = envs[row].step(int(action))
            returns[row] += float(reward)
            assert pool.rewards[row] == reward and pool.terminated[row] == terminated
            assert pool.truncated[row] == (truncated and not terminated)
            if pool.truncated[row]:
                assert (pool.final_observations[row] == observation).all()
            if terminated or truncated:
                statistics += [1, returns[row], returns[row]]  # each step pays 1
                seen += [terminated, pool.truncated[row]]
                returns[row] = 0
                observation, _ = envs[row].reset()
            assert (pool.observations[row] == observation).all()
    assert (seen > 0).all()
    assert (pool.take_statistics() == statistics).all() and not pool.take_statistics().any()


@pytest.mark.parametrize("config", ENGINES[2:])
def test_a_step_that_only_resets_counts_for_nothing(config: EnvConfig) -> None:
    pool = pool_of(config)
    assert pool.spec.has_resting and not pool.resting.any()
    lengths, statistics, cut_off = np.zeros(ENVS, int), np.zeros(3), 0
    for _ in range(100):
        rested, shown = pool.resting.copy(), pool.observations.copy()
        step(pool)
        lengths += ~rested
        assert (pool.rewards == ~rested).all()
        assert (pool.terminated[rested] & ~pool.truncated[rested] & ~pool.resting[rested]).all()  # back, and forgetful
        ended = (pool.terminated | pool.truncated) & ~rested
        assert (pool.resting == ended).all()
        assert (np.abs(pool.observations[rested]) <= 0.05).all()  # a first observation
        assert (shown[rested] != pool.observations[rested]).any() or not rested.any()
        out = (np.abs(pool.observations[:, 0]) > 2.4) | (np.abs(pool.observations[:, 2]) > 12 * np.pi / 180)
        told = ~rested & ~pool.truncated  # EnvPool tells nothing else of an episode's very last step
        assert (out[told] == pool.terminated[told]).all()
        assert (lengths[pool.truncated] == 12).all() and (lengths <= 12).all()
        assert (pool.final_observations[pool.truncated] == pool.observations[pool.truncated]).all()
        statistics += [ended.sum(), lengths[ended].sum(), lengths[ended].sum()]
        cut_off += pool.truncated.sum()
        lengths[ended] = 0
    assert cut_off > 0 and statistics[0] > cut_off
    assert (pool.take_statistics() == statistics).all()


@pytest.mark.parametrize("config", [*ENGINES[:1], ENGINES[3]])
def test_environments_and_noise_are_keyed_by_global_ids(config: EnvConfig) -> None:
    whole, parts = pool_of(config), [pool_of(config, 2, FIRST), pool_of(config, 4, FIRST + 2)]
    ours = EnvPool(EnvConfig("cartpole"), num_envs=ENVS, first_env=FIRST, seed=SEED, threads=1)
    ours.reset()
    for _ in range(40):
        assert (whole.noise == ours.noise).all()
        for name in ("observations", "rewards", "terminated", "truncated"):
            cut = np.concatenate([getattr(part, name) for part in parts])
            assert (getattr(whole, name) == cut).all()
        for pool in (whole, *parts, ours):
            step(pool)


@pytest.mark.parametrize("config", ENGINES)
def test_a_restored_pool_begins_other_episodes(config: EnvConfig) -> None:
    pool = pool_of(config)
    first = pool.observations.copy()
    for _ in range(30):
        step(pool)
    rows, noise = pool.snapshot(), pool.noise.copy()
    assert rows.shape == (ENVS, 8) and not pool.keeps_state
    other = pool_of(config)
    other.restore(rows)
    assert (other.noise == noise).all() and (np.abs(other.observations) <= 0.05).all()
    assert (other.observations != first).any(1).all()
    with pytest.raises(ValueError, match=r"shape \(6, 8\)"):
        other.restore(rows[:-1])


def test_what_lies_in_incoming() -> None:
    pool = pool_of(VECTORIZED)
    step(pool)
    assert pool.incoming.ctypes.data % 4096 == pool.actions.ctypes.data % 4096 == 0
    for name, (offset, dtype, shape) in pool.incoming_layout.items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert pool.incoming[offset : offset + size].tobytes() == getattr(pool, name).tobytes()
    assert set(pool.incoming_layout) == {"observations", "noise", "rewards", "terminated", "truncated", "resting"}


def test_continuous_actions_are_clipped_and_mistakes_refused() -> None:
    pool = pool_of(EnvConfig("gymnasium", id="Pendulum-v1"))
    assert pool.spec.action_kind == "continuous" and pool.spec.action_low == (-2.0,)
    pool.actions[:] = 100
    pool.send()
    pool.recv()
    assert (pool.actions == 2).all() and (pool.rewards < 0).all()
    pool.actions[4] = np.nan
    with pytest.raises(IndexError, match=r"component 0 of environment 7 of Pendulum-v1 is nan"):
        pool.send()
    discrete = pool_of(SYNC)
    discrete.actions[2] = 2
    with pytest.raises(IndexError, match=r"component 0 of environment 5 of CartPole-v1 is 2"):
        discrete.send()


def test_what_is_not_finite_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = pool_of(SYNC)
    plain: Callable[[], Any] = pool._engine.recv

    def broken() -> Any:
        outcome = plain()
        outcome.observations[4, 1] = np.nan
        return outcome

    monkeypatch.setattr(pool._engine, "recv", broken)
    with pytest.raises(RuntimeError, match=r"environment 7 of CartPole-v1: an entry of its observation is not finite"):
        step(pool)
    with pytest.raises(RuntimeError, match="call reset"):
        pool.send()


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (np.full((ENVS, 4), 1e300), "environment 3 of CartPole-v1: an entry of its observation is not finite"),
        (np.zeros((ENVS, 3)), r"CartPole-v1 shows observations of shape \(3,\); its space says \(4,\)"),
    ],
)
def test_what_does_not_fit_is_told(shown: NDArray[Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1e300 is finite for the engine, but not as the policy sees it."""
    pool: Any = pool_of(SYNC)
    plain: Callable[[], Any] = pool._engine.recv
    monkeypatch.setattr(pool._engine, "recv", lambda: replace(plain(), observations=shown))
    with pytest.raises(RuntimeError, match=told):
        step(pool)


@pytest.mark.parametrize(
    ("seen", "taken", "told"),
    [
        (Box(0, 1, (2,)), Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (Box(0, 1, (2,)), Box(0, np.inf, (2,)), "finite bounds"),
        (Box(0, 1, (2,)), Box(1, 1, (2,)), "the lower ones below the upper"),
        (Box(0, 1, ()), Discrete(2), r"shows a Box of shape \(\)"),
    ],
)
def test_spaces_that_no_policy_can_use(seen: Box, taken: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"env\.id=mine: .*{told}"):
        spec_of_spaces("mine", seen, taken)


# --- Through the trainer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ENGINES[1:])
def test_rollouts_bootstrap_truncated_episodes_and_leave_rests_out(config: EnvConfig) -> None:
    settings = [f"env={config.name}", *(f"env.params.{name}={value}" for name, value in config.params.items())]
    plan = plan_train([*SMALL, *settings, f"env.workers={config.workers}", "total_env_steps=1"], 1)
    learner = make_learner(plan.config, World(0, 1, 0, 1, torch.device("cpu")))
    learner.pool.reset()
    rollout = learner.collector.collect()
    [pool] = learner.pool.pools
    assert pool.spec.has_resting == (rollout.acts is not None)
    truncated = rollout.done & ~rollout.terminated
    assert truncated.any() and (rollout.final_values[truncated] != 0).all()
    assert not rollout.final_values[~truncated].any()
    if rollout.acts is not None:
        rests = ~rollout.acts
        assert rests.any() and not rollout.rewards[rests].any()
        before = rollout.done[:-1] & rollout.acts[:-1]
        assert (rests[1:] == before).all()


def test_a_run_goes_on_with_new_episodes_and_says_so(tmp_path: Path) -> None:
    first = [*SMALL, f"run_dir={tmp_path / 'run'}", "env.params.max_episode_steps=30"]
    assert run(plan_train([*first, "total_env_steps=256"], 1)) == 0
    again = plan_train([f"resume={tmp_path / 'run'}", "total_env_steps=512"], 1)
    assert again.config.env.params == {"max_episode_steps": 30}
    with pytest.warns(UserWarning, match="env=gymnasium cannot save its environments: new episodes begin"):
        assert run(again) == 0
    plan = plan_evaluate([f"checkpoint={tmp_path / 'run'}"])
    assert env_spec(plan.trained.env).observation_shape == (4,) and plan.config.episodes == 100


# --- Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gymnasium", "envpool"])
def test_an_engine_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"env={name}: needs the extra .*pip install 'dist_trainer\[{name}\]'"):
        plan_train([*SMALL, f"env={name}", "env.id=CartPole-v1"], 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["env.id=null"], r"env\.id=None: is required"),
        (["env.id=CartPole-v7"], r"env\.id=CartPole-v7: gymnasium cannot make it: "),
        (["env.params.colour=red"], r"env\.id=CartPole-v1: gymnasium cannot make it: .*colour"),
        (["env.id=FrozenLake-v1"], "shows a Discrete; only a Box can be seen"),
        (["env=cartpole"], r"env\.id=CartPole-v1: acts only with env=gymnasium or env=envpool"),
    ],
)
def test_mistakes_are_named(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_train([*SMALL, *settings], 1)


def test_a_stranger_s_id_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gymnasium imports the module before the colon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("open('it ran', 'w')\n")
    write_run(plan_train(SMALL, 1).config, Path("run"), None)
    write_checkpoint(Path("run/checkpoints/iteration_00000001.ckpt"), b"x")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("id: CartPole-v1", "id: evil:CartPole-v1"))
    for plan in (lambda: plan_evaluate(["checkpoint=run"]), lambda: plan_train(["resume=run"], 1)):
        with pytest.raises(ConfigError, match=r"env\.id=evil:CartPole-v1: .*DIST_TRAINER_TRUST=evil"):
            plan()
    assert not Path("it ran").exists()
    monkeypatch.setenv("DIST_TRAINER_TRUST", "evil")
    assert plan_train(["resume=run"], 1).config.env.id == "evil:CartPole-v1"
    assert Path("it ran").exists()

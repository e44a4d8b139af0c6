"""What a rollout holds: the alignment of its arrays, bootstrap values, carried recurrent state, and its minibatches."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.rollout import Rollout, minibatch_rows, take_minibatch

ENVS, HORIZON, EPISODE = 8, 12, 5
AGENTS = {"probe_discrete": 1, "probe_multi_discrete": 3, "probe_continuous": 1, "probe_image": 2}


def learner_for(*overrides: str) -> Learner:
    settings = [f"total_envs={ENVS}", f"horizon={HORIZON}", "ppo.minibatches=2", "policy.hidden_size=16"]
    threads = ["torch_threads=1", "env_threads=1", "device=cpu"]
    return make_learner(compose_train([*settings, *threads, *overrides])[0], connect("cpu", 60))


def probe(env: str, *overrides: str, truncate: int = 1) -> Learner:
    episodes = [f"env.params.episode_steps={EPISODE}", f"env.params.truncate={truncate}"]
    return learner_for(f"env={env}", *episodes, *overrides)


def reward_due(env: str, observations: Tensor, actions: Tensor) -> Tensor:
    """(T, N) what the probe pays for `actions` where it shows `observations`."""
    if env == "probe_image":
        targets = observations[:, :, 0, 0, :4].argmax(-1, keepdim=True)
    else:
        components = actions.shape[-1]
        targets = observations[..., : 4 * components].unflatten(-1, (components, 4)).argmax(-1)
    if env == "probe_continuous":  # targets at -1.5, -0.5, 0.5, 1.5; actions are clipped to +-2
        return (1 - (actions.clamp(-2, 2) - (targets - 1.5)).abs()).sum(-1)
    return (actions == targets).sum(-1).float()


def step_shown(env: str, observations: Tensor) -> Tensor:
    """(T, N) the step within the episode, which the probe shows last."""
    return (observations[:, :, 0, -1, -1] if env == "probe_image" else observations[..., -1]).long()


@pytest.mark.parametrize("env", AGENTS)
@pytest.mark.parametrize("truncate", [0, 1])
def test_arrays_are_aligned(env: str, truncate: int) -> None:
    """rewards[t] are for actions[t] at observations[t]; after done[t], observations[t+1] is the first of an episode."""
    learner = probe(env, truncate=truncate)
    previous_done = None
    for iteration in range(3):
        rollout = learner.collector.collect()
        assert rollout.rewards.shape == (HORIZON, ENVS * AGENTS[env])
        expected = reward_due(env, rollout.observations, rollout.actions)
        torch.testing.assert_close(rollout.rewards, expected, rtol=1e-6, atol=1e-5)
        assert expected.unique().numel() > 1
        time = torch.arange(iteration * HORIZON, (iteration + 1) * HORIZON)[:, None].expand_as(rollout.rewards)
        assert torch.equal(step_shown(env, rollout.observations), time % EPISODE)
        assert torch.equal(rollout.done, time % EPISODE == EPISODE - 1)
        assert torch.equal(rollout.terminated, rollout.done if truncate == 0 else torch.zeros_like(rollout.done))
        if previous_done is not None:
            assert torch.equal(step_shown(env, rollout.observations)[0] == 0, previous_done)
        previous_done = rollout.done[-1].clone()


def test_done_of_environments_that_end_at_different_times() -> None:
    """CartPole: an episode starts within +-0.05 of the origin, and it starts nowhere but after a done."""
    learner = learner_for("env=cartpole", "horizon=64", "env.params.max_steps=30", "total_envs=32")
    learner.collector.collect()
    rollout = learner.collector.collect()
    beginning = rollout.observations.abs().amax(-1) <= 0.05  # (T, N)
    assert beginning[1:][rollout.done[:-1]].all()
    assert rollout.done.any(0).all()
    assert len({tuple(column) for column in rollout.done.T.tolist()}) > 16
    moving = rollout.observations[1:] - rollout.observations[:-1]
    assert (moving.abs().amax(-1)[~rollout.done[:-1]] < 0.7).all()  # the largest change of a velocity in one step
    truncated = rollout.done & ~rollout.terminated
    assert torch.equal(rollout.final_values != 0, truncated)
    assert truncated.any()
    assert rollout.terminated.any()
    assert torch.equal(rollout.rewards, torch.ones_like(rollout.rewards))


def replay(learner: Learner, rollout: Rollout, state: Tensor) -> tuple[Tensor, list[Tensor]]:
    """By acting again from `state`: values (T, N), and the state (L, N, H) after each observation, before any reset."""
    values, states = [], []
    with torch.no_grad():
        for observations, done in zip(rollout.observations, rollout.done, strict=True):
            _, value, state = learner.policy.act(learner.observations(observations), state)
            values.append(value)
            states.append(state)
            state = state * (1 - done.to(state.dtype))[None, :, None]
    return torch.stack(values), states


class FinalObservations:
    """Notes what the pool says about truncated episodes, step by step."""

    def __init__(self, learner: Learner, patch: pytest.MonkeyPatch):
        (self.pool,) = learner.pool.pools
        self.receive = self.pool.recv
        self.steps: list[tuple[Tensor, Tensor]] = []  # truncated (N,), final observations (N, *shape)
        patch.setattr(self.pool, "recv", self.recv)

    def recv(self) -> None:
        self.receive()
        arrays = (self.pool.truncated, self.pool.final_observations)
        truncated, observations = (torch.from_numpy(array.copy()) for array in arrays)
        self.steps.append((truncated, observations))


SETTINGS: dict[str, Sequence[str]] = {
    "probe_discrete": [f"env.params.episode_steps={EPISODE}"],
    "probe_multi_discrete": [f"env.params.episode_steps={EPISODE}"],
    "probe_continuous": [f"env.params.episode_steps={EPISODE}"],
    "probe_image": [f"env.params.episode_steps={EPISODE}"],
    "probe_masks": ["env.params.life=3", "env.params.rest=2", f"env.params.episode_steps={EPISODE}"],
    "cartpole": ["env.params.max_steps=12", "horizon=40"],
    "tmaze": ["env.params.corridor=1", "horizon=90"],
}


@pytest.mark.parametrize("policy", ["lstm", "mlp"])
@pytest.mark.parametrize("env", SETTINGS)
def test_values_are_the_policy_s(env: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acting again over a rollout gives its values. final_values: only where truncated, the value of the episode's own
    final observation after the state before the reset. last_values: of the observation that the next rollout begins
    with. The state is carried from rollout to rollout, and is zero after a done."""
    learner = learner_for(f"env={env}", f"policy={policy}", *SETTINGS[env])
    pool = FinalObservations(learner, monkeypatch)
    state = learner.policy.initial_state(learner.pool.rows)
    assert state.eq(0).all()
    for _ in range(3):
        pool.steps.clear()
        rollout = learner.collector.collect()
        assert torch.equal(rollout.initial_state, state)
        values, states = replay(learner, rollout, state)
        torch.testing.assert_close(rollout.values, values, rtol=1e-5, atol=1e-6)
        assert rollout.done[:-1].any()
        for t, (truncated, observations) in enumerate(pool.steps):
            assert torch.equal(truncated, rollout.done[t] & ~rollout.terminated[t])
            with torch.no_grad():
                final = learner.policy.act(learner.observations(observations), states[t])[1]
            expected = torch.where(truncated, final, 0.0)
            torch.testing.assert_close(rollout.final_values[t], expected, rtol=1e-5, atol=1e-6)
        state = states[-1] * (1 - rollout.done[-1].float())[None, :, None]
        torch.testing.assert_close(learner.collector.state, state, rtol=1e-5, atol=1e-6)
        assert learner.collector.state[:, rollout.done[-1]].eq(0).all()
        state = learner.collector.state.clone()
        shown = torch.from_numpy(learner.pool.pools[0].observations.copy())
        with torch.no_grad():
            last = learner.policy.act(learner.observations(shown), state)[1]
        torch.testing.assert_close(rollout.last_values, last, rtol=1e-5, atol=1e-6)
        learner.observations.update(rollout.observations, learner.world)  # what the policy sees changes from here on


def test_final_values_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The final observation of the probe shows the last step, the next episode's first observation shows 0: they have
    different values, so that the two cannot be mistaken for each other."""
    learner = learner_for("env=probe_discrete", *SETTINGS["probe_discrete"])
    pool = FinalObservations(learner, monkeypatch)
    rollout = learner.collector.collect()
    truncated, observations = pool.steps[EPISODE - 1]
    assert truncated.all()
    assert observations[:, -1].eq(EPISODE).all()
    following = rollout.values[EPISODE]
    assert (rollout.final_values[EPISODE - 1] - following).abs().min() > 1e-4


def test_terminated_steps_bootstrap_nothing() -> None:
    rollout = probe("probe_multi_discrete", truncate=0).collector.collect()
    assert rollout.terminated.any()
    assert rollout.final_values.eq(0).all()


def test_state_after_a_done_at_the_end_is_zero() -> None:
    """Every episode ends with the rollout: the next one starts with the state of a beginning, else with the old one."""
    ends_together = learner_for("env=probe_discrete", f"env.params.episode_steps={HORIZON}")
    ends_later = learner_for("env=probe_discrete", f"env.params.episode_steps={HORIZON + 1}")
    for learner, is_zero in ((ends_together, True), (ends_later, False)):
        learner.collector.collect()
        initial_state = learner.collector.collect().initial_state
        assert bool(initial_state.eq(0).all()) is is_zero


@pytest.mark.parametrize("env", ["probe_multi_discrete", "cartpole"])
def test_done_counts(env: str) -> None:
    """Dones in the first T - 1 steps: the last one resets nothing within the rollout."""
    learner = learner_for(f"env={env}", *SETTINGS[env])
    last_ones = 0
    for _ in range(6):
        rollout = learner.collector.collect()
        assert rollout.done_counts.tolist() == rollout.done[:-1].sum(0).tolist()
        last_ones += int(rollout.done[-1].sum())
    assert last_ones > 0


def test_stored_actions_are_those_that_were_sampled() -> None:
    """Continuous actions beyond the bounds are stored as sampled: the pool clips its own copy."""
    learner = probe("probe_continuous", "horizon=64")
    actions = learner.collector.collect().actions
    assert actions.dtype == torch.float32
    assert actions.abs().max() > 2


@pytest.mark.parametrize("env", ["probe_multi_discrete", "probe_image"])
def test_minibatches_are_columns_of_the_rollout(env: str) -> None:
    """Whole segments with their own initial states; nothing is mixed between rows."""
    learner = probe(env)
    learner.collector.collect()
    rollout = learner.collector.collect()
    advantages, targets = torch.randn(rollout.values.shape), torch.randn(rollout.values.shape)
    rows = torch.tensor([3, 0, 7, 5])
    batch = take_minibatch(rollout, advantages, targets, rows, 4)
    for name in ("observations", "actions", "log_probs", "values", "done", "initial_state"):
        assert torch.equal(getattr(batch, name), getattr(rollout, name)[:, rows]), name
    assert torch.equal(batch.advantages, advantages[:, rows])
    assert torch.equal(batch.targets, targets[:, rows])
    assert batch.max_done == 4


def global_minibatches(
    size: int, *, seed: int = 1, iteration: int = 0, epoch: int = 0, agents: int = 1
) -> list[set[int]]:
    """The global rows of each minibatch, over `size` learners that own equal slices of 32 environments; M = 4."""
    slices = [range(32 // size * rank, 32 // size * (rank + 1)) for rank in range(size)]
    together: list[set[int]] = [set() for _ in range(4)]
    for envs in slices:
        rows = minibatch_rows(seed, iteration, epoch, total_envs=32, minibatches=4, envs=envs, agents=agents)
        assert rows.shape == (4, len(envs) * agents // 4)
        assert rows.dtype == torch.int64
        assert sorted(rows.flatten().tolist()) == list(range(len(envs) * agents))
        for minibatch, mine in zip(together, rows.tolist(), strict=True):
            minibatch.update(envs.start * agents + row for row in mine)
    return together


@pytest.mark.parametrize("agents", [1, 3])
@pytest.mark.parametrize("iteration", [0, 7])
def test_minibatches_are_the_same_for_any_number_of_learners(iteration: int, agents: int) -> None:
    """Minibatch k holds the same global environments, with all their agents, for 1, 2, 4 and 8 learners."""
    alone = global_minibatches(1, iteration=iteration, agents=agents)
    assert sorted(row for minibatch in alone for row in minibatch) == list(range(32 * agents))
    for size in (2, 4, 8):
        assert global_minibatches(size, iteration=iteration, agents=agents) == alone
    for minibatch in alone:
        environments = {row // agents for row in minibatch}
        assert len(environments) == 8
        assert minibatch == {env * agents + agent for env in environments for agent in range(agents)}


def test_minibatches_differ_by_epoch_iteration_and_seed() -> None:
    keys: list[dict[str, int]] = [{}, {"epoch": 1}, {"iteration": 1}, {"seed": 2}, {"epoch": 2}, {"iteration": 2}]
    splits = [global_minibatches(2, **key) for key in keys]
    assert all(one != other for i, one in enumerate(splits) for other in splits[:i])
    assert global_minibatches(2) == splits[0]


def test_every_minibatch_is_equally_likely_for_every_environment() -> None:
    """Over many epochs each environment is in each minibatch about as often."""
    counts = np.zeros((32, 4))
    for epoch in range(400):
        for index, minibatch in enumerate(global_minibatches(1, epoch=epoch)):
            counts[list(minibatch), index] += 1
    assert counts.sum() == 400 * 32
    assert counts.min() > 60  # of 100; 4.6 standard deviations
    assert counts.max() < 140

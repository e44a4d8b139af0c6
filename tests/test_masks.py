"""Choices that are not legal are never made, and steps of resting agents count for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.minibatch import my_minibatch_rows, samples_of
from dist_trainer.normalize import RunningMoments
from dist_trainer.policies.heads import CategoricalHead
from dist_trainer.ppo import LOSS_SUMS, estimate_advantages, normalize_globally, ppo_loss, return_sums
from dist_trainer.rollout import Rollout, take_minibatch
from dist_trainer.update import learn
from tests.pools import choose_actions, make_pool

LIFE, REST, EPISODE = 4, 3, 19
PARAMS = {"life": LIFE, "rest": REST, "episode_steps": EPISODE}
SMALLEST, LARGEST = 2.0**-24, 1 - 2.0**-24  # of float32 noise in the open interval (0, 1)


# --- the pool


def is_legal(clock: int, number: int) -> bool:
    return number == 0 or clock % number != 0


def test_the_pool_keeps_the_probes_rules() -> None:
    """Against the rules written down a second time: legal choices, rests, rewards, ends, statistics without rests."""
    pool = make_pool("probe_masks", num_envs=2, life=LIFE, rest=REST, episode_steps=EPISODE)
    buffers = pool.buffers()
    clocks, lengths, returns, finished = buffers["observations"][:, 0].astype(int), *np.zeros((2, 6)), np.zeros(4)
    assert len(set(clocks.tolist())) > 1
    for step in range(1, 3 * EPISODE + 1):
        resting = clocks < 0
        assert buffers["resting"].tolist() == resting.tolist()
        expected = [[is_legal(c, n) for n in range(5)] + [is_legal(c, n) for n in range(3)] for c in clocks.tolist()]
        assert buffers["legal"].tolist() == expected
        buffers["actions"][:] = choose_actions("probe_masks", buffers)
        best = np.array([max(n for n in range(5) if is_legal(c, n)) for c in clocks.tolist()])
        rewards = np.where(resting, 0, buffers["actions"][:, 0] == best)
        pool.send()
        pool.recv()
        over = step % EPISODE == 0
        clocks = np.where(clocks == -1, 1, clocks + 1)
        dies = ~resting & (clocks > LIFE + np.arange(6) % 3) & (not over)
        back = resting & ((clocks == 1) | over)
        lengths += ~resting
        returns += rewards
        ends = dies | (over & ~resting)
        finished += [ends.sum(), returns[ends].sum(), lengths[ends].sum(), np.where(dies, -REST, clocks)[ends].sum()]
        lengths[ends], returns[ends] = 0, 0
        clocks = np.where(dies, -REST, clocks)
        assert buffers["rewards"].tolist() == rewards.tolist()
        assert buffers["terminated"].tolist() == (dies | back).tolist()
        assert buffers["truncated"].tolist() == (over & ~resting).tolist()
        if over:
            clocks = buffers["observations"][:, 0].astype(int)
            assert (clocks >= 1).all() and (clocks <= LIFE).all()
        else:
            assert buffers["observations"][:, 0].tolist() == np.where(clocks < 0, 9, clocks).tolist()
    assert pool.take_statistics() == finished.tolist()


def test_an_illegal_choice_is_refused_by_name() -> None:
    pool = make_pool("probe_masks", first_env=100)
    pool.buffers()["actions"][:] = 0
    pool.buffers()["actions"][4, 1] = 1  # of the second environment; 1 divides every clock
    pool.send()
    with pytest.raises(IndexError, match="probe_masks: action component 1 of environment 101 is 1, must be a legal"):
        pool.recv()


# --- the distribution


def test_what_is_not_legal_is_never_sampled() -> None:
    """Whatever the logits and the noise, to its last bits; every subset of 5 choices."""
    head = CategoricalHead(1, (5,))
    generator = torch.Generator().manual_seed(1)
    legal = torch.tensor([[bool(subset >> choice & 1) for choice in range(5)] for subset in range(1, 32)])  # (31, 5)
    noise = torch.cat([torch.rand(500, generator=generator), torch.tensor([SMALLEST, LARGEST, LARGEST - 2.0**-24])])
    for scale in (0.0, 1.0, 50.0, 1e4):
        logits = scale * torch.randn(len(noise), 31, 5, generator=generator)
        for dtype in (torch.float32, torch.float64):
            parameters = head.restrict(logits.to(dtype), legal.expand(len(noise), -1, -1))
            drawn = noise.clamp(SMALLEST, LARGEST)[:, None, None].expand(-1, 31, 1)
            actions, log_probs = head.sample_with_log_prob(parameters, drawn)
            assert legal.expand(len(noise), -1, -1).gather(-1, actions.long()).all()
            assert legal.expand(len(noise), -1, -1).gather(-1, head.mode(parameters).long()).all()
            assert log_probs.isfinite().all()


def test_probabilities_and_entropy_are_those_of_the_legal_choices_alone() -> None:
    """The same as of a smaller head that has only them; and no gradient reaches the others."""
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    chosen = [1, 2, 4]
    legal = torch.zeros(7, 5, dtype=torch.bool)
    legal[:, chosen] = True
    actions = torch.tensor([[0], [1], [2], [0], [1], [2], [0]])
    expected = CategoricalHead(1, (3,)).log_prob_and_entropy(logits[:, chosen], actions)
    head = CategoricalHead(1, (5,))
    found = head.log_prob_and_entropy(head.restrict(logits, legal), torch.tensor(chosen)[actions])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradient = torch.autograd.grad(found[0].sum() + found[1].sum(), logits)[0]
    assert gradient[~legal].eq(0).all()
    assert gradient[legal].ne(0).all()


# --- learning


def learner_for(*overrides: str) -> Learner:
    params = [f"env.params.{name}={value}" for name, value in PARAMS.items()]
    sizes = ["total_envs=8", "ppo.minibatches=2", "policy.hidden_size=12", "horizon=16", "dtype=float64"]
    threads = ["torch_threads=1", "env_threads=1", "device=cpu"]
    config = compose_train(["env=probe_masks", *params, *sizes, *threads, *overrides])[0]
    return make_learner(config, connect("cpu", 60))


def spoiled(rollout: Rollout) -> Rollout:
    """Other numbers wherever an agent rests."""
    acts = rollout.acts
    assert acts is not None
    assert 0.2 < acts.double().mean() < 0.9
    generator = torch.Generator().manual_seed(1)

    def spoil(x: Tensor) -> Tensor:
        keep = acts.view(*acts.shape, *[1] * (x.dim() - 2))
        return torch.where(keep, x, torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype))

    return replace(
        rollout,
        observations=spoil(rollout.observations),
        log_probs=spoil(rollout.log_probs),
        values=spoil(rollout.values),
    )


def test_nothing_of_a_rest_reaches_the_update() -> None:
    """Two learners, to one of which resting agents show, and say, something else: the same weights and statistics."""
    one, other = (learner_for() for _ in range(2))
    for _ in range(3):
        rollout = one.collector.collect()
        same = other.collector.collect()
        assert torch.equal(rollout.observations, same.observations)
        updates = [learn(one, rollout), learn(other, spoiled(same))]
        for learner in (one, other):
            learner.iteration += 1
        sums = [update.sums for update in updates]
        torch.testing.assert_close(*sums, rtol=1e-9, atol=1e-9)
        for ours, theirs in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        for ours, theirs in (
            (one.observations.state_dict(), other.observations.state_dict()),
            (one.returns.state_dict(), other.returns.state_dict()),
        ):
            for name, tensor in ours.items():
                if name != "running":  # of rewards alone
                    torch.testing.assert_close(tensor, theirs[name], rtol=1e-9, atol=1e-9)


def test_the_loss_is_the_mean_over_who_acts() -> None:
    """Its sums are those of minibatches whose samples are looked at one by one."""
    learner = learner_for("normalize.observations=false")
    learner.collector.collect()
    rollout = learner.collector.collect()
    assert rollout.acts is not None
    advantages, targets = estimate_advantages(learner.config.ppo, rollout, rollout.rewards, None)
    scaled = normalize_globally(advantages, learner.world, rollout.acts)
    acting = rollout.acts.numpy()
    values = advantages.numpy()[acting]
    np.testing.assert_allclose(scaled.numpy()[acting], (values - values.mean()) / values.std(), rtol=1e-6)
    assert (scaled.numpy()[~acting] == 0).all()
    rows = my_minibatch_rows(learner, 0)
    counts = samples_of(learner, rollout, rows, 0)
    for index, count in zip(rows, counts, strict=True):
        own = acting[:, index.numpy()]
        assert int(count) == own.sum()
        batch = take_minibatch(rollout, scaled, targets, index, int(rollout.done_counts.max()))
        loss, sums = ppo_loss(learner.policy, learner.observations, batch, learner.config.ppo, count)
        by_name = dict(zip(LOSS_SUMS, sums.tolist(), strict=True))
        assert by_name["samples"] == own.sum()
        assert by_name["approx_kl"] == pytest.approx(0, abs=1e-12)
        assert by_name["policy"] == pytest.approx(-scaled.numpy()[:, index.numpy()][own].sum())
        errors = (rollout.values - targets).numpy()[:, index.numpy()][own]
        assert by_name["value"] == pytest.approx(0.5 * (errors**2).sum())
        total = by_name["policy"] + 0.5 * by_name["value"] - learner.config.ppo.entropy_coef * by_name["entropy"]
        assert loss.item() == pytest.approx(total / own.sum())
    found = return_sums(targets, rollout.values, rollout.acts)
    y, error = targets.numpy()[acting], (targets - rollout.values).numpy()[acting]
    expected = [acting.sum(), y.sum(), (y**2).sum(), error.sum(), (error**2).sum()]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_moments_of_what_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    moments, rows = RunningMoments((3,), torch.device("cpu")), []
    moments.update(torch.randn(4, 5, 3, generator=generator), connect("cpu", 60), torch.zeros(4, 5, dtype=torch.bool))
    assert moments.count == 0
    assert moments.std.eq(1).all()
    for _ in range(3):
        batch = torch.randn(4, 5, 3, generator=generator) * 2 + 7
        counted = torch.rand(4, 5, generator=generator) < 0.5
        moments.update(batch, connect("cpu", 60), counted)
        rows.append(batch[counted].double().numpy())
    everything = np.concatenate(rows)
    assert moments.count.item() == len(everything)
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std.numpy(), everything.std(0), rtol=1e-10)


def test_learning_is_possible_where_not_everything_is_legal() -> None:
    """The largest legal number is found: three quarters of what can be had, after a few dozen updates."""
    learner = learner_for("total_envs=64", "optimizer.lr=0.02", "total_env_steps=1e9", "ppo.minibatches=4")
    for _ in range(60):
        learner.pool.take_statistics()
        learn(learner, learner.collector.collect())
        learner.iteration += 1
    rollout = learner.collector.collect()
    assert rollout.acts is not None
    assert rollout.rewards[rollout.acts].mean() > 0.75

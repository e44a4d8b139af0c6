"""The PPO loss, its gradients and its statistics equal a second implementation, written out step by step."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn import functional

from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import PPOConfig
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.minibatch import my_minibatch_rows
from dist_trainer.policies.encoders import make_encoder
from dist_trainer.ppo import (
    LOSS_SUMS,
    GradientBucket,
    estimate_advantages,
    explained_variance,
    normalize_globally,
    ppo_loss,
    return_sums,
)
from dist_trainer.rollout import Rollout, take_minibatch
from dist_trainer.update import rollout_log_ratio

EPISODES = ["env.params.episode_steps=5", "horizon=12"]
SETTINGS: dict[str, Sequence[str]] = {
    "probe_discrete": EPISODES,
    "probe_multi_discrete": EPISODES,
    "probe_continuous": EPISODES,
    "probe_image": EPISODES,
    "probe_masks": ["env.params.life=3", "env.params.rest=2", "env.params.episode_steps=17", "horizon=12"],
    "cartpole": ["env.params.max_steps=20", "horizon=48"],
    "tmaze": ["env.params.corridor=1", "horizon=48"],
}


def learner_for(env: str, *overrides: str) -> Learner:
    settings = ["total_envs=8", "ppo.minibatches=2", "policy.hidden_size=12", "ppo.entropy_coef=0.01"]
    threads = ["torch_threads=1", "env_threads=1", "device=cpu"]
    config = compose_train([f"env={env}", *SETTINGS[env], *settings, *threads, *overrides])[0]
    return make_learner(config, connect("cpu", 60))


def second_rollout(learner: Learner) -> Rollout:
    """Begins in the middle of episodes, with normalizers that have seen data; has episode ends inside."""
    for _ in range(2):
        rollout = learner.collector.collect()
        learner.returns.update(rollout.rewards, rollout.done, learner.world)
        learner.observations.update(rollout.observations, learner.world)
    rollout = learner.collector.collect()
    assert rollout.done[:-1].any()
    return rollout


def disturb(policy: nn.Module, size: float, seed: int) -> None:
    """Moves all weights: away from the first policy, which is all but uniform, or away from the one that acted."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise.to(parameter.dtype))


class PlainPolicy:
    """The recurrent policy with two encoder layers, for vector observations, on a copy of a policy's weights."""

    def __init__(self, learner: Learner):
        self.spec = learner.pool.spec
        self.weights = {
            name: parameter.detach().clone().requires_grad_() for name, parameter in learner.policy.named_parameters()
        }

    def __call__(self, observations: Tensor, state: Tensor, done: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(T, S, *), (2, S, H), (T, S) -> for each step the action parameters (S, P) and the values (S,)."""
        w = self.weights
        h, c = state
        parameters, values = [], []
        for t in range(len(observations)):
            x = functional.relu(functional.linear(observations[t], w["encoder.0.weight"], w["encoder.0.bias"]))
            x = functional.relu(functional.linear(x, w["encoder.2.weight"], w["encoder.2.bias"]))
            gates = x @ w["lstm.weight_ih"].T + h @ w["lstm.weight_hh"].T + w["lstm.bias"]
            i, f, g, o = gates.chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            values.append((h @ w["value_head.weight"].T + w["value_head.bias"])[:, 0])
            head = "mean" if self.spec.action_kind == "continuous" else "logits"
            parameters.append(h @ w[f"action_head.{head}.weight"].T + w[f"action_head.{head}.bias"])
            alive = 1 - done[t].to(h.dtype)[:, None]
            h, c = h * alive, c * alive
        return parameters, values

    def log_prob_and_entropy(self, parameters: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(S, P), (S, C) -> (S,), (S,)."""
        log_prob = entropy = torch.zeros((), dtype=parameters.dtype)
        for component in range(self.spec.action_components):
            part: Categorical | Normal
            if self.spec.action_kind == "continuous":
                low, high = self.spec.action_low[component], self.spec.action_high[component]
                half = (high - low) / 2
                std = self.weights["action_head.log_std"][component].exp() * half
                part = Normal((low + high) / 2 + half * parameters[:, component], std)
            else:
                first = sum(self.spec.action_sizes[:component])
                part = Categorical(logits=parameters[:, first : first + self.spec.action_sizes[component]])
            log_prob = log_prob + part.log_prob(actions[:, component])
            entropy = entropy + part.entropy()
        return log_prob, entropy


def plain_loss(
    policy: PlainPolicy,
    config: PPOConfig,
    rollout: Rollout,
    inputs: Tensor,
    scaled: Tensor,
    targets: Tensor,
    rows: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    """The mean loss over the samples of `rows`, sample by sample in time; and the sums of its parts."""
    state = rollout.initial_state[:, rows]
    parameters, values = policy(inputs[:, rows], state, rollout.done[:, rows])
    sums = dict.fromkeys(LOSS_SUMS, 0.0)
    loss = torch.zeros((), dtype=inputs.dtype)
    for t in range(len(inputs)):
        log_prob, entropy = policy.log_prob_and_entropy(parameters[t], rollout.actions[t, rows])
        old_log_prob, old_value = rollout.log_probs[t, rows], rollout.values[t, rows]
        advantage, target = scaled[t, rows], targets[t, rows]
        ratio = torch.exp(log_prob - old_log_prob)
        limited = torch.where(ratio > 1 + config.clip, 1 + config.clip, ratio)
        limited = torch.where(ratio < 1 - config.clip, 1 - config.clip, limited)
        surrogate = ratio * advantage
        limited_surrogate = limited * advantage
        objective = torch.where(surrogate < limited_surrogate, surrogate, limited_surrogate)
        error = (values[t] - target) ** 2 / 2
        if config.value_clip is not None:
            change = values[t] - old_value
            inside = change.abs() <= config.value_clip
            near = torch.where(inside, values[t], old_value + config.value_clip * change.sign())
            near_error = (near - target) ** 2 / 2
            error = torch.where(error > near_error, error, near_error)
        loss = loss + (-objective + config.value_coef * error - config.entropy_coef * entropy).sum()
        sums["policy"] += float(-objective.detach().sum())
        sums["value"] += float(error.detach().sum())
        sums["entropy"] += float(entropy.detach().sum())
        sums["approx_kl"] += float((ratio - 1 - torch.log(ratio)).detach().sum())
        sums["clip_fraction"] += int(((ratio < 1 - config.clip) | (ratio > 1 + config.clip)).sum())
        sums["samples"] += len(rows)
    return loss / sums["samples"], sums


@pytest.mark.parametrize("value_clip", ["null", "0.1"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("env", ["probe_discrete", "probe_multi_discrete", "probe_continuous", "cartpole", "tmaze"])
def test_loss_and_gradients_of_every_minibatch(env: str, dtype: str, value_clip: str) -> None:
    """From the pool to the gradient bucket: what the learner computes is what the second implementation computes."""
    learner = learner_for(env, f"dtype={dtype}", f"ppo.value_clip={value_clip}", "policy.encoder_layers=2")
    config, tolerance = learner.config.ppo, 1e-12 if dtype == "float64" else 1e-6
    disturb(learner.policy, 0.3, seed=0)
    rollout = second_rollout(learner)
    advantages, targets = estimate_advantages(config, rollout, learner.returns(rollout.rewards), None)
    scaled = normalize_globally(advantages, learner.world)
    inputs = learner.observations(rollout.observations)
    disturb(learner.policy, 0.15, seed=1)
    policy = PlainPolicy(learner)
    samples = learner.config.horizon_env_steps * learner.pool.spec.num_agents // config.minibatches
    clipped = 0.0
    for rows in my_minibatch_rows(learner, 0):
        batch = take_minibatch(rollout, scaled, targets, rows, int(rollout.done_counts[rows.numpy()].max()))
        learner.gradients.zero()
        loss, sums = ppo_loss(learner.policy, learner.observations, batch, config, samples)
        loss.backward()
        expected_loss, expected_sums = plain_loss(policy, config, rollout, inputs, scaled, targets, rows)
        expected = torch.autograd.grad(expected_loss, list(policy.weights.values()))
        assert samples == expected_sums["samples"]
        scale = 1 + sum(abs(value) for value in expected_sums.values()) / samples
        torch.testing.assert_close(loss.detach() / scale, expected_loss.detach() / scale, rtol=0, atol=tolerance)
        expected_vector = torch.tensor([expected_sums[name] for name in LOSS_SUMS], dtype=torch.float64)
        torch.testing.assert_close(sums / samples, expected_vector / samples, rtol=0, atol=tolerance * scale)
        # the bucket holds every gradient, in the order of the parameters
        flat = torch.cat([gradient.flatten() for gradient in expected])
        assert [name for name, _ in learner.policy.named_parameters()] == list(policy.weights)
        scale = float(flat.abs().max())
        torch.testing.assert_close(learner.gradients.flat / scale, flat / scale, rtol=0, atol=tolerance)
        for (name, parameter), gradient in zip(learner.policy.named_parameters(), expected, strict=True):
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad / scale, gradient / scale, rtol=0, atol=tolerance)
            assert gradient.ne(0).any(), name
        clipped += expected_sums["clip_fraction"]
    assert 0 < clipped < config.minibatches * samples  # some ratios were clipped, some were not


@pytest.mark.parametrize("policy", ["lstm", "mlp"])
@pytest.mark.parametrize("env", SETTINGS)
def test_log_probabilities_when_learning_are_those_when_acting(env: str, policy: str) -> None:
    """Before the first update every ratio is 1, in the first rollout and in later ones, whose state is carried over."""
    learner = learner_for(env, f"policy={policy}", "policy.hidden_size=32")
    disturb(learner.policy, 0.1, seed=0)
    for iteration in range(3):
        rollout = learner.collector.collect()
        assert rollout.done[:-1].any()
        assert policy == "mlp" or bool(rollout.initial_state.ne(0).any()) == (iteration > 0)
        log_ratio = rollout_log_ratio(learner, rollout)
        torch.testing.assert_close(log_ratio, torch.zeros_like(log_ratio), rtol=0, atol=2e-6)
        assert rollout.log_probs.std() > 1e-3
        learner.observations.update(rollout.observations, learner.world)


def test_the_clipped_surrogate_by_hand() -> None:
    """Figure 1 of arXiv 1707.06347: the gradient vanishes where the ratio has already gone far enough."""
    for advantage, log_ratio, flows in [
        (1, 0.5, False),
        (1, -0.5, True),
        (-1, 0.5, True),
        (-1, -0.5, False),
        (1, 0, True),
    ]:
        learner = learner_for(
            "probe_discrete", "ppo.clip=0.2", "ppo.entropy_coef=0", "ppo.value_coef=0", "normalize.observations=false"
        )
        rollout = learner.collector.collect()
        rows = torch.arange(8)
        zero = torch.zeros_like(rollout.values)
        rollout.log_probs.sub_(log_ratio)
        batch = take_minibatch(rollout, zero + advantage, zero, rows, int(rollout.done_counts.max()))
        loss, sums = ppo_loss(learner.policy, learner.observations, batch, learner.config.ppo, rollout.values.numel())
        loss.backward()
        ratio = math.exp(log_ratio)
        limited = min(max(ratio, 0.8), 1.2)
        assert loss.item() == pytest.approx(-min(ratio * advantage, limited * advantage), rel=1e-5)
        assert bool(learner.gradients.flat.ne(0).any()) == flows
        assert sums[LOSS_SUMS.index("clip_fraction")] == (0 if log_ratio == 0 else rollout.values.numel())


def test_advantages_come_from_final_and_last_values() -> None:
    """With gamma = lambda = 1 an advantage is the sum of rewards to the episode's end, plus what it is cut off from."""
    learner = learner_for("probe_discrete", "ppo.gamma=1", "ppo.gae_lambda=1", "normalize.returns=false")
    rollout = learner.collector.collect()  # 12 steps; truncated at steps 4 and 9
    _, targets = estimate_advantages(learner.config.ppo, rollout, rollout.rewards, None)
    first = rollout.rewards[0:5].sum(0) + rollout.final_values[4]
    second = rollout.rewards[5:10].sum(0) + rollout.final_values[9]
    third = rollout.rewards[10:12].sum(0) + rollout.last_values
    for step, expected in ((0, first), (5, second), (10, third)):
        torch.testing.assert_close(targets[step], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_gradient_bucket_clips_as_torch_does(factor: float) -> None:
    """By the norm of all gradients together; smaller gradients stay as they are."""
    torch.manual_seed(0)
    policy = nn.Sequential(make_encoder((5,), 7, 2, "relu"), nn.Linear(7, 3))
    plain = nn.Sequential(make_encoder((5,), 7, 2, "relu"), nn.Linear(7, 3))
    plain.load_state_dict(policy.state_dict())
    bucket = GradientBucket(policy)
    inputs = torch.randn(11, 5)
    for _ in range(2):  # after zero() nothing of the first time is left
        bucket.zero()
        policy(inputs).square().sum().backward()
        plain.zero_grad()
        plain(inputs).square().sum().backward()
        norm = torch.linalg.vector_norm(bucket.flat).item()
        returned = bucket.clip(factor * norm)
        expected_norm = nn.utils.clip_grad_norm_(plain.parameters(), factor * norm)
        torch.testing.assert_close(returned, expected_norm)
        for actual, expected in zip(policy.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(actual.grad, expected.grad)
        clipped = torch.linalg.vector_norm(bucket.flat).item()
        assert clipped == pytest.approx(min(1, factor) * norm, rel=1e-4)


def test_optimizer_keeps_gradients_in_the_bucket() -> None:
    """A step replaces no gradient by a new tensor: the next backward still adds to the bucket."""
    learner = learner_for("probe_discrete")
    learner.gradients.flat.fill_(0.01)
    optimizers.step(learner.optimizer, learner.gradients.flat, lr=1e-3, seed=1, optimizer_step=0)
    begin, end = (
        learner.gradients.flat.data_ptr(),
        learner.gradients.flat.data_ptr() + 4 * learner.gradients.flat.numel(),
    )
    for parameter in learner.policy.parameters():
        assert parameter.grad is not None
        assert begin <= parameter.grad.data_ptr() < end


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_normalized_advantages(dtype: torch.dtype) -> None:
    """Mean 0 and variance 1 over the whole batch; the order and the type stay."""
    advantages = (1000 + 3 * torch.randn(64, 33, generator=torch.Generator().manual_seed(1))).to(dtype)
    scaled = normalize_globally(advantages, connect("cpu", 60))
    assert scaled.dtype == dtype
    assert abs(scaled.double().mean().item()) < 1e-6
    assert scaled.double().var(correction=0).item() == pytest.approx(1, abs=1e-6)
    expected = (advantages.double() - advantages.double().mean()) / advantages.double().std(correction=0)
    torch.testing.assert_close(scaled.double(), expected, rtol=1e-5, atol=1e-5)
    constant = normalize_globally(torch.full((4, 4), 2.5, dtype=dtype), connect("cpu", 60))
    assert constant.eq(0).all()


def test_explained_variance() -> None:
    """1 for perfect values, 0 for constant ones, and otherwise as numpy says; sums of parts add up."""
    generator = torch.Generator().manual_seed(2)
    targets = 5 + 2 * torch.randn(40, 8, generator=generator, dtype=torch.float64)
    values = 0.7 * targets + torch.randn(40, 8, generator=generator, dtype=torch.float64)
    expected = 1 - np.var((targets - values).numpy()) / np.var(targets.numpy())
    assert explained_variance(return_sums(targets, values).tolist()) == pytest.approx(expected, rel=1e-10)
    halves = return_sums(targets[:10], values[:10]) + return_sums(targets[10:], values[10:])
    assert explained_variance(halves.tolist()) == pytest.approx(expected, rel=1e-10)
    assert explained_variance(return_sums(targets, targets).tolist()) == 1
    assert explained_variance(return_sums(targets, targets + 3).tolist()) == pytest.approx(1)
    assert explained_variance(return_sums(targets, torch.zeros_like(targets)).tolist()) == pytest.approx(0, abs=1e-12)
    constant = torch.full((4, 4), 2.0)
    assert explained_variance(return_sums(constant, constant + 1).tolist()) == 0

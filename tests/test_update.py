"""The update: nothing in its loop waits for the device, and an update with a bad gradient leaves no trace."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dist_trainer import minibatch, normalize, optimizers, ppo, update
from dist_trainer.cli import compose_train
from dist_trainer.config import AdaptiveRateConfig, ScheduleConfig
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.normalize import RunningMoments
from dist_trainer.ppo import LOSS_SUMS, estimate_advantages, return_sums
from dist_trainer.rollout import Rollout, take_minibatch
from dist_trainer.schedule import adapt_rate, schedule_factor

MINIBATCHES = 4
OPTIMIZERS = ("muon", "adamw", "psgd_kron")


def learner_for(*overrides: str, env: str = "probe_discrete") -> Learner:
    sizes = ["total_envs=16", "horizon=12", f"ppo.minibatches={MINIBATCHES}", "policy.hidden_size=16"]
    settings = ["env.params.episode_steps=5", "torch_threads=1", "env_threads=1", "device=cpu"]
    return make_learner(compose_train([f"env={env}", *sizes, *settings, *overrides])[0], connect("cpu", 60))


def learned(*overrides: str) -> tuple[Learner, update.Update]:
    learner = learner_for(*overrides)
    return learner, update.learn(learner, learner.collector.collect())


def everything(learner: Learner) -> dict[str, Any]:
    """All that an update changes, and all that a later update depends on."""
    return {
        "policy": {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()},
        "observations": {name: tensor.clone() for name, tensor in learner.observations.state_dict().items()},
        "returns": {name: tensor.clone() for name, tensor in learner.returns.moments.state_dict().items()},
        "optimizer": optimizers.capture(learner.optimizer),
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two trees of tensors and plain values are not the same, bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return [] if same_kind and one.numpy().tobytes() == other.numpy().tobytes() else [path]
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return [found for key in one for found in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, pair in pairs for found in differences(*pair, f"{path}/{index}")]
    return [] if type(one) is type(other) and one == other else [path]


READING_METHODS = ("item", "cpu", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")
READING_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim")


class Reads(TorchDispatchMode):
    """Notes, while `noting`, each call that makes the host wait for a tensor's value: by its Python name, and below."""

    def __init__(self) -> None:
        super().__init__()
        self.noting = False
        self.notes: list[tuple[str, str]] = []  # who, what

    def note(self, what: str) -> None:
        if self.noting:
            self.notes.append((caller(), what))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        indices = args[1] if name in ("index", "index_put", "index_put_") else []
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in READING_OPERATORS or by_mask:
            self.note(name)
        return func(*args, **(kwargs or {}))


def caller() -> str:
    """The innermost of heavyball and dist_trainer that is calling."""
    frame: FrameType | None = sys._getframe()
    while frame:
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if package in ("heavyball", "dist_trainer"):
            return f"{package}: {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "other"


@contextmanager
def reads_noted(patch: pytest.MonkeyPatch) -> Iterator[Reads]:
    reads = Reads()

    def noting(name: str) -> Any:
        plain = getattr(Tensor, name)

        def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.note(name)
            return plain(self, *args, **kwargs)

        return method

    with patch.context() as context:
        for name in READING_METHODS:
            context.setattr(Tensor, name, noting(name))
        with reads:
            yield reads


def reads_in_the_loop(learner: Learner, patch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """From the loss of the first minibatch to the optimizer step of the last, in each epoch of one update."""
    rollout = learner.collector.collect()
    ppo_loss, step = ppo.ppo_loss, optimizers.step
    losses = steps = 0
    with reads_noted(patch) as reads:

        def opening_loss(*args: Any, **kwargs: Any) -> Any:
            nonlocal losses
            losses += 1
            reads.noting = True
            return ppo_loss(*args, **kwargs)

        def closing_step(*args: Any, **kwargs: Any) -> None:
            nonlocal steps
            step(*args, **kwargs)
            steps += 1
            reads.noting = steps % MINIBATCHES != 0

        with patch.context() as context:
            context.setattr(normalize, "_in_main_memory", lambda *tensors: False)  # as on a device
            context.setattr(minibatch, "ppo_loss", opening_loss)
            context.setattr(optimizers, "step", closing_step)
            update.learn(learner, rollout)
    assert losses == steps == learner.config.ppo.update_epochs * MINIBATCHES
    return reads.notes


@pytest.mark.parametrize(
    ("env", "optimizer"),
    [
        ("probe_multi_discrete", "muon"),
        ("probe_continuous", "muon"),
        ("probe_image", "muon"),
        ("probe_masks", "muon"),
        ("probe_continuous", "adamw"),
        ("probe_continuous", "psgd_kron"),
    ],
)
def test_the_loop_never_waits_for_the_device(env: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host reads no tensor between the minibatches: not in the first update, whose optimizer sets itself up, nor
    later. PSGD alone reads its own step counter, within heavyball."""
    learner = learner_for(f"optimizer={optimizer}", "ppo.update_epochs=2", "ppo.value_clip=0.2", env=env)
    for _ in range(2):
        reads = reads_in_the_loop(learner, monkeypatch)
        if optimizer == "psgd_kron":
            reads = [(who, what) for who, what in reads if not who.startswith("heavyball")]
        assert not reads


def test_reads_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: every way to make the host wait is noted."""
    x = torch.tensor([1.0, -2.0])
    ways = {
        "item": lambda: x[0].item(),
        "cpu": lambda: x.cpu(),
        "tolist": lambda: x.tolist(),
        "numpy": lambda: x.numpy(),
        "nonzero": lambda: x.nonzero(),
        "__bool__": lambda: bool(x[0] > 0),
        "__float__": lambda: float(x[0]),
        "__index__": lambda: [0, 1][x[0].to(torch.int64)],
        "index": lambda: x[x > 0],
        "equal": lambda: torch.equal(x, x),
        "masked_select": lambda: torch.masked_select(x, x > 0),
    }
    with reads_noted(monkeypatch) as reads:
        reads.noting = True
        for name, way in ways.items():
            reads.notes.clear()
            way()
            assert name in [what for _, what in reads.notes]
        reads.notes.clear()
        _ = (x * 2 + x.sum()).clamp(min=0).index_select(0, torch.tensor([1, 0]))
        assert not reads.notes


def spoil(rollout: Rollout, what: str) -> None:
    """A single bad number, in the middle of the rollout."""
    tensor: Tensor = getattr(rollout, what)
    tensor[(6, 5, *[0] * (tensor.dim() - 2))] = float("inf") if what == "rewards" else float("nan")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("what", ["rewards", "log_probs", "observations", "values"])
def test_a_bad_gradient_undoes_the_whole_update(what: str, optimizer: str) -> None:
    """Weights, optimizer and normalizers are bit for bit what they were, in the first update and in a later one, and
    the next update is the one that a learner makes that never met the bad number."""
    learner, twin = (learner_for(f"optimizer={optimizer}") for _ in range(2))
    for iteration in range(2):
        rollouts = [each.collector.collect() for each in (learner, twin)]
        before = everything(learner)
        good = getattr(rollouts[0], what).clone()
        spoil(rollouts[0], what)
        optimizer_step = learner.optimizer_step
        assert update.learn(learner, rollouts[0]).undone
        assert differences(everything(learner), before) == []
        getattr(rollouts[0], what).copy_(good)
        learner.optimizer_step = optimizer_step  # the key of the optimizer's random numbers
        # The environments' own running returns have moved on in the undone update, and are finite whatever came.
        assert learner.returns.running.isfinite().all()
        learner.returns.running.copy_(twin.returns.running)
        results = [update.learn(each, rollout) for each, rollout in zip((learner, twin), rollouts, strict=True)]
        assert not any(result.undone for result in results)
        assert differences(everything(learner), everything(twin)) == []
        assert differences(everything(learner), before) != [], iteration


def test_weights_that_a_finite_gradient_ruins_are_undone_too() -> None:
    """A rate far too high: the very first update overflows, and is undone although every gradient was finite."""
    learner = learner_for("optimizer=adamw", "optimizer.lr=1e39", "ppo.minibatches=1", "schedule.kind=constant")
    before = everything(learner)
    assert update.learn(learner, learner.collector.collect()).undone
    assert differences(everything(learner), before) == []


def test_a_good_update_changes_everything() -> None:
    """Every weight, the optimizer and both normalizers: the comparison above sees them."""
    learner = learner_for()
    before = everything(learner)
    result = update.learn(learner, learner.collector.collect())
    assert not result.undone
    changed = differences(everything(learner), before)
    for name, _ in learner.policy.named_parameters():
        assert f"/policy/{name}" in changed
    assert {"/observations/moments.mean", "/returns/mean"} <= set(changed)
    assert any(path.startswith("/optimizer/units/") for path in changed)


def test_observations_are_normalized_as_when_acting() -> None:
    """The statistics change only after the last optimizer step."""
    learner = learner_for()
    moments = learner.observations.moments
    assert moments is not None
    expected = RunningMoments(tuple(moments.mean.shape), torch.device("cpu"))
    for _ in range(2):
        rollout = learner.collector.collect()
        before = everything(learner)["observations"]
        with pytest.MonkeyPatch.context() as patch:
            step = optimizers.step

            def unchanged_step(*args: Any, step: Any = step, before: Any = before, **kwargs: Any) -> None:
                assert differences(everything(learner)["observations"], before) == []
                step(*args, **kwargs)

            patch.setattr(optimizers, "step", unchanged_step)
            update.learn(learner, rollout)
        expected.update(rollout.observations, learner.world)
        assert differences(dict(moments.state_dict()), dict(expected.state_dict())) == []


def test_what_an_update_reports() -> None:
    """Sums over all samples of all epochs, the rate by the schedule, the gradient norms before clipping."""
    learner = learner_for("ppo.update_epochs=3", "schedule.kind=linear", "total_env_steps=1920", "optimizer.lr=0.002")
    learner.iteration = 4  # of 10
    rollout = learner.collector.collect()
    result = update.learn(learner, rollout)
    sums = dict(zip(LOSS_SUMS, result.sums[: len(LOSS_SUMS)].tolist(), strict=True))
    assert sums["samples"] == 3 * 16 * 12
    assert sums["approx_kl"] >= 0
    assert 0 <= sums["clip_fraction"] <= sums["samples"]
    _, targets = estimate_advantages(learner.config.ppo, rollout, learner.returns(rollout.rewards), None)
    assert torch.equal(result.sums[len(LOSS_SUMS) :], return_sums(targets, rollout.values))
    assert result.lr == pytest.approx(0.6 * 0.002)
    assert result.grad_norm > 0
    assert learner.optimizer_step == 3 * MINIBATCHES


@pytest.mark.parametrize("env", ["probe_discrete", "probe_multi_discrete"])
def test_minibatch_gradients_average_to_that_of_the_whole_batch(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate of 0: rewards are scaled with today's returns included, advantages over the whole batch, and every
    sample counts once in each epoch."""
    settings = ["dtype=float64", "optimizer=adamw", "optimizer.lr=0", "ppo.max_grad_norm=1e9", "ppo.update_epochs=2"]
    learner, twin = (learner_for(*settings, env=env) for _ in range(2))
    gradients: list[Tensor] = []
    step = optimizers.step

    def noting_step(*args: Any, **kwargs: Any) -> None:
        gradients.append(learner.gradients.flat.clone())
        step(*args, **kwargs)

    for _ in range(2):
        gradients.clear()
        with monkeypatch.context() as patch:
            patch.setattr(optimizers, "step", noting_step)
            update.learn(learner, learner.collector.collect())
        rollout = twin.collector.collect()
        twin.returns.update(rollout.rewards, rollout.done, twin.world)
        advantages, targets = estimate_advantages(twin.config.ppo, rollout, twin.returns(rollout.rewards), None)
        scaled = (advantages - advantages.mean()) / advantages.std(correction=0)
        rows = torch.arange(twin.pool.rows)
        batch = take_minibatch(rollout, scaled, targets, rows, int(rollout.done_counts.max()))
        twin.gradients.zero()
        ppo.ppo_loss(twin.policy, twin.observations, batch, twin.config.ppo, scaled.numel())[0].backward()
        twin.observations.update(rollout.observations, twin.world)
        assert len(gradients) == 2 * MINIBATCHES
        assert not torch.allclose(gradients[0], gradients[MINIBATCHES])  # the epochs are cut differently
        for epoch in (gradients[:MINIBATCHES], gradients[MINIBATCHES:]):
            average = torch.stack(epoch).mean(0)
            torch.testing.assert_close(average, twin.gradients.flat, rtol=1e-6, atol=1e-9)


def test_gradients_are_clipped() -> None:
    """The fraction of clipped steps; a rate of 0 keeps the weights, so that the norms are those of the first policy."""
    norms = []
    for limit, fraction in ((1e6, 0.0), (1e-6, 1.0)):
        learner, result = learned("optimizer.lr=0", f"ppo.max_grad_norm={limit}")
        assert result.clipped_steps == fraction
        norms.append(result.grad_norm)
        left = torch.linalg.vector_norm(learner.gradients.flat).item()
        assert left <= limit * 1.001
    assert norms[0] == norms[1]


def test_target_kl_stops_later_epochs() -> None:
    """Never the first; a target that is not exceeded changes nothing."""
    epochs = {}
    results = {}
    for target in ("null", "1e9", "1e-9"):
        learner, result = learned("ppo.update_epochs=4", f"ppo.target_kl={target}", "optimizer.lr=0.02")
        epochs[target] = learner.optimizer_step / MINIBATCHES
        results[target] = everything(learner)
        assert result.sums[LOSS_SUMS.index("samples")] == epochs[target] * 16 * 12
    assert epochs == {"null": 4, "1e9": 4, "1e-9": 1}
    assert differences(results["null"], results["1e9"]) == []
    once, _ = learned("ppo.update_epochs=1", "optimizer.lr=0.02")
    assert differences(results["1e-9"]["policy"], everything(once)["policy"]) == []


def test_vtrace_corrects_from_the_second_epoch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first epoch V-trace is GAE; later it sees the ratio of today's policy to the one that acted."""
    policies = {}
    for advantage in ("gae", "vtrace"):
        for epochs in (1, 2):
            learner, result = learned(f"ppo.advantage={advantage}", f"ppo.update_epochs={epochs}", "optimizer.lr=0.02")
            assert not result.undone
            policies[advantage, epochs] = everything(learner)["policy"]
    assert differences(policies["gae", 1], policies["vtrace", 1]) == []
    assert len(differences(policies["gae", 2], policies["vtrace", 2])) == len(policies["gae", 2])

    seen: list[Tensor | None] = []

    def seeing(config: Any, rollout: Rollout, rewards: Tensor, log_ratio: Tensor | None) -> tuple[Tensor, Tensor]:
        seen.append(log_ratio)
        return estimate_advantages(config, rollout, rewards, log_ratio)

    monkeypatch.setattr(update, "estimate_advantages", seeing)
    learned("ppo.advantage=vtrace", "ppo.update_epochs=3", "optimizer.lr=0.02")
    assert seen[0] is None
    ratios = [ratio for ratio in seen[1:] if ratio is not None]
    assert len(ratios) == 2
    assert ratios[0].abs().max() > 1e-3
    assert not torch.equal(ratios[0], ratios[1])


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0.0, {0: 1, 0.5: 1, 1: 1}),
        ("linear", 0.0, {0: 1, 0.25: 0.75, 0.5: 0.5, 1: 0}),
        ("cosine", 0.0, {0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1: 0}),
        ("constant", 0.2, {0: 0, 0.1: 0.5, 0.2: 1, 1: 1}),
        ("linear", 0.2, {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        ("cosine", 0.5, {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
        ("linear", 1.0, {0: 0, 0.5: 0.5, 1: 1}),
    ],
)
def test_schedule(kind: str, warmup: float, expected: dict[float, float]) -> None:
    """The factor at the start, at the end and in between."""
    config = ScheduleConfig(kind=kind, warmup=warmup)
    factors = {progress: schedule_factor(config, progress) for progress in expected}
    assert factors == pytest.approx(expected, abs=1e-5 if warmup else 1e-12)
    assert warmup == 0 or factors[0] > 0  # at a rate of 0 schedule-free averaging divides 0 by 0


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.021, 1 / 1.5), (0.02, 1.0), (0.01, 1.0), (0.005, 1.0), (0.0049, 1.5), (0.0, 1.5), (math.nan, 1 / 1.5)],
)
def test_adaptive_rate(kl: float, expected: float) -> None:
    """Unchanged between half and twice the target; a small change speeds up, a large one or an undone update slows."""
    assert adapt_rate(1.0, kl, AdaptiveRateConfig(target_kl=0.01)) == pytest.approx(expected)
    assert adapt_rate(1.0, kl, AdaptiveRateConfig()) == 1.0


def test_adaptive_rate_stays_within_its_bounds() -> None:
    config = AdaptiveRateConfig(target_kl=0.01, step=2.0, smallest=0.1, largest=4.0)
    up = [factor := 1.0] + [factor := adapt_rate(factor, 0.0, config) for _ in range(4)]
    assert up == [1, 2, 4, 4, 4]
    down = [factor := 1.0] + [factor := adapt_rate(factor, 1.0, config) for _ in range(5)]
    assert down == pytest.approx([1, 0.5, 0.25, 0.125, 0.1, 0.1])


def test_the_adaptive_rate_is_the_rate_of_the_update() -> None:
    learner = learner_for("optimizer.lr=0.002", "schedule.kind=constant")
    learner.rate_factor = 0.25
    assert update.learn(learner, learner.collector.collect()).lr == pytest.approx(0.0005)

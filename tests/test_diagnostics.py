"""Diagnostics: against dense matrices, brute force and known distributions; and training does not notice them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from heavyball import utils
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from dist_trainer import diagnostics, optimizers, trainer, update
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.diagnostics import Watch, low_rank_extremes, preconditioners, signal_and_noise
from dist_trainer.distributed import World, connect
from dist_trainer.learner import Learner, make_learner, replicated_tensors
from dist_trainer.optimizers.units import Unit
from tests.learners import Learners, learners_of_sizes
from tests.test_newton import learn
from tests.test_update import differences, everything, reads_in_the_loop, spoil

ENVS, HORIZON, MINIBATCHES = 16, 12, 4
BATCH = ENVS * HORIZON // MINIBATCHES  # samples of a minibatch
NOISE = {"gradient_signal", "gradient_noise", "noise_scale"}


@pytest.fixture(scope="module")
def two() -> Iterator[Learners]:
    with learners_of_sizes([2]) as by_size:
        yield by_size[2]


def config_for(*overrides: str) -> TrainConfig:
    sizes = [f"total_envs={ENVS}", f"horizon={HORIZON}", f"ppo.minibatches={MINIBATCHES}", "policy.hidden_size=8"]
    settings = ["env=probe_discrete", "env.params.episode_steps=5", "torch_threads=1", "env_threads=1", "device=cpu"]
    return compose_train([*sizes, *settings, "policy=lstm", "diagnostics_every=1", *overrides])[0]


def learner_for(*overrides: str) -> Learner:
    return make_learner(config_for(*overrides), connect("cpu", 60))


def trained(*overrides: str, iterations: int = 3) -> Learner:
    learner = learner_for("diagnostics_every=0", "optimizer.lr=0.01", *overrides)
    for _ in range(iterations):
        assert not learn(learner).undone
    return learner


# --- the noise of the gradient


def test_signal_and_noise_of_a_known_distribution() -> None:
    """Means over 20000 pairs of a small batch and a big one, of samples with a known mean and covariance."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    root = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, -0.3], [0.0, 0.0, 0.7]], dtype=torch.float64)  # covariance R R^T
    parts, size = 4, 5
    draws = torch.randn(20000, parts, size, 3, generator=generator, dtype=torch.float64) @ root.T + mean
    small = draws.mean(2).square().sum(-1).mean().item()
    big = draws.mean((1, 2)).square().sum(-1).mean().item()
    signal, noise = signal_and_noise(small, big, size, size * parts)
    assert signal == pytest.approx(mean.square().sum().item(), rel=0.05)
    assert noise == pytest.approx((root @ root.T).trace().item(), rel=0.02)


def test_signal_and_noise_invert_the_expectations() -> None:
    """E|g|^2 = |G|^2 + trace / samples, for both sizes."""
    assert signal_and_noise(0.25 + 7 / 8, 0.25 + 7 / 64, 8, 64) == pytest.approx((0.25, 7.0))


def gradients_of(learner: Learner) -> tuple[list[Tensor], list[Tensor], dict[str, float]]:
    """This learner's own gradients and the reduced ones of every minibatch of an update, and its diagnostics."""
    own: list[Tensor] = []
    reduced: list[Tensor] = []
    reduce = learner.gradients.reduce

    def noting_reduce(world: World, _: None) -> Tensor:
        own.append(learner.gradients.flat.double())
        gradient = reduce(world)
        reduced.append(gradient.double())
        return gradient

    with mock.patch.object(learner.gradients, "reduce", noting_reduce):
        result = learn(learner)
    return own, reduced, result.diagnostics


def expect_noise(found: dict[str, float], small: float, big: float, small_size: int, big_size: int) -> None:
    """The formula of the paper, written out for |G|^2 and the trace."""
    signal = (big_size * big - small_size * small) / (big_size - small_size)
    trace = (small - big) / (1 / small_size - 1 / big_size)
    assert found["gradient_signal"] == pytest.approx(signal)
    assert found["gradient_noise"] == pytest.approx(trace)
    assert ("noise_scale" in found) == (signal > 0)
    if signal > 0:
        assert found["noise_scale"] == pytest.approx(trace / signal)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_learner_compares_minibatches_with_the_epoch(optimizer: str) -> None:
    """Before MARS and the clip, which change every gradient here."""
    changed = ["optimizer.mars=true", "ppo.max_grad_norm=0.01"]
    learner = learner_for("ppo.update_epochs=2", f"optimizer={optimizer}", *changed)
    for _ in range(2):
        _, gradients, found = gradients_of(learner)
        assert len(gradients) == 2 * MINIBATCHES
        small = sum(g.square().sum().item() for g in gradients) / len(gradients)
        epochs = [torch.stack(gradients[:MINIBATCHES]).mean(0), torch.stack(gradients[MINIBATCHES:]).mean(0)]
        big = sum(g.square().sum().item() for g in epochs) / 2
        expect_noise(found, small, big, BATCH, BATCH * MINIBATCHES)


def gradients_of_two(world: World, *overrides: str) -> tuple[list[Tensor], list[Tensor], dict[str, float]]:
    return gradients_of(make_learner(config_for(*overrides), world))


@pytest.mark.parametrize("minibatches", [1, 4])
def test_many_learners_compare_their_parts_with_the_whole(two: Learners, minibatches: int) -> None:
    overrides = [f"ppo.minibatches={minibatches}", "ppo.update_epochs=2"]
    (one, reduced, found), (other, same, nothing) = two.run(gradients_of_two, *overrides)
    assert len(one) == len(other) == 2 * minibatches
    assert nothing == {}
    small = big = 0.0
    for mine, theirs, whole, again in zip(one, other, reduced, same, strict=True):
        assert torch.equal(whole, again)
        torch.testing.assert_close(mine + theirs, whole, rtol=1e-5, atol=1e-7)
        small += ((2 * mine).square().sum() + (2 * theirs).square().sum()).item() / 2
        big += whole.square().sum().item()
    samples = ENVS * HORIZON // minibatches
    expect_noise(found, small / len(one), big / len(one), samples // 2, samples)


def watch_gradients(gradients: Tensor, *overrides: str) -> dict[str, float]:
    """What is read after steps of nothing with these gradients (M, N)."""
    watch = Watch(learner_for("optimizer=adamw", *overrides), BATCH)
    for gradient in gradients:
        watch.own_gradient(gradient)
        watch.before_step(gradient)
        watch.after_step()
    return watch.read()


def test_a_signal_that_is_not_positive_has_no_noise_scale() -> None:
    """Minibatches that cancel each other: the estimate of |G|^2 is negative."""
    size = sum(weight.numel() for weight in learner_for("optimizer=adamw").policy.parameters())
    ones = torch.ones(size)
    found = watch_gradients(torch.stack([ones, -ones, ones, -ones]))
    assert found.keys() & NOISE == {"gradient_signal", "gradient_noise"}
    assert found["gradient_signal"] == pytest.approx(-size / 3)
    assert found["gradient_noise"] == pytest.approx(size * BATCH * 4 / 3)
    found = watch_gradients(torch.stack([ones, ones, ones, ones]))
    assert found["noise_scale"] == pytest.approx(0, abs=1e-9)
    # One batch alone cannot be compared.
    assert not watch_gradients(ones[None], "ppo.minibatches=1").keys() & NOISE


# --- the sizes of the steps


def test_update_ratio_is_that_of_copies() -> None:
    learner = learner_for("ppo.update_epochs=2", "optimizer.lr=0.01")
    ratios: dict[str, list[float]] = {}
    step = optimizers.step

    def noting_step(*args: Any, **kwargs: Any) -> None:
        before = {name: weight.detach().clone() for name, weight in learner.policy.named_parameters()}
        step(*args, **kwargs)
        for name, weight in learner.policy.named_parameters():
            size = before[name].norm().item()
            if size > 0:  # biases start at zero
                ratios.setdefault(name, []).append((weight - before[name]).norm().item() / size)

    with mock.patch.object(optimizers, "step", noting_step):
        found = learn(learner).diagnostics
    names = {name for name, _ in learner.policy.named_parameters()}
    assert {name.removeprefix("update_ratio/") for name in found if name.startswith("update_ratio/")} == names
    counts = {len(values) for values in ratios.values()}
    assert counts == {2 * MINIBATCHES - 1, 2 * MINIBATCHES}
    for name, values in ratios.items():
        assert found[f"update_ratio/{name}"] == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert found[f"update_ratio/{name}"] > 1e-4


def test_weights_that_stay_zero_have_no_ratio() -> None:
    learner = learner_for("optimizer=adamw", "optimizer.lr=0")
    found = learn(learner).diagnostics
    for name, weight in learner.policy.named_parameters():
        assert found.get(f"update_ratio/{name}") == (0.0 if weight.any() else None)


# --- preconditioners


def state_of(unit: Unit, kind: str) -> Any:
    """The one piece of heavyball's state of this kind, of a unit of one weight."""
    (views,) = unit.inner.state.values()
    (found,) = (state for view in views.values() for name, state in view.items() if re.search(f"_{kind}_[0-9]+$", name))
    return found


def extremes(unit_name: str, found: dict[str, float]) -> tuple[float, float]:
    return found[f"precond_norm/{unit_name}"], found[f"precond_condition/{unit_name}"]


def expect_matrix(matrix: Tensor, found: tuple[float, float], rel: float) -> None:
    """Norm and condition number by singular values of the dense matrix."""
    singular = torch.linalg.svdvals(matrix)
    assert found == pytest.approx((singular[0].item(), (singular[0] / singular[-1]).item()), rel=rel)


@pytest.mark.parametrize("side", [2048, 6])  # triangular factors only; diagonal ones for sides above 6
@pytest.mark.parametrize("optimizer", ["psgd_kron", "psgd_pro", "lather", "newton_psgd"])
def test_kronecker_factors_are_those_of_the_dense_matrix(optimizer: str, side: int) -> None:
    """The dense P: what heavyball makes of each column of the identity, and torch.kron of the factors."""
    learner = trained(f"optimizer={optimizer}", f"optimizer.max_size_triangular={side}")
    found = preconditioners(learner.optimizer.units)
    assert len(found) == 2 * len(learner.optimizer.units)
    for unit in learner.optimizer.units:
        stored = state_of(unit, "Q")
        factors = utils.line_to_triu(stored) if isinstance(stored[0], tuple) else stored
        shape = [k for k in unit.weights[0].shape if k > 1]  # heavyball drops the others
        size = math.prod(shape)
        dense = torch.stack(
            [
                utils.psgd_precond_grad(column.reshape(1, *shape).double(), [q.double() for q in factors]).flatten()
                for column in torch.eye(size)
            ]
        )
        product = torch.ones(1, 1, dtype=torch.float64)
        for q in factors:
            own = q[0].double() if q.dim() == 3 else torch.diag(q.double().flatten())
            product = torch.kron(product, own.T @ own)
        torch.testing.assert_close(dense, product, rtol=1e-5, atol=1e-9)
        expect_matrix(product, extremes(unit.name, found), rel=1e-6)
        assert [q.dim() for q in factors] == [3 if len(shape) > 1 and k <= side else 2 for k in shape] or not shape
    conditions = [value for name, value in found.items() if name.startswith("precond_condition/")]
    assert max(conditions) > 1.1  # something was fitted


def test_soap_factors_have_a_floor() -> None:
    learner = trained("optimizer=soap", iterations=6)
    found = preconditioners(learner.optimizer.units)
    matrices = [unit for unit in learner.optimizer.units if any(gram is not None for gram in state_of(unit, "GG"))]
    assert {f"precond_norm/{unit.name}" for unit in matrices} == {name for name in found if "_norm/" in name}
    assert all(unit.weights[0].dim() == 2 for unit in matrices)
    floors = 0
    for unit in matrices:
        product = torch.ones(1, 1, dtype=torch.float64)
        for gram in state_of(unit, "GG"):
            if gram is not None:
                values, basis = torch.linalg.eigh(gram[0].double())
                floors += int(values[0] < 2**-23 * values[-1])
                floored = basis @ torch.diag(values.clamp(min=2**-23 * values[-1].item())) @ basis.T
                product = torch.kron(product, floored)
        expect_matrix(product, extremes(unit.name, found), rel=1e-3)
    assert floors > 0


@pytest.mark.parametrize("optimizer", ["psgd_lra", "newton_lra"])
def test_low_rank_is_that_of_the_dense_matrix(optimizer: str) -> None:
    """The dense P over all weights: what heavyball makes of each column of the identity."""
    learner = trained(f"optimizer={optimizer}", "optimizer.rank=3", "policy.hidden_size=4", "optimizer.precond_lr=1")
    (unit,) = learner.optimizer.units
    states = [unit.inner.state[weight][0] for weight in unit.weights]
    u, v = (torch.cat([s[f"scale_by_delayed_psgd_lra_{n}_3"].reshape(-1, 3) for s in states]).double() for n in "UV")
    d = torch.cat([s["scale_by_delayed_psgd_lra_d_3"].flatten() for s in states]).double()
    dense = torch.stack([utils.lra_precond(u, v, d, column.double()) for column in torch.eye(len(d))])
    found = preconditioners([unit])
    assert list(found) == ["precond_norm/all", "precond_condition/all"]
    assert found["precond_condition/all"] > 1.5
    expect_matrix(dense, extremes("all", found), rel=2e-3)


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 3.0])
@pytest.mark.parametrize(
    ("size", "rank", "spread"), [(50, 4, 3.0), (50, 1, 0.0), (5, 4, 1.0), (2, 1, 1.0), (1, 1, 1.0)]
)
def test_extremes_of_low_rank_matrices(size: int, rank: int, spread: float, scale: float) -> None:
    """Diagonals that are all equal or spread widely, products that shrink as well as grow, few rows for the rank."""
    generator = torch.Generator().manual_seed(size + rank)
    u, v = (scale * torch.randn(size, rank, generator=generator, dtype=torch.float64) for _ in range(2))
    d = (spread * torch.randn(size, generator=generator, dtype=torch.float64)).exp()
    d[::2] *= -1
    q = (torch.eye(size, dtype=torch.float64) + u @ v.T) * d
    singular = torch.linalg.svdvals(q).square()
    largest, smallest = low_rank_extremes(d, u, v, tolerance=1e-6)
    assert largest.item() == pytest.approx(singular[0].item(), rel=1e-5)
    assert smallest.item() == pytest.approx(singular[-1].item(), rel=1e-5)


def test_extremes_of_a_singular_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(20, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    d = torch.randn(20, generator=generator, dtype=torch.float64)
    d[3] = 0
    singular = torch.linalg.svdvals((torch.eye(20, dtype=torch.float64) + u @ v.T) * d).square()
    largest, smallest = low_rank_extremes(d, u, v, tolerance=1e-6)
    assert largest.item() == pytest.approx(singular[0].item(), rel=1e-5)
    assert 0 < smallest.item() < 1e-25


def test_several_products_in_a_unit_are_blocks() -> None:
    """heavyball stacks weights of one shape: all are in the state of the first."""
    generator = torch.Generator().manual_seed(0)
    policy = nn.ModuleList([nn.Linear(3, 4, bias=False) for _ in range(3)])
    config = {"_target_": "heavyball.PSGDKron", "lr": 0.01, "preconditioner_update_probability": 1.0}
    optimizer = optimizers.make_optimizer(config | {"precond_init_scale": 1.0}, policy)
    for step in range(20):
        gradient = torch.randn(36, generator=generator) * torch.tensor([1.0, 5.0, 0.2]).repeat_interleave(12)
        optimizers.step(optimizer, gradient, lr=0.01, seed=0, optimizer_step=step)
    (unit,) = optimizer.units
    blocks = []
    for weight in unit.weights:
        for view in unit.inner.state[weight].values():
            for stored in (value for name, value in view.items() if name.endswith("_Q_4")):
                first, second = (q.double() for q in utils.line_to_triu(stored))
                pairs = zip(first, second, strict=True)
                blocks += [torch.kron(a.T @ a, b.T @ b) for a, b in pairs]
    assert len(blocks) == 3
    expect_matrix(torch.block_diag(*blocks), extremes(unit.name, preconditioners([unit])), rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "adopt", "laprop"])
def test_methods_without_matrices_have_no_preconditioners(optimizer: str) -> None:
    assert preconditioners(trained(f"optimizer={optimizer}", iterations=1).optimizer.units) == {}


@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap", "psgd_lra"])
def test_state_that_is_not_finite_is_left_out(optimizer: str) -> None:
    """And no decomposition fails on it."""
    learner = trained(f"optimizer={optimizer}", iterations=1)
    name = learner.optimizer.units[0].name
    assert f"precond_norm/{name}" in preconditioners(learner.optimizer.units)
    for tensor in optimizers.named_tensors(learner.optimizer).values():
        if tensor.is_floating_point() and tensor.dim():
            tensor.view(-1)[0] = math.nan
    assert preconditioners(learner.optimizer.units) == {}


# --- training does not notice


@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap", "psgd_lra", "newton_psgd"])
def test_weights_are_the_same_with_and_without(optimizer: str) -> None:
    ends = []
    for every in (0, 2):
        learner = learner_for(f"optimizer={optimizer}", f"diagnostics_every={every}", "ppo.update_epochs=2")
        logged = [bool(learn(learner).diagnostics) for _ in range(3)]
        assert logged == [False, every > 0, False]
        ends.append(everything(learner))
    assert differences(ends[0], ends[1]) == []


def end_of_run(world: World, *overrides: str) -> tuple[dict[str, Tensor], list[bool]]:
    learner = make_learner(config_for(*overrides), world)
    logged = [bool(learn(learner).diagnostics) for _ in range(3)]
    return {name: tensor.clone() for name, tensor in replicated_tensors(learner).items()}, logged


@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap"])
def test_weights_of_two_learners_are_the_same_with_and_without(two: Learners, optimizer: str) -> None:
    runs = [two.run(end_of_run, f"optimizer={optimizer}", f"diagnostics_every={every}") for every in (0, 2)]
    for off, on in zip(*runs, strict=True):
        assert differences(off[0], on[0]) == []
        assert not any(off[1])
    assert [logged for _, logged in runs[1]] == [[False, True, False], [False, False, False]]


def diagnostics_of_run(world: World, *overrides: str) -> dict[str, float]:
    return learn(make_learner(config_for(*overrides), world)).diagnostics


@pytest.mark.parametrize("optimizer", ["psgd_kron", "muon"])
def test_sharded_learners_report_the_preconditioners_of_all(two: Learners, optimizer: str) -> None:
    reports = []
    for more in ("sync=replicated", "sync=sharded", "sync=sharded optimizer.shard_group=1"):
        first, second = two.run(diagnostics_of_run, f"optimizer={optimizer}", *f"optimizer.{more}".split())
        assert second == {}
        reports.append(first)
    assert reports[0] == reports[1] == reports[2]
    assert any("precond_norm" in name for name in reports[0]) == (optimizer == "psgd_kron")


def test_nothing_is_done_in_an_iteration_without_them() -> None:
    learner = learner_for("diagnostics_every=2", "optimizer=psgd_kron")
    with mock.patch.object(update, "Watch") as watch, mock.patch.object(diagnostics, "preconditioners") as matrices:
        watch.return_value.read.return_value = {"x": 1.0}
        assert learn(learner).diagnostics == {}
        assert not watch.called
        assert learn(learner).diagnostics == {"x": 1.0}  # the same, where due
        hooks = (watch.return_value.own_gradient, watch.return_value.before_step, watch.return_value.after_step)
        assert [hook.call_count for hook in hooks] == [MINIBATCHES] * 3
        assert not matrices.called


@pytest.mark.parametrize("optimizer", ["muon", "psgd_kron"])
def test_the_loop_does_not_wait_for_the_device_when_due(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_for(f"optimizer={optimizer}", "ppo.update_epochs=2")
    watched = mock.patch.object(update, "Watch", side_effect=Watch)
    for _ in range(2):
        with watched as made:
            reads = reads_in_the_loop(learner, monkeypatch)
        assert made.called
        assert [read for read in reads if not read[0].startswith("heavyball")] == []


def test_an_undone_update_has_no_diagnostics() -> None:
    learner = learner_for()
    rollout = learner.collector.collect()
    spoil(rollout, "rewards")
    result = update.learn(learner, rollout)
    assert result.undone and result.diagnostics == {}


# --- TensorBoard


def curves(run_dir: Path) -> dict[str, dict[int, float]]:
    accumulator = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in tags}


def run(tmp_path: Path, *overrides: str) -> tuple[dict[str, dict[int, float]], Learner]:
    made: list[Learner] = []

    def noting_make(config: TrainConfig, world: World) -> Learner:
        made.append(make_learner(config, world))
        return made[0]

    config = config_for(f"total_env_steps={7 * ENVS * HORIZON}", *overrides)
    with mock.patch.object(trainer, "make_learner", noting_make):
        trainer.train(config, connect("cpu", 60), tmp_path, None)
    return curves(tmp_path), made[0]


@pytest.mark.parametrize("log_every", [1, 2])
def test_diagnostics_are_in_tensorboard_when_due(tmp_path: Path, log_every: int) -> None:
    """Whatever log_every is; the other tags as before."""
    tags, learner = run(tmp_path, "diagnostics_every=3", f"log_every={log_every}", "optimizer=psgd_kron")
    due = {3 * ENVS * HORIZON, 6 * ENVS * HORIZON}
    expected = {"gradient_signal", "gradient_noise"}
    expected |= {f"update_ratio/{name}" for name, _ in learner.policy.named_parameters()}
    for unit in learner.optimizer.units:
        expected |= {f"precond_norm/{unit.name}", f"precond_condition/{unit.name}"}
    found = {tag.removeprefix("diagnostics/") for tag in tags if tag.startswith("diagnostics/")}
    assert found - {"noise_scale"} == expected
    for tag, points in tags.items():
        if tag.startswith("diagnostics/"):
            assert set(points) <= due if tag.endswith("noise_scale") else set(points) == due, tag
            assert all(map(math.isfinite, points.values()))
    logged = {1: range(1, 8), 2: (2, 4, 6, 7)}[log_every]
    assert list(tags["losses/policy"]) == [iteration * ENVS * HORIZON for iteration in logged]
    assert not {"optimizer/estimated_d", "optimizer/rate_factor"} & tags.keys()


def test_rates_are_in_tensorboard_at_every_iteration(tmp_path: Path) -> None:
    """The estimate as it is after the update, and the factor that the update has used."""
    estimate = ["optimizer=psgd_kron", "optimizer.lr=1", "optimizer.rate_estimate=prodigy"]
    adaptive = ["adaptive_rate.target_kl=0.01", "schedule.kind=constant", "diagnostics_every=0"]
    tags, learner = run(tmp_path, *estimate, *adaptive)
    assert not [tag for tag in tags if tag.startswith("diagnostics/")]
    steps = [iteration * ENVS * HORIZON for iteration in range(1, 8)]
    estimated, factors = tags["optimizer/estimated_d"], tags["optimizer/rate_factor"]
    assert list(estimated) == list(factors) == steps
    assert learner.optimizer.rate
    assert estimated[steps[-1]] == pytest.approx(learner.optimizer.rate.d.item())
    assert list(factors.values()) == pytest.approx(list(tags["optimizer/learning_rate"].values()))
    assert factors[steps[0]] == 1
    assert len(set(factors.values())) > 1

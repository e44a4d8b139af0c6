"""Newton-PSGD: the products are right, each is used once by the fit it was made for, and nothing else changes."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from heavyball import utils
from torch import Tensor, nn

from dist_trainer import curvature, minibatch, optimizers, ppo, update
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import config_dir
from dist_trainer.distributed import World, connect
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, replicated_tensors
from dist_trainer.optimizers import newton
from dist_trainer.optimizers.newton import EPSILON, Newton, finite_difference_product
from tests.learners import Learners, learners_of_sizes
from tests.test_update import differences, everything

FILES = sorted((config_dir() / "optimizer").glob("newton_*.yaml"))
NAMES = [path.stem for path in FILES]
NEWTON_PSGD = config_dir() / "optimizer" / "newton_psgd.yaml"
MINIBATCHES = 4
FACTOR = re.compile("_(Q|U|V|d)_[0-9]")  # of a preconditioner, in the name of a tensor of heavyball's state


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([2]) as by_size:
        yield by_size


def config_for(*overrides: str) -> TrainConfig:
    sizes = ["total_envs=32", "horizon=12", f"ppo.minibatches={MINIBATCHES}", "policy.hidden_size=16", "policy=lstm"]
    settings = ["env=probe_discrete", "env.params.episode_steps=5", "torch_threads=1", "env_threads=1", "device=cpu"]
    return compose_train([*sizes, *settings, "optimizer=newton_psgd", *overrides])[0]


def learner_for(*overrides: str) -> Learner:
    return make_learner(config_for(*overrides), connect("cpu", 60))


def learn(learner: Learner) -> update.Update:
    result = update.learn(learner, learner.collector.collect())
    learner.iteration += 1
    return result


# --- a quadratic


def spd(size: int, condition: float, generator: torch.Generator) -> Tensor:
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
    return basis @ torch.diag(torch.logspace(0, -math.log10(condition), size)) @ basis.T


def preconditioned_eigenvalues(newton: bool, fits: int) -> Tensor:
    """Of P H after so many steps of PSGDKron; H = A (x) B has condition 1e4."""
    generator = torch.Generator().manual_seed(0)
    left, right = spd(10, 100.0, generator), spd(12, 100.0, generator)
    layer = nn.Linear(12, 10, bias=False)
    weight = layer.weight
    nn.init.normal_(weight, generator=generator)
    config = {"_target_": "heavyball.PSGDKron", "lr": 0.01, "preconditioner_update_probability": 1.0}
    if newton:
        settings = {"newton_every": 1, "newton_product": "central", "newton_precision": "float32"}
        config |= {"precond_init_scale_power": 1.0, "newton_sub_batch": 1} | settings
    optimizer = optimizers.make_optimizer(config, layer)

    def gradient() -> Tensor:
        return (left @ weight.detach() @ right).flatten()

    for step in range(fits):
        flat = gradient()
        if optimizer.newton:
            pair = finite_difference_product(list(layer.parameters()), gradient, optimizer.newton, step)
            optimizer.newton.hand_over(optimizer.units, *pair)
        optimizers.step(optimizer, flat, lr=0.01, seed=0, optimizer_step=step)
    if optimizer.newton:
        assert optimizer.newton.fits == fits
    ((_, views),) = optimizer.units[0].inner.state.items()
    (factors,) = [value for view in views.values() for name, value in view.items() if "_Q_" in name and value]
    first, second = (q[0].T @ q[0] for q in utils.line_to_triu(factors))
    return torch.linalg.eigvals(torch.kron(first, second) @ torch.kron(left, right)).real


def test_preconditioner_becomes_the_inverse_hessian() -> None:
    """P H has eigenvalues near 1. The stock optimizer fits P to the gradients, which vanish, and P grows with it."""
    assert 0.5 < preconditioned_eigenvalues(True, 800).median() < 2
    assert preconditioned_eigenvalues(False, 800).median() > 100


# --- how often, and with what


class Watch:
    """Counts gradients of the products, handed-over pairs and fits, per optimizer step."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.gradients: list[int] = []  # the optimizer step of each
        self.pairs: list[tuple[int, Tensor, Tensor]] = []
        self.fits: list[tuple[int, Tensor, Tensor]] = []  # the same, flat, as a preconditioner's fit got them
        self.factors: list[dict[str, Tensor]] = []  # after each step

    @contextmanager
    def watching(self) -> Iterator[None]:
        product, hand_over, step = finite_difference_product, Newton.hand_over, optimizers.step
        fit_kron, fit_low_rank = utils.psgd_update_precond, utils.update_lra_precond_

        def counting_product(parameters: Any, gradient: Callable[[], Tensor], *args: Any) -> Any:
            def counted() -> Tensor:
                self.gradients.append(self.learner.optimizer_step)
                return gradient()

            return product(parameters, counted, *args)

        def noting_hand_over(newton: Newton, units: Any, vector: Tensor, hessian_vector: Tensor) -> None:
            self.pairs.append((self.learner.optimizer_step, vector.clone(), hessian_vector.clone()))
            hand_over(newton, units, vector, hessian_vector)

        def noting_kron(*args: Any) -> None:
            self.fits.append((self.learner.optimizer_step, args[5].flatten().clone(), args[0].flatten().clone()))
            fit_kron(*args)

        def noting_low_rank(*args: Any) -> Any:
            self.fits.append((self.learner.optimizer_step, args[3].flatten().clone(), args[4].flatten().clone()))
            return fit_low_rank(*args)

        def noting_step(*args: Any, **kwargs: Any) -> None:
            step(*args, **kwargs)
            tensors = optimizers.named_tensors(self.learner.optimizer)
            self.factors.append({name: x.clone() for name, x in tensors.items() if FACTOR.search(name)})

        with (
            mock.patch.object(curvature, "finite_difference_product", counting_product),
            mock.patch.object(Newton, "hand_over", noting_hand_over),
            mock.patch.object(utils, "psgd_update_precond", noting_kron),
            mock.patch.object(utils, "update_lra_precond_", noting_low_rank),
            mock.patch.object(optimizers, "step", noting_step),
        ):
            yield


@pytest.mark.parametrize("kind", ["central", "forward"])
@pytest.mark.parametrize("name", NAMES)
def test_every_product_is_used_once_by_the_fit_it_was_made_for(name: str, kind: str) -> None:
    """Two gradients for a product, one product for a due step, one fit for a parameter; no fit in another step."""
    settings = [f"optimizer={name}", "optimizer.newton_every=3", f"optimizer.newton_product={kind}"]
    learner = learner_for(*settings, "ppo.update_epochs=2")
    watch = Watch(learner)
    updates = 3
    with watch.watching():
        for _ in range(updates):
            assert not learn(learner).undone
    steps = updates * 2 * MINIBATCHES
    due = list(range(0, steps, 3))
    sizes = [weight.numel() for unit in learner.optimizer.units for weight in unit.weights]
    newton = learner.optimizer.newton
    assert newton is not None
    assert learner.optimizer_step == steps
    assert watch.gradients == [step for step in due for _ in range(2)]
    assert [step for step, *_ in watch.pairs] == due
    assert newton.fits == len(due) * len(sizes)
    low_rank = "rank" in learner.config.optimizer  # one preconditioner for all weights
    assert [step for step, *_ in watch.fits] == [step for step in due for _ in ([1] if low_rank else sizes)]
    for due_step, vector, product in watch.pairs:
        fits = [fit for step, *fit in watch.fits if step == due_step]
        assert torch.equal(torch.cat([fit[0] for fit in fits]), vector)
        assert torch.equal(torch.cat([fit[1] for fit in fits]), product)
    for step in range(1, steps):
        before, after = watch.factors[step - 1], watch.factors[step]
        assert len(before) >= (2 if low_rank else len(sizes))
        changed = [key for key in after if not torch.equal(before[key], after[key])]
        if low_rank:  # of U and V only one is fitted at a time
            assert bool(changed) == (step in due), f"step {step}"
        else:
            assert changed == (list(after) if step in due else []), f"step {step}"


def test_newton_for_an_optimizer_that_takes_no_pairs_is_refused() -> None:
    for name in ("psgd_pro", "qsgd", "adamw", "muon", "sgd"):
        config = yaml.safe_load((config_dir() / "optimizer" / f"{name}.yaml").read_text())
        settings = {key: value for key, value in yaml.safe_load(NEWTON_PSGD.read_text()).items() if "newton" in key}
        with pytest.raises(ConfigError, match=r"takes no newton_\* settings; valid with them: heavyball.PSGDKron"):
            optimizers.make_optimizer(config | settings, nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("newton_every", 0, "newton_every=0: must be at least 1"),
        ("newton_sub_batch", 0, "newton_sub_batch=0: must be at least 1"),
        ("newton_epsilon", 0.0, "newton_epsilon=0.0: must be a number greater than 0"),
        ("newton_every", None, "newton_every=None: needs a value"),
        ("newton_product", "backward", "newton_product=backward: .*valid: central, exact, forward"),
        ("newton_precision", "float16", "newton_precision=float16: did you mean"),
        ("newton_evry", 3, "newton_evry=3: no such setting; did you mean newton_every"),
    ],
)
def test_newton_settings_that_cannot_work_are_refused(setting: str, value: Any, message: str) -> None:
    config = yaml.safe_load(NEWTON_PSGD.read_text()) | {setting: value}
    with pytest.raises(ConfigError, match=message):
        optimizers.make_optimizer(config, nn.Linear(3, 2))


def test_a_pair_that_is_not_used_is_an_error() -> None:
    """An optimizer that fits to something else, the pair being ignored, does not go unnoticed; nothing is left over."""
    layer = nn.Linear(3, 2)
    config = {"_target_": "heavyball.PSGDPRO", "precond_init_scale": 1.0, "lstm_blocks": "whole"}
    optimizer = optimizers.make_optimizer(config, layer)
    optimizer.newton = Newton(every=1, product="central", precision="float32", sub_batch=1)
    with mock.patch.object(newton, "TAKE_PAIRS", ("PSGDPRO",)):
        optimizer.newton.hand_over(optimizer.units, torch.ones(8), torch.ones(8))
    with pytest.raises(RuntimeError, match="1 Newton pairs of weight were not used by PSGDPRO"):
        optimizers.step(optimizer, torch.ones(8), lr=0.1, seed=0, optimizer_step=0)


# --- the product


def products_of(learner: Learner, updates: int = 1) -> list[tuple[int, Tensor, Tensor]]:
    watch = Watch(learner)
    with watch.watching():
        for _ in range(updates):
            learn(learner)
    return watch.pairs


@pytest.mark.parametrize(
    ("activation", "kind", "precision", "tolerance"),
    [
        ("tanh", "central", "float32", 0.005),
        ("tanh", "forward", "float32", 0.05),
        ("tanh", "central", "bfloat16", 0.1),
        ("relu", "central", "float32", 0.005),
        ("relu", "central", "bfloat16", 0.1),
    ],
)
def test_product_is_the_hessian_of_the_unclipped_loss(
    activation: str, kind: str, precision: str, tolerance: float
) -> None:
    """Against an exact double backward in float64 through the same loss, for an LSTM of 128 in float32; with ReLUs
    against differences in float64, which see the kinks within reach, as a double backward does not.
    """
    settings = [
        "policy.hidden_size=128",
        f"policy.activation={activation}",
        "normalize.observations=false",
        "ppo.clip=0.1",
        "ppo.value_clip=0.1",
    ]
    how = [f"optimizer.newton_product={kind}", f"optimizer.newton_precision={precision}"]
    learner = learner_for(*settings, "optimizer.newton_sub_batch=1", *how)
    learn(learner)  # the policy is no longer the one that acted: clipping would matter
    learner.optimizer_step = 0
    exact = learner_for(*settings, "dtype=float64")
    exact.policy.load_state_dict({name: x.double() for name, x in learner.policy.state_dict().items()})
    calls: list[Any] = []
    loss = ppo.ppo_loss

    def noting_loss(*args: Any) -> Any:
        calls.append(args)
        return loss(*args)

    with mock.patch.object(minibatch, "ppo_loss", noting_loss):
        (_, vector, product), *_ = products_of(learner)
    _, _, batch, config, samples = calls[0]
    assert math.isinf(config.clip)
    assert config.value_clip is None
    tensors = {name: x for name, x in vars(batch).items() if isinstance(x, Tensor) and x.dtype == torch.float32}
    doubled = replace(batch, **{name: x.double() for name, x in tensors.items()})
    parameters = list(exact.policy.parameters())
    value, _ = ppo.ppo_loss(exact.policy, exact.observations, doubled, config, samples)
    if activation == "tanh":
        gradients = torch.autograd.grad(value, parameters, create_graph=True)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        columns = torch.autograd.grad(flat @ vector.double(), parameters)
        expected = torch.cat([column.flatten() for column in columns])
    else:
        epsilon, sides = EPSILON[precision], []
        start = nn.utils.parameters_to_vector(parameters).detach()
        for distance in (epsilon, -epsilon):
            with torch.no_grad():
                nn.utils.vector_to_parameters(start + distance * vector.double(), parameters)
            value, _ = ppo.ppo_loss(exact.policy, exact.observations, doubled, config, samples)
            sides.append(torch.cat([x.flatten() for x in torch.autograd.grad(value, parameters)]))
        expected = (sides[0] - sides[1]) / (2 * epsilon)
    assert expected.norm() > 0
    assert (product - expected).norm() / expected.norm() < tolerance


def test_exact_product_is_that_of_the_differences() -> None:
    """For a policy without an LSTM and without kinks; the same probe, weights left alone."""
    settings = ["policy=mlp", "policy.activation=tanh", "optimizer.newton_sub_batch=1"]
    pairs = []
    for kind in ("central", "exact"):
        learner = learner_for(*settings, f"optimizer.newton_product={kind}")
        pairs.append(products_of(learner)[0])
    (_, vector, difference), (_, same_vector, exact) = pairs
    assert torch.equal(vector, same_vector)
    assert exact.norm() > 0
    assert (difference - exact).norm() / exact.norm() < 0.005


def test_exact_product_through_a_fused_lstm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"newton_product=exact: RecurrentPolicy has a fused LSTM.*valid: central"):
        learner_for("optimizer.newton_product=exact")


def test_low_precision_is_autocast_for_the_differences_alone() -> None:
    """bfloat16 changes the product, and nothing of the gradient that the step is made of."""
    products, gradients = [], []
    for precision in ("float32", "bfloat16"):
        learner = learner_for(f"optimizer.newton_precision={precision}")
        seen: list[Tensor] = []
        step = optimizers.step

        def noting_step(*args: Any, seen: list[Tensor] = seen, step: Any = step, **kwargs: Any) -> None:
            seen.append(args[1].clone())
            step(*args, **kwargs)

        with mock.patch.object(optimizers, "step", noting_step):
            products.append(products_of(learner)[0][2])
        gradients.append(seen[0])
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(products[0], products[1], rtol=1e-3)


def test_the_fused_lstm_stays_in_use_and_no_graph_of_a_gradient_is_made() -> None:
    learner = learner_for("optimizer.newton_every=1")
    fused, autograd = torch.lstm, torch.autograd.backward
    calls = 0
    graphs: list[Any] = []

    def counting_lstm(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        assert torch.backends.cudnn.enabled and torch.backends.mkldnn.enabled  # or it would not be the fused one
        return fused(*args)

    def noting_backward(*args: Any, **kwargs: Any) -> None:
        graphs.append(kwargs.get("create_graph", args[3] if len(args) > 3 else False))
        autograd(*args, **kwargs)

    rollout = learner.collector.collect()
    with (
        mock.patch.object(torch, "lstm", counting_lstm),
        mock.patch.object(torch.autograd, "backward", noting_backward),
    ):
        update.learn(learner, rollout)
    assert len(graphs) == 3 * learner.optimizer_step
    assert not any(graphs)
    assert calls >= len(graphs)


@pytest.mark.parametrize("raises", [0, 1, 2])
def test_weights_and_generator_are_as_before(raises: int) -> None:
    """Bit for bit, also where the first or the second gradient raises; weights that a sum would round included."""
    layer = nn.Linear(40, 30)
    with torch.no_grad():
        layer.weight[0] *= 1e-20
        layer.weight[1] *= 1e20
    before, state = copy.deepcopy(layer.state_dict()), torch.get_rng_state()
    newton = Newton(every=1, product="central", precision="float32", sub_batch=1)
    seen: list[Tensor] = []

    def gradient() -> Tensor:
        seen.append(layer.weight.detach().clone())
        if len(seen) == raises:
            raise ArithmeticError
        return torch.zeros(40 * 30 + 30)

    if raises:
        with pytest.raises(ArithmeticError):
            finite_difference_product(list(layer.parameters()), gradient, newton, 7)
    else:
        finite_difference_product(list(layer.parameters()), gradient, newton, 7)
    assert len(seen) == (raises or 2)
    assert not torch.equal(seen[-1], before["weight"])
    assert differences(dict(layer.state_dict()), dict(before)) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_products_are_taken_in_full_precision_and_settings_are_put_back() -> None:
    """No TF32 in matrix products and LSTMs meanwhile; cuDNN stays on; afterwards everything is as it was."""
    cudnn: Any = torch.backends.cudnn
    cuda: Any = torch.backends.cuda
    rnn, matmul = cudnn.rnn, cuda.matmul
    before = rnn.fp32_precision, matmul.fp32_precision
    rnn.fp32_precision = matmul.fp32_precision = "tf32"
    layer, seen = nn.Linear(4, 3), []

    def gradient() -> Tensor:
        seen.append((rnn.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.enabled))
        return torch.zeros(15)

    try:
        newton = Newton(every=1, product="central", precision="float32", sub_batch=1)
        finite_difference_product(list(layer.parameters()), gradient, newton, 7)
        assert seen == [("ieee", "ieee", True)] * 2
        assert (rnn.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
    finally:
        rnn.fp32_precision, matmul.fp32_precision = before


# --- several learners


def products_on(world: World, config: TrainConfig, groups: int) -> tuple[list[tuple[int, Tensor, Tensor]], int]:
    """The pairs of one update, and how many of the losses had environments of this learner's."""
    learner = make_learner(config, world)
    losses = 0
    loss = ppo.ppo_loss

    def counting_loss(policy: Any, normalizer: Any, batch: Any, ppo_config: Any, samples: int) -> Any:
        nonlocal losses
        if math.isinf(ppo_config.clip):
            losses += 1
            assert batch.done.shape[1] == groups
        return loss(policy, normalizer, batch, ppo_config, samples)

    differences, exact = (mock.patch.object(place, "ppo_loss", counting_loss) for place in (minibatch, curvature))
    with differences, exact:
        pairs = products_of(learner)
    return pairs, losses


@pytest.mark.parametrize(("sub_batch", "groups", "shares"), [(8, 1, [1, 0]), (4, 2, [1, 1]), (3, 3, [2, 1])])
def test_product_does_not_depend_on_the_number_of_learners(
    worlds: dict[int, Learners], sub_batch: int, groups: int, shares: list[int]
) -> None:
    """The same environments, whoever owns them; a learner that owns none of them adds nothing. 8 groups of 4."""
    config = config_for(f"optimizer.newton_sub_batch={sub_batch}", "optimizer.newton_every=100")
    ((_, vector, product),), losses = products_on(World(0, 1, 0, 1, torch.device("cpu")), config, groups)
    assert losses == 2
    results = worlds[2].run(products_of_share, config, shares)
    for ((_, other_vector, other_product),), other_losses, share in results:
        assert other_losses == (2 if share else 0)
        assert torch.equal(other_vector, vector)
        assert (other_product - product).norm() / product.norm() < 2e-3
    assert torch.equal(results[0][0][0][2], results[1][0][0][2])


def products_of_share(
    world: World, config: TrainConfig, shares: list[int]
) -> tuple[list[tuple[int, Tensor, Tensor]], int, int]:
    return *products_on(world, config, shares[world.rank]), shares[world.rank]


def test_exact_product_does_not_depend_on_the_number_of_learners(worlds: dict[int, Learners]) -> None:
    """A sum over learners like any gradient; a learner that owns none of the environments adds nothing."""
    settings = ["policy=mlp", "optimizer.newton_product=exact", "optimizer.newton_every=100"]
    config = config_for(*settings, "optimizer.newton_sub_batch=8")
    ((_, _, product),), losses = products_on(World(0, 1, 0, 1, torch.device("cpu")), config, 1)
    assert losses == 1
    results = worlds[2].run(products_of_share, config, [1, 0])
    for ((_, _, other_product),), other_losses, share in results:
        assert other_losses == share
        torch.testing.assert_close(other_product, product, rtol=1e-3, atol=1e-6)


def test_the_sub_batch_matters() -> None:
    """Another part of the minibatch, another product of the same probe; an eighth is not all."""
    (whole, part) = (products_of(learner_for(f"optimizer.newton_sub_batch={n}"))[0] for n in (1, 8))
    assert torch.equal(whole[1], part[1])
    assert not torch.allclose(whole[2], part[2], rtol=1e-3)


# --- undoing and resuming


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_product_undoes_the_whole_update(name: str) -> None:
    """Of which the gradient itself is good. The next update is that of a learner which never met it."""
    learner, twin = (learner_for(f"optimizer={name}", "optimizer.newton_every=3") for _ in range(2))
    for each in (learner, twin):
        learn(each)
    rollouts = [each.collector.collect() for each in (learner, twin)]
    before, optimizer_step = everything(learner), learner.optimizer_step
    running = learner.returns.running.clone()
    product = finite_difference_product

    def bad_product(*args: Any) -> tuple[Tensor, Tensor]:
        vector, hessian_vector = product(*args)
        hessian_vector[5] = math.nan
        return vector, hessian_vector

    with mock.patch.object(curvature, "finite_difference_product", bad_product):
        assert update.learn(learner, rollouts[0]).undone
    assert differences(everything(learner), before) == []
    groups = [group for unit in learner.optimizer.units for group in unit.inner.param_groups]
    assert not any("newton_pairs" in group for group in groups)
    learner.optimizer_step = optimizer_step
    learner.returns.running.copy_(running)  # the environments have not moved on: the same rollout once more
    for each, rollout in zip((learner, twin), rollouts, strict=True):
        assert not update.learn(each, rollout).undone
    assert differences(everything(learner), everything(twin)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_between_two_products(name: str) -> None:
    """From captured state, at a step where none is due, to the same bits."""
    settings = [f"optimizer={name}", "optimizer.newton_every=3"]
    whole, resumed = (learner_for(*settings) for _ in range(2))
    learn(whole)
    resumed.collector.collect()
    assert whole.optimizer_step % 3 == 1
    resumed.policy.load_state_dict(whole.policy.state_dict())
    resumed.observations.load_state_dict(whole.observations.state_dict())
    resumed.returns.load_state_dict(whole.returns.state_dict())
    optimizers.restore(resumed.optimizer, optimizers.capture(whole.optimizer))
    resumed.optimizer_step, resumed.iteration = whole.optimizer_step, whole.iteration
    for _ in range(3):
        rollout = whole.collector.collect()
        for each in (whole, resumed):
            update.learn(each, rollout)
            each.iteration += 1
    ours, theirs = (replicated_tensors(each) for each in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_files_are_found() -> None:
    assert NEWTON_PSGD in FILES

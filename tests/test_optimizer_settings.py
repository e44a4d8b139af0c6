"""Every setting in configs/optimizer changes the update as its line there says, against formulas written out here.

Gradients are given and do not depend on the weights, so that an update is a function of the gradients alone. All is in
float64; some of heavyball's scalars are float32 all the same, hence the tolerance of 1e-5.
"""

from __future__ import annotations

import math
import re
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from heavyball.utils import PrecondInitError
from torch import Tensor, nn

from dist_trainer import optimizers
from dist_trainer.errors import ConfigError
from dist_trainer.keyed import keyed_seed
from dist_trainer.optimizers.newton import EPSILON, finite_difference_product
from tests.test_optimizer_knobs import FILES, flat, load, replaced

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # heavyball's, of any fixed scale or default rank

# Where another file tests what a setting does.
ELSEWHERE = {
    "mars": ("test_optimizer_knobs.py", "test_mars_is_the_papers_correction"),
    "mars_gamma": ("test_optimizer_knobs.py", "test_mars_is_the_papers_correction"),
    "caution": ("test_optimizer_knobs.py", "test_caution_is_the_papers_mask"),
    "newton_every": ("test_newton.py", "test_every_product_is_used_once_by_the_fit_it_was_made_for"),
    "newton_product": ("test_newton.py", "test_exact_product_is_that_of_the_differences"),
    "newton_precision": ("test_newton.py", "test_low_precision_is_autocast_for_the_differences_alone"),
    "newton_sub_batch": ("test_newton.py", "test_product_does_not_depend_on_the_number_of_learners"),
    "sync": ("test_sharding.py", "test_weights_and_state_are_those_of_a_learner_alone"),
    "shard_group": ("test_sharding.py", "test_a_learner_keeps_its_share_of_the_state"),
}
COVERED: set[tuple[str, str]] = set()  # files and settings that the tests below run with
LR = 2.0**-5  # heavyball rounds the rate to float32; this one is exact
SEED = 1
IDLE = ("ADOPT", "SOAP", "LATHER")  # their first step only looks at the gradient
MATRIX, VECTOR, LSTM = "encoder.weight", "encoder.bias", "lstm.weight_ih_l0"
SHAPES: dict[str, tuple[int, ...]] = {"log_std": (), MATRIX: (5, 3), VECTOR: (5,), LSTM: (8, 3)}


def each(*knobs: str, only: str = "", but: tuple[str, ...] = (), together: bool = False) -> pytest.MarkDecorator:
    """The test runs with each file that lists a setting of these, and, if they are several, with each, or together."""
    pairs = [(path, knob) for path in FILES for knob in flat(load(path)) if knob in knobs]
    pairs = [(path, knob) for path, knob in pairs if path.stem not in but and only in ("", path.stem)]
    COVERED.update((path.stem, knob) for path, knob in pairs)
    if len(knobs) == 1 or together:
        return pytest.mark.parametrize("path", sorted({path for path, _ in pairs}), ids=lambda path: path.stem)
    return pytest.mark.parametrize(("path", "knob"), [pytest.param(p, k, id=f"{p.stem}-{k}") for p, k in pairs])


class Tree(nn.Module):
    """A module with parameters of these dotted names."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        for name, weight in weights.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(last, nn.Parameter(weight.clone()))


def normal(key: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


WEIGHTS = {name: normal(index, shape) for index, (name, shape) in enumerate(SHAPES.items())}
SIZE = sum(weight.numel() for weight in WEIGHTS.values())
GRADIENTS = [normal(100 + step, (SIZE,)) ** 3 for step in range(12)]  # of many magnitudes


def parts(change: Tensor, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    """A flat tensor cut into the weights' shapes, by name."""
    split = change.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), split, strict=True)}


def configure(path: Path, **changes: Any) -> dict[str, Any]:
    """The file's settings in float64, with these changes where it lists them."""
    config = load(path)
    if path.stem == "muon":  # its group is an optimizer of its own, tested by itself
        config |= {"groups": None, "eps": 1e-8}
    changes = {"storage_dtype": "float64", "q_dtype": "float64"} | changes
    return config | {key: value for key, value in changes.items() if key in config}


# With Run(..., pairs=1) for the Newton optimizers: a fit in the first step alone.
ONE_FIT = {"preconditioner_update_probability": {"initial": 1.0, "final": 0.0, "decay": 0.0, "hold": 1}}


class Run:
    """An optimizer over weights of all kinds. A Newton optimizer gets a pair in its first `pairs` steps."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor] = WEIGHTS, pairs: int = 1000):
        self.module = Tree(weights)
        self.optimizer = optimizers.make_optimizer(config, self.module)
        self.pairs = pairs
        self.count = 0

    def step(self, gradient: Tensor, lr: float = LR, precond_factor: float = 1.0) -> Tensor:
        """The change of the flat weights. A pair's product is the gradient: fits are the same for all kinds."""
        before = self.weights()
        if self.optimizer.newton and self.count < self.pairs:
            vector = normal(200 + self.count, (len(gradient),)).to(gradient.dtype)
            self.optimizer.newton.hand_over(self.optimizer.units, vector, gradient.clone())
        key = {"seed": SEED, "optimizer_step": self.count}
        optimizers.step(self.optimizer, gradient.clone(), lr=lr, precond_factor=precond_factor, **key)
        self.count += 1
        return self.weights() - before

    def steps(self, gradients: list[Tensor], **settings: float) -> list[Tensor]:
        return [self.step(gradient, **settings) for gradient in gradients]

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.module.parameters()])

    def state(self, pattern: str, unit: str = "") -> dict[str, Tensor]:
        """Copies of the unit's tensors (or of all units') whose name fits, like "Q" or "exp_avg"."""
        wanted = re.compile(rf"^optimizer/{re.escape(unit)}.*_({pattern})_\d+(/|$)")
        return {k: v.clone() for k, v in optimizers.named_tensors(self.optimizer).items() if wanted.search(k)}

    def factors(self, pattern: str, name: str) -> list[Tensor]:
        """Of one weight: matrices (upper triangles are kept as one line), or vectors where they are diagonal."""
        found = [factor[0] for factor in self.state(pattern, name + "/").values()]
        sides = [size for size in SHAPES[name] if size > 1] or [1]
        return [_full(factor, side) for factor, side in zip(found, sides, strict=True)]


def _full(factor: Tensor, side: int) -> Tensor:
    if factor.dim() == 1 and len(factor) == side * (side + 1) // 2 != side:
        full = factor.new_zeros(side, side)
        full[tuple(torch.triu_indices(side, side))] = factor
        return full
    return factor


def close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    assert one.keys() == two.keys() and one
    return all(torch.allclose(one[key], two[key], rtol=1e-5, atol=1e-6) for key in one)


# --- the optimizers, written out: a weight's gradients in, what is multiplied by -lr out


def average(values: list[Tensor], beta: float, uncounted: int = 0) -> list[Tensor]:
    """Moving averages without the bias of their start at 0; `uncounted` are steps that were zeros and count."""
    out, total = [], torch.zeros_like(values[0])
    for step, value in enumerate(values, start=1 + uncounted):
        total = beta * total + (1 - beta) * value
        out.append(total / (1 - beta**step))
    return out


def root(values: list[Tensor], beta: float, eps: float, uncounted: int = 0) -> list[Tensor]:
    return [v.sqrt().clamp(min=eps) for v in average([value**2 for value in values], beta, uncounted)]


def adam(gradients: list[Tensor], config: dict[str, Any], uncounted: int = 0) -> list[Tensor]:
    beta1, beta2 = config["betas"]
    roots = root(gradients, beta2, config["eps"], uncounted)
    return [m / r for m, r in zip(average(gradients, beta1, uncounted), roots, strict=True)]


def laprop(gradients: list[Tensor], config: dict[str, Any]) -> list[Tensor]:
    beta1, beta2 = config["betas"]
    return average([g / r for g, r in zip(gradients, root(gradients, beta2, 1e-8), strict=True)], beta1)


def adopt(gradients: list[Tensor], config: dict[str, Any]) -> list[Tensor]:
    beta1, beta2 = config["betas"]
    before = root(gradients, beta2, config["eps"])
    scaled = [g / r for g, r in zip(gradients[1:], before[:-1], strict=True)]
    return [torch.zeros_like(gradients[0]), *average(scaled, beta1)]


def sgd(gradients: list[Tensor], config: dict[str, Any]) -> list[Tensor]:
    out = [gradients[0]]
    for gradient in gradients[1:]:
        out.append(config["beta"] * out[-1] + gradient)
    return out


def orthogonal(matrix: Tensor) -> Tensor:
    """Muon's five polynomials, applied to the singular values; times the root of rows / columns, if that is more."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    first = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037)]
    for a, b, c in (*first, (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v * max(1, len(matrix) / matrix.shape[1]) ** 0.5


def muon(gradients: list[Tensor], config: dict[str, Any]) -> list[Tensor]:
    if gradients[0].dim() < 2:
        return adam(gradients, config)
    beta, out, momentum = config["betas"][0], [], torch.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = beta * momentum + (1 - beta) * gradient
        out.append(orthogonal(momentum + gradient if config["nesterov"] else momentum))
    return out


def rotated(gradients: list[Tensor], config: dict[str, Any], bases: list[Tensor], uncounted: int) -> list[Tensor]:
    """Adam in a basis that does not change. The first step is idle."""
    if not bases:
        return [torch.zeros_like(gradients[0]), *adam(gradients[1:], config, uncounted)]
    left, right = bases
    inside = adam([left.T @ gradient @ right for gradient in gradients[1:]], config, uncounted)
    return [torch.zeros_like(gradients[0]), *(left @ update @ right.T for update in inside)]


def clip(update: Tensor) -> Tensor:
    """heavyball's trust region: nearly linear when small, at most 2."""
    x = update / 1.5
    return (1.5 * (0.9 * x.tanh() + 0.1 * x.abs().log1p() * x.sign())).clamp(-2, 2)


def times(factors: list[Tensor], value: Tensor, square: bool) -> Tensor:
    """Q value, or Q^T Q value, Q being the Kronecker product of the factors."""
    full = [torch.diag(q.reshape(-1)) if q.dim() < 2 else q for q in factors]
    left, right = [q.T @ q if square else q for q in full] + [torch.eye(1, dtype=value.dtype)] * (2 - len(full))
    return (left @ value.reshape(len(left), -1) @ right.T).view(value.shape)


def expected(config: dict[str, Any], run: Run, gradients: list[Tensor]) -> list[Tensor]:
    """The flat updates of all steps, given the bases and preconditioners as they are now."""
    kind = config["_target_"].removeprefix("heavyball.")
    if kind == "PSGDLRA":
        u, v, d = (_low_rank(run, name) for name in "UVd")
        updates = []
        for momentum in average(gradients, config["beta"]):
            inner = d[:, 0] * momentum
            inner = inner + u @ (v.T @ inner)
            updates.append(clip(d[:, 0] * (inner + v @ (u.T @ inner))))
        return updates
    by_name = []
    for name in SHAPES:
        own = [parts(gradient)[name] for gradient in gradients]
        if kind in ("SOAP", "LATHER"):
            bases = run.factors("Q" if kind == "SOAP" else "Q_basis", name) if len(SHAPES[name]) == 2 else []
            updates = rotated(own, config, bases, uncounted=1 if kind == "LATHER" else 0)
            by_name.append([clip(update) for update in updates] if kind == "LATHER" else updates)
        elif kind in ("PSGDKron", "PSGDPRO", "QSGD"):
            factors = run.factors("Q", name)
            updates = [times(factors, m, square=kind != "QSGD") for m in average(own, config["betas"][0])]
            by_name.append([clip(update) for update in updates] if kind == "PSGDKron" else updates)
        else:
            simple = {"AdamW": adam, "LaProp": laprop, "ADOPT": adopt, "SGD": sgd, "MuonAdamW": muon}
            by_name.append(simple[kind](own, config))
    return [torch.cat([update.flatten() for update in updates]) for updates in zip(*by_name, strict=True)]


def _low_rank(run: Run, name: str) -> Tensor:
    """(weights, rank) of U or V, (weights, 1) of d."""
    found = run.state(name).values()
    rank = run.optimizer.units[0].inner.param_groups[0]["rank"] if name != "d" else 1
    return torch.cat([tensor.reshape(-1, rank) for tensor in found])


OTHER: dict[str, Any] = {"betas": [0.5, 0.75], "beta": 0.5, "eps": 0.3, "nesterov": False}


@pytest.mark.parametrize("changed", [False, True])
@each("betas", "beta", "eps", "nesterov", but=("sf_adamw",))
def test_moments_are_the_recursions(path: Path, knob: str, changed: bool) -> None:
    """Also how a preconditioner is applied. It is fitted in the first step, and then stays as it is.

    PSGDLRA's update in the step of a fit is left out: heavyball moves d the wrong way there, and then keeps the right.
    """
    fixed = {
        "precondition_frequency": 10**6,
        "lstm_blocks": "whole",
        knob: OTHER[knob] if changed else load(path)[knob],
    }
    config = configure(path, **ONE_FIT, **fixed)
    run = Run(config, pairs=1)
    changes = run.steps(GRADIENTS[:6])
    updates = expected(config, run, GRADIENTS[:6])
    first = 1 if config["_target_"].endswith("LRA") else 0
    close(torch.stack(changes[first:]), -LR * torch.stack(updates[first:]))


@each("delayed")
def test_delayed_preconditions_with_the_factors_of_before_the_fit(path: Path) -> None:
    """The first step of a fit is that without one; the next is not. Without the setting the first differs too."""
    for delayed in (True, False):
        fitted, not_fitted = (
            Run(configure(path, delayed=delayed, precond_lr=rate)).steps(GRADIENTS[:2]) for rate in (0.3, 0.0)
        )
        assert torch.allclose(fitted[0], not_fitted[0], rtol=1e-6) == delayed
        assert not torch.allclose(fitted[1], not_fitted[1], rtol=1e-3)


@each("betas", but=("sf_adamw",))
def test_the_second_beta_of_psgd_does_nothing(path: Path) -> None:
    inert = re.search("PSGD|QSGD", load(path)["_target_"])
    first = load(path)["betas"][0]
    one, two = (Run(configure(path, betas=[first, second])).steps(GRADIENTS[:4]) for second in (0.5, 0.9))
    assert torch.equal(torch.stack(one), torch.stack(two)) == bool(inert)


SCHEDULE_FREE = ("betas", "eps", "weight_decay", "r", "weight_lr_power")


@each(*SCHEDULE_FREE, "groups.vectors.weight_decay", "groups.vectors.dims", only="sf_adamw")
def test_schedule_free_is_the_papers_recursion(path: Path, knob: str) -> None:
    """x averages z, the gradient is taken at y between them; arXiv 2405.15682. The weights are y."""
    other = {"betas": [0.5, 0.75], "eps": 0.3, "weight_decay": 0.25, "r": 1.0, "weight_lr_power": 1.0}
    other |= {"groups.vectors.weight_decay": 0.25, "groups.vectors.dims": [2]}
    config = replaced(configure(path, weight_decay=0.5), knob, other[knob])
    dims, of_group = (config["groups"]["vectors"][key] for key in ("dims", "weight_decay"))
    decays = [of_group if weight.dim() in dims else config["weight_decay"] for weight in WEIGHTS.values()]
    decay = torch.cat([torch.full((w.numel(),), d) for w, d in zip(WEIGHTS.values(), decays, strict=True)])
    (beta1, beta2), power = config["betas"], config["weight_lr_power"]
    run = Run(config)
    x = y = z = run.weights()
    total = 0.0
    roots = root(GRADIENTS[:6], beta2, config["eps"])
    for step, (gradient, denominator) in enumerate(zip(GRADIENTS[:6], roots, strict=True), start=1):
        lr = LR * (2 if step == 3 else 1)
        weight = lr**power * step ** config["r"]  # of the rate as it is, not of the largest so far
        total += weight
        z = z - lr * (gradient / denominator + decay * y)
        x = x + weight / total * (z - x)
        y = (1 - beta1) * z + beta1 * x
        run.step(gradient, lr=lr)
        close(run.weights(), y)


# --- rates and decay


@each("lr")
def test_the_update_is_proportional_to_the_rate(path: Path) -> None:
    """To that of the step; the optimizer does not keep the one that it was made with."""
    runs = [Run(configure(path, lr=lr), pairs=2) for lr in (0.1, 0.2)]
    one, two = (torch.stack(run.steps(GRADIENTS[:4], lr=lr)) for run, lr in zip(runs, (LR, 2 * LR), strict=True))
    assert (one[1:] != 0).all()
    close(2 * one, two, 1e-12)


@pytest.mark.parametrize("scale", [0.25, 0.5])
@each("groups.vectors.lr_scale")
def test_a_groups_rate_is_scaled(path: Path, scale: float) -> None:
    """Vectors go `lr_scale` times as far, matrices as far as ever. The gradients do not depend on the weights."""
    if "low-rank" in path.read_text().split("\n")[0]:
        pytest.skip("one preconditioner for all weights")
    config = configure(path)
    scaled = {**config, "groups": {"vectors": config["groups"]["vectors"] | {"lr_scale": scale}}}
    plain, other = (parts(sum(Run(c).steps(GRADIENTS[:3]), torch.zeros(SIZE))) for c in (config, scaled))
    for name, weight in WEIGHTS.items():
        close(other[name], plain[name] * (scale if weight.dim() < 2 else 1.0), 1e-6)


GROUP = "groups.vectors_and_heads."


@pytest.mark.parametrize("changed", [False, True])
@each(*(GROUP + key for key in ("names", "dims", "lr_scale", "betas", "eps", "weight_decay")), only="muon")
def test_muons_vectors_and_heads_are_stepped_by_adamw(path: Path, knob: str, changed: bool) -> None:
    """At lr * lr_scale, with the group's own moments and decay; what is not of these names or dimensions is Muon's."""
    other = {"names": ["lstm.*"], "dims": [0], "lr_scale": 0.5, "betas": [0.5, 0.7], "eps": 0.3, "weight_decay": 0.25}
    key = knob.removeprefix(GROUP)
    group = load(path)["groups"]["vectors_and_heads"] | ({key: other[key]} if changed else {})
    run, alone = (Run(configure(path, groups=groups)) for groups in ({"vectors_and_heads": group}, None))
    for step in range(3):
        before = parts(run.weights())
        change, without = parts(run.step(GRADIENTS[step])), parts(alone.step(GRADIENTS[step]))
        for name, weight in WEIGHTS.items():
            if weight.dim() in group["dims"] or any(fnmatchcase(name, pattern) for pattern in group["names"]):
                own = [parts(gradient)[name] for gradient in GRADIENTS[: step + 1]]
                squares = average([value**2 for value in own], group["betas"][1])[step]
                update = average(own, group["betas"][0])[step] / (squares.sqrt() + group["eps"])  # as torch has it
                rate = LR * group["lr_scale"]
                close(change[name], -rate * update - rate * group["weight_decay"] * before[name], 1e-5)
            elif weight.dim() > 1:
                close(change[name], without[name], 1e-6)


@pytest.mark.parametrize(
    ("common", "of_group", "dims"),
    [(0.5, 0.0, [0, 1]), (0.0, 0.5, [0, 1]), (0.5, 0.25, [0]), (0.5, 0.25, [2])],
)
@each("weight_decay", "groups.vectors.weight_decay", "groups.vectors.dims", but=("sf_adamw",), together=True)
def test_decay_is_decoupled(path: Path, common: float, of_group: float, dims: list[int]) -> None:
    """w <- w (1 - lr decay) - lr update, the update being the one without decay. An idle step does not decay."""
    config = configure(path, groups={"vectors": {"dims": dims, "weight_decay": of_group}})
    plain, decayed = (Run(configure(path)), Run(config | {"weight_decay": common}))
    weights = {name: weight.detach().clone() for name, weight in decayed.module.named_parameters()}
    for step, gradient in enumerate(GRADIENTS[:4]):
        change = parts(plain.step(gradient))
        decayed.step(gradient)
        for name, weight in weights.items():
            decay = of_group if "groups" in config and weight.dim() in dims else common
            decay *= not (step == 0 and config["_target_"].endswith(IDLE))
            weights[name] = weight * (1 - LR * decay) + change[name].view_as(weight)
        close(dict(decayed.module.named_parameters()), weights, 1e-12)


@pytest.mark.parametrize("method", ["dadaptation", "prodigy"])
@each("rate_estimate", "rate_initial", "rate_growth", together=True)
def test_the_estimate_multiplies_the_rate(path: Path, method: str) -> None:
    """It begins at rate_initial, never falls, and grows by rate_growth at most; unbounded it grows faster."""
    largest = {}
    for growth in (None, 1.1):
        config = configure(path, rate_estimate=method, rate_initial=1e-3, rate_growth=growth)
        plain, run = Run(configure(path)), Run(config)
        estimates = []
        for _ in range(8):
            estimates.append(
                next(v.item() for k, v in optimizers.named_tensors(run.optimizer).items() if k[-2:] == "/d")
            )
            close(run.step(GRADIENTS[0], lr=1.0), estimates[-1] * plain.step(GRADIENTS[0], lr=1.0), 1e-9)
        assert estimates[0] == 1e-3
        ratios = [after / before for before, after in pairwise(estimates)]
        assert min(ratios) >= 1 and max(ratios) > 1
        assert growth is None or max(ratios) <= growth * (1 + 1e-12)
        largest[growth] = max(ratios)
    assert largest[None] > 1.2 and largest[1.1] == pytest.approx(1.1)


# --- types of the state


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64"])
@each("storage_dtype", "q_dtype")
def test_state_has_the_type(path: Path, knob: str, name: str) -> None:
    """A diagonal factor stays float32 where q_dtype is bfloat16. float64 state is for float64 weights."""
    dtype = torch.float64 if name == "float64" else torch.float32
    types: dict[str, Any] = dict.fromkeys(("storage_dtype", "q_dtype"), str(dtype).removeprefix("torch."))
    config = configure(path, precond_grad_accum=True, **types | {knob: name})
    run = Run(config, {key: weight.to(dtype) for key, weight in WEIGHTS.items()})
    run.steps([gradient.to(dtype) for gradient in GRADIENTS[:2]])
    pattern = "exp_avg|exp_avg_sq|momentum|precond_grad_accum" if knob == "storage_dtype" else "Q|Q_basis|U|V|d"
    found = run.state(pattern)
    assert found
    for key, tensor in found.items():
        diagonal = knob == "q_dtype" and VECTOR in key
        assert tensor.dtype == (torch.float32 if diagonal and name == "bfloat16" else getattr(torch, name)), key


# --- fits of a PSGD preconditioner


@pytest.mark.parametrize("changed", [False, True])
@each("precond_lr", "precond_init_scale", "dampening", but=("psgd_lra", "newton_lra"))
def test_one_fit_is_the_papers(path: Path, knob: str, changed: bool) -> None:
    """From Q = scale I: Q <- Q - precond_lr (A - B) Q / (|A| + |B|), A of P g and B of the probe; arXiv 1512.04202.

    The two norms are estimated as one and kept. PSGDLRA has other formulas.
    """
    values = {"precond_lr": 0.3, "precond_init_scale": 0.25, "dampening": 0.5}
    config = configure(path, **ONE_FIT, **{knob: values[knob]} if changed else {})
    rate, scale = config["precond_lr"], config["precond_init_scale"]
    run = Run(config, pairs=1)
    run.step(GRADIENTS[0])
    for name in (MATRIX, VECTOR):
        gradient = parts(GRADIENTS[0])[name].view(5, -1)
        probe = parts(normal(200, (SIZE,)))[name] if run.optimizer.newton else drawn(name)
        probe = probe.view(5, -1)
        noisy = gradient if run.optimizer.newton else gradient + config["dampening"] * probe
        white = config["_target_"].endswith(("PSGDPRO", "QSGD"))
        a = scale**2 * noisy if white else scale * noisy
        bounds = [*run.state("running_lower_bound", name + "/").values()]
        for side, (factor, bound) in enumerate(zip(run.factors("Q", name), bounds, strict=True)):
            mine, b = (a, probe / scale) if side == 0 else (a.T, probe.T / scale)
            one, two = mine @ mine.T, b @ b.T
            if white:  # the target is its mean
                two = torch.eye(len(one), dtype=torch.float64) * (gradient.numel() / len(one))
            start = torch.eye(len(one), dtype=torch.float64) * scale ** (1 / len(SHAPES[name]))
            if factor.dim() == 1:
                close(bound.item(), (one + two).diagonal().max().item())
                one, two, factor = one.diagonal().diag(), two.diagonal().diag(), factor.diag()
            else:
                norm = torch.linalg.eigvalsh(one + two)[-1].item()
                assert 0.7 * norm < bound.item() <= norm * (1 + 1e-5)
            step = (one - two) if white else (one - two).triu()
            close(factor, start - rate * step @ start / bound, 1e-4)


def drawn(name: str) -> Tensor:
    """The noise of the first step."""
    with torch.random.fork_rng():
        torch.manual_seed(keyed_seed(SEED, "optimizer", 0, name))
        return torch.randn(SHAPES[name], dtype=torch.float64)


@each("precond_lr")
def test_a_fit_goes_as_far_as_its_rate(path: Path) -> None:
    runs = [Run(configure(path, **ONE_FIT, precond_lr=rate), pairs=1) for rate in (0.0, 0.1, 0.2)]
    for run in runs:
        run.step(GRADIENTS[0])
    still, one, two = (run.state("Q|U|V|d") for run in runs)
    assert not same(still, one)
    for key in still:
        close(2 * (one[key] - still[key]), two[key] - still[key], 1e-6)


@each("precond_init_scale")
def test_the_first_q_is_the_scale(path: Path) -> None:
    """The product of the factors, and d; what a gradient is multiplied by is its square."""
    for scale in (1.0, 0.25):
        run = Run(configure(path, precond_init_scale=scale))
        run.step(GRADIENTS[0], precond_factor=0.0)
        if "rank" in load(path):
            close(_low_rank(run, "d"), torch.full((SIZE, 1), scale, dtype=torch.float64))
        else:
            left, right = run.factors("Q", MATRIX)
            close(torch.kron(left, right), scale * torch.eye(15, dtype=torch.float64))
            close(run.factors("Q", VECTOR)[0], torch.full((5,), scale, dtype=torch.float64))


@each("precond_init_scale")
def test_without_an_initial_scale_it_follows_the_first_gradient(path: Path) -> None:
    """Its fourth root: 16 times the gradient, half the scale. Zero gradients raise."""
    config = configure(path, **ONE_FIT, precond_init_scale=None)
    kind = "d" if config["_target_"].endswith("LRA") else "Q"
    scales = []
    for factor in (1, 16):
        run = Run(config, pairs=1)
        run.step(factor * GRADIENTS[0], precond_factor=0.0)
        scales.append(
            torch.cat([value.flatten() for key, value in run.state(kind).items() if VECTOR in key or kind == "d"])
        )
    close(scales[1], scales[0] / 2)
    with pytest.raises(PrecondInitError, match="Grad or HVP is all 0s"):
        Run(config).step(torch.zeros(SIZE, dtype=torch.float64))
    assert Run(configure(path)).step(torch.zeros(SIZE, dtype=torch.float64)).isfinite().all()


PROBABILITY = {"initial": 0.75, "final": 0.125, "decay": 0.5, "hold": 4}


@each(*(f"preconditioner_update_probability.{name}" for name in PROBABILITY))
def test_fits_are_where_the_sum_passes_a_whole_number(path: Path, knob: str) -> None:
    other = {"initial": 1.0, "final": 0.5, "decay": 0.75, "hold": 1}
    name = knob.partition(".")[2]
    p: dict[str, Any] = PROBABILITY | {name: other[name]}
    run = Run(configure(path, preconditioner_update_probability=p))
    twin = Run(configure(path, preconditioner_update_probability=p))  # before the first fit
    twin.step(GRADIENTS[0], precond_factor=0.0)
    before, fits, sums = twin.state("Q|d"), [], [0.0]
    for step in range(1, 13):
        run.step(GRADIENTS[step - 1])
        after = run.state("Q|d")
        fits.append(any(not torch.equal(before[key], after[key]) for key in after))
        before = after
        sums.append(sums[-1] + max(p["final"], p["initial"] * p["decay"] ** max(0, step - p["hold"])))
    assert fits == [int(now) > int(then) for then, now in pairwise(sums)]
    assert 2 <= sum(fits) < 12


@each("momentum_into_precond_update")
def test_the_momentum_is_what_is_fitted_to(path: Path) -> None:
    """True fits to the gradients as False does to momenta that are given in their place."""
    config = configure(path)
    momenta = average(GRADIENTS[:4], config["beta"] if "beta" in config else config["betas"][0])
    with_momentum, fed, without = (
        Run(configure(path, momentum_into_precond_update=flag)) for flag in (True, False, False)
    )
    with_momentum.steps(GRADIENTS[:4])
    fed.steps(momenta)
    without.steps(GRADIENTS[:4])
    found = with_momentum.state("Q|U|V|d")
    assert same(found, fed.state("Q|U|V|d"))
    assert not same(found, without.state("Q|U|V|d"))


@each("precond_grad_accum")
def test_the_mean_since_the_last_fit_is_fitted_to(path: Path) -> None:
    """With a fit in every fourth step: as if its gradient had been the mean of four.

    Matrices alone: LATHER fits a vector's factor to its update, and has no use for it.
    """
    quarter = {"preconditioner_update_probability": {"initial": 0.25, "final": 0.25, "decay": 1.0, "hold": 0}}
    fixed: dict[str, Any] = quarter | {"momentum_into_precond_update": False}
    means = list(GRADIENTS[:8])
    for last in (3, 7):
        means[last] = torch.stack(GRADIENTS[last - 3 : last + 1]).mean(0)
    on, fed, off = (Run(configure(path, precond_grad_accum=flag, **fixed)) for flag in (True, False, False))
    on.steps(GRADIENTS[:8])
    fed.steps(means)
    off.steps(GRADIENTS[:8])
    unit = MATRIX if "lstm_blocks" in load(path) else ""
    found = on.state("Q|U|V|d", unit)
    assert same(found, fed.state("Q|U|V|d", unit))
    assert not same(found, off.state("Q|U|V|d", unit))


@each("lower_bound_beta")
def test_the_bound_of_the_fit_decays(path: Path) -> None:
    """bound <- max(norm, beta bound + (1 - beta) norm), and a fit's step is divided by it."""
    found, bounds = {}, {}
    for beta in (0.0, 0.5, 0.9):
        run = Run(configure(path, lower_bound_beta=beta))
        run.step(10 * GRADIENTS[0], precond_factor=0.0)  # a large norm, and Q stays a multiple of I
        start, first = run.state("Q"), run.state("running_lower_bound")
        run.step(GRADIENTS[1])
        bounds[beta] = run.state("running_lower_bound")
        found[beta] = {key: factor - start[key] for key, factor in run.state("Q").items()}
        norms = bounds[0.0]
        for key, norm in norms.items():
            close(bounds[beta][key], torch.maximum(norm, beta * first[key] + (1 - beta) * norm))
        for moved, unbounded, bound, norm in zip(
            found[beta].values(), found[0.0].values(), bounds[beta].values(), norms.values(), strict=True
        ):
            close(moved * bound, unbounded * norm)
    assert not same(found[0.5], found[0.9])


@pytest.mark.parametrize("largest", [2, 3, 4, 5])
@each("max_size_triangular")
def test_larger_sides_are_diagonal(path: Path, largest: int) -> None:
    run = Run(configure(path, max_size_triangular=largest))
    run.step(GRADIENTS[0])
    shapes = [tuple(factor.shape) for factor in run.factors("Q", MATRIX)]
    assert shapes == [(side, side) if side <= largest else (side,) for side in SHAPES[MATRIX]]
    assert [tuple(factor.shape) for factor in run.factors("Q", VECTOR)] == [(5,)]  # always


@each("rank")
def test_rank_is_the_number_of_columns(path: Path) -> None:
    for rank in (None, 1, 3):
        run = Run(configure(path, rank=rank))
        run.step(GRADIENTS[0])
        for name in "UV":
            columns = sum(tensor.numel() for tensor in run.state(name).values()) / SIZE
            assert columns == (round(math.log2(SIZE)) if rank is None else rank)
        assert _low_rank(run, "d").shape == (SIZE, 1)


# --- SOAP


@each("shampoo_beta")
def test_factors_are_averages_of_the_outer_products(path: Path) -> None:
    for beta in (0.95, 0.5):
        run = Run(configure(path, shampoo_beta=beta))
        run.steps(GRADIENTS[:5])
        own = [parts(gradient)[MATRIX] for gradient in GRADIENTS[:5]]
        left, right = run.factors("GG", MATRIX)
        close(left, average([g @ g.T for g in own], beta)[-1])
        close(right, average([g.T @ g for g in own], beta)[-1])


@each("max_precond_dim")
def test_larger_sides_are_not_preconditioned(path: Path) -> None:
    for largest in (2, 3, 4, 5):
        run = Run(configure(path, max_precond_dim=largest))
        run.step(GRADIENTS[0])
        for kind in ("Q", "GG"):
            sides = [factor.shape[-1] for factor in run.state(kind, MATRIX + "/").values()]
            assert sides == [side for side in SHAPES[MATRIX] if side <= largest]


@each("precondition_1d")
def test_vectors_are_preconditioned_or_left_to_adam(path: Path) -> None:
    off, on = (configure(path, precondition_1d=flag, precondition_frequency=10**6) for flag in (False, True))
    run = Run(off)
    changes = torch.stack([parts(change)[VECTOR] for change in run.steps(GRADIENTS[:4])])
    assert not run.state("Q|GG", VECTOR + "/")
    own = [parts(gradient)[VECTOR] for gradient in GRADIENTS[:4]]
    close(changes[1:], -LR * torch.stack(adam(own[1:], off)))
    run = Run(on)
    changes = torch.stack([parts(change)[VECTOR] for change in run.steps(GRADIENTS[:4])])
    (basis,) = run.factors("Q", VECTOR)
    inside = adam([basis.T @ gradient for gradient in own[1:]], on)
    close(changes[1:], -LR * torch.stack([basis @ update for update in inside]))


@pytest.mark.parametrize("frequency", [1, 2, 3, 4])
@each("precondition_frequency")
def test_the_basis_changes_at_every_so_many_steps(path: Path, frequency: int) -> None:
    """heavyball adds up 1 / frequency: where that is not exact, a change can come a step late."""
    run = Run(configure(path, precondition_frequency=frequency))
    run.step(GRADIENTS[0])
    before, changed = run.state("Q"), []
    for step in range(2, 13):
        run.step(GRADIENTS[step - 1])
        after = run.state("Q")
        if not same(before, after):
            changed.append(step)
        before = after
    due = [step for step in range(2, 13) if step % frequency == 0]
    late = [now - then for then, now in zip(due, changed, strict=True)]
    assert set(late) <= ({0, 1} if frequency == 3 else {0})


# --- who is updated by what


@each("lstm_blocks")
def test_gates_are_matrices_of_their_own_or_not(path: Path) -> None:
    """Bit for bit as four matrices of these names; whole as that matrix alone."""
    gates = {f"{LSTM}.gate{gate}": rows for gate, rows in enumerate(WEIGHTS[LSTM].chunk(4))}
    shared = {name: weight for name, weight in WEIGHTS.items() if name != LSTM}
    split = Run(configure(path, lstm_blocks="gates")).steps(GRADIENTS[:4])
    four = Run(configure(path, lstm_blocks="whole"), shared | gates).steps(GRADIENTS[:4])
    assert torch.equal(torch.stack(split), torch.stack(four))
    whole = Run(configure(path, lstm_blocks="whole"))
    assert not torch.equal(torch.stack(whole.steps(GRADIENTS[:4])), torch.stack(split))
    assert [unit.name for unit in whole.optimizer.units] == list(SHAPES)
    if whole.optimizer.newton is None:
        alone = Run(configure(path, lstm_blocks="whole"), {LSTM: WEIGHTS[LSTM]})
        alone.steps([parts(gradient)[LSTM].flatten() for gradient in GRADIENTS[:4]])
        assert torch.equal(alone.weights(), parts(whole.weights())[LSTM].flatten())
    with pytest.raises(ConfigError, match="lstm_blocks=gate: did you mean gates"):
        Run(configure(path, lstm_blocks="gate"))


ADAMW, PSGD = (next(path for path in FILES if path.stem == name) for name in ("adamw", "psgd_kron"))
SGD = {"_target_": "heavyball.SGD", "beta": 0.5, "storage_dtype": "float64"}


def ratios(groups: dict[str, Any] | None, steps: int = 3) -> dict[str, float]:
    """How many times further than without groups each weight goes."""
    base = {**configure(ADAMW), "groups": None}
    plain, grouped = (
        parts(sum(Run(c).steps(GRADIENTS[:steps]), torch.zeros(SIZE))) for c in (base, base | {"groups": groups})
    )
    return {name: (grouped[name].norm() / plain[name].norm()).item() for name in SHAPES}


@pytest.mark.parametrize(
    ("groups", "half"),
    [
        ({"a": {"names": ["encoder.*"], "lr_scale": 0.5}}, [MATRIX, VECTOR]),
        ({"a": {"names": ["*.bias", "log_st?"], "lr_scale": 0.5}}, ["log_std", VECTOR]),
        ({"a": {"dims": [2], "lr_scale": 0.5}}, [MATRIX, LSTM]),
        ({"a": {"names": [LSTM], "dims": [0], "lr_scale": 0.5}}, ["log_std", LSTM]),  # either selects
        ({"a": {"names": ["encoder.*"]}, "b": {"dims": [1, 2], "lr_scale": 0.5}}, [LSTM]),  # the first wins
        ({"a": None, "b": {"dims": [1], "lr_scale": 0.5}}, [VECTOR]),
        (None, []),
    ],
)
def test_groups_select_by_name_or_dimensions(groups: dict[str, Any] | None, half: list[str]) -> None:
    close(ratios(groups), {name: 0.5 if name in half else 1.0 for name in SHAPES}, 1e-9)


@pytest.mark.parametrize("path", [ADAMW, PSGD], ids=lambda path: path.stem)
def test_a_group_can_have_an_optimizer_of_its_own(path: Path) -> None:
    """With its own settings alone: no setting of the file's reaches it. The others are as without it."""
    group = {"vectors": {"dims": [0, 1], **SGD, "lr_scale": 0.25}}
    config = configure(path, weight_decay=0.5, groups=group)
    mixed, plain = Run(config), Run(config | {"groups": None})
    for gradient, update in zip(GRADIENTS[:3], sgd(GRADIENTS[:3], SGD), strict=True):
        change, without = parts(mixed.step(gradient)), parts(plain.step(gradient))
        for name in (MATRIX, LSTM):
            close(change[name], without[name], 1e-12)
        for name in ("log_std", VECTOR):
            close(change[name], -LR / 4 * parts(update)[name], 1e-9)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"dims": [1], "weight_decai": 0.1}, "weight_decai=0.1: no such setting; did you mean weight_decay"),
        ({"dims": [1], "lr": 0.1}, "lr=0.1: set lr_scale"),
        ({"weight_decay": 0.1}, "needs names or dims"),
        ({"names": "*head*"}, "names=.*head.*: must be a list of str"),
        ({"dims": 2}, "dims=2: must be a list of int"),
        ({"names": ["nothing"]}, "selects no parameter of: log_std, encoder.weight"),
        ({"dims": [1], "_target_": "heavyball.SGD", "eps": 0.1}, "does not take the settings"),
    ],
)
def test_groups_that_cannot_work_are_refused(group: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(configure(ADAMW, groups={"a": group}))


def cube(run: Run) -> Tensor:
    return run.weights() ** 3


@pytest.mark.parametrize("product", ["central", "forward"])
@each("newton_epsilon")
def test_epsilon_is_the_size_of_the_difference(path: Path, product: str) -> None:
    """Of gradients w^3: 3 w^2 v, and what the difference adds to it."""
    for precision, given in (("float32", None), ("float32", 0.1), ("bfloat16", None)):
        config = configure(path, newton_epsilon=given, newton_product=product, newton_precision=precision)
        run = Run(config)
        newton, weights = run.optimizer.newton, run.weights()
        assert newton is not None
        parameters = list(run.module.parameters())
        vector, actual = finite_difference_product(parameters, partial(cube, run), newton, 0)
        eps = given or EPSILON[precision]
        error = eps**2 * vector**3 + (3 * weights * eps * vector**2 if product == "forward" else 0)
        torch.testing.assert_close(actual - 3 * weights**2 * vector, error, rtol=1e-3, atol=1e-10)


# --- nothing is left out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_listed_setting_has_a_test(path: Path) -> None:
    listed = {name for name in flat(load(path)) if not name.endswith("_target_")}
    here = {name for stem, name in COVERED if stem == path.stem}
    assert listed - here - ELSEWHERE.keys() == set()


@pytest.mark.parametrize(("name", "where"), ELSEWHERE.items())
def test_what_is_tested_elsewhere_is_there(name: str, where: tuple[str, str]) -> None:
    text = (Path(__file__).parent / where[0]).read_text()
    assert f"def {where[1]}(" in text
    assert name in text

"""The learning-rate-free estimate: the papers' recursions, its bound by the true distance, and what it must not do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import heavyball
import pytest
import torch
from torch import Tensor

from dist_trainer.optimizers.rate_free import POWERS, Block, RateEstimate, scale_step_

METHODS = sorted(POWERS)
BETA2 = 0.999
Loss = Callable[[Tensor], Tensor]


def logistic(dtype: torch.dtype = torch.float64) -> Loss:
    """Of 200 noisy samples with 10 features: convex, with one solution."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 10, generator=generator, dtype=torch.float64)
    chance = torch.sigmoid(features @ torch.randn(10, generator=generator, dtype=torch.float64))
    labels = (torch.rand(200, generator=generator, dtype=torch.float64) < chance).to(dtype)
    return lambda x: torch.nn.functional.binary_cross_entropy_with_logits(features.to(dtype) @ x, labels)


def gradient_of(loss: Loss, x: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def elementwise(size: int) -> list[Block]:
    return [Block(slice(0, size), (size,), "l1")]


@dataclass
class Run:
    """A base optimizer under a RateEstimate, step by step as a trainer would do it."""

    loss: Loss
    weight: Tensor
    base: torch.optim.Optimizer
    estimate: RateEstimate
    history: list[float] = field(default_factory=list)  # d after each step

    def step(self, lr: float) -> None:
        gradient = gradient_of(self.loss, self.weight)
        before, d = self.weight.clone(), self.estimate.d
        self.estimate.observe(gradient.flatten(), before.flatten(), lr)
        self.weight.grad = gradient
        self.base.param_groups[0]["lr"] = lr
        self.base.step()
        scale_step_([self.weight], [before], d)
        self.history.append(self.estimate.d.item())

    def train(self, steps: int) -> Run:
        for k in range(steps):
            self.step(cosine(k / steps))
        return self


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def adamw(method: str, loss: Loss, start: Tensor, decay: float = 0.0, **settings: float) -> Run:
    weight = start.clone()
    base = torch.optim.AdamW([weight], betas=(0.9, BETA2), weight_decay=decay)
    estimate = RateEstimate(method, elementwise(len(start)), start, beta=math.sqrt(BETA2), **settings)
    return Run(loss, weight, base, estimate)


def papers_recursion(method: str, loss: Loss, start: Tensor, steps: int, decay: float) -> tuple[Tensor, list[float]]:
    """The papers' recursions around AdamW's written out, in their own normalization (see the 1 - beta)."""
    beta1, root = 0.9, BETA2**0.5
    x, m, v, s = start.clone(), torch.zeros_like(start), torch.zeros_like(start), torch.zeros_like(start)
    r, d, ds = 0.0, 1e-6, []
    for k in range(steps):
        g, gamma = gradient_of(loss, x), cosine(k / steps)
        if method == "prodigy":
            r = root * r + (1 - root) * gamma * d**2 * float(g @ (start - x))
            s = root * s + (1 - root) * gamma * d**2 * g
            d_hat = r / float(s.abs().sum())
        else:  # <g, s> of the moving average s stands for (1 - root) <g, x0 - x>
            r = root * r + (1 - root) * gamma * d * (1 - root) * float(g @ (start - x))
            s = root * s + (1 - root) * gamma * d * g
            d_hat = r / ((1 - root) * float(s.abs().sum()))
        m = beta1 * m + (1 - beta1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        update = (m / (1 - beta1 ** (k + 1))) / ((v / (1 - BETA2 ** (k + 1))).sqrt() + 1e-8) + decay * x
        x = x - gamma * d * update
        d = max(d, d_hat)
        ds.append(d)
    return x, ds


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_the_papers_recursions(method: str, decay: float) -> None:
    loss, start, steps = logistic(), torch.linspace(-0.3, 0.5, 10, dtype=torch.float64), 250
    run = adamw(method, loss, start, decay).train(steps)
    x, ds = papers_recursion(method, loss, start, steps, decay)
    assert ds[-1] > 1e4 * ds[0]
    torch.testing.assert_close(torch.tensor(run.history), torch.tensor(ds), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(run.weight, x, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("initial", [1e-6, 1e-8])
@pytest.mark.parametrize("distance", [0.01, 100.0])
@pytest.mark.parametrize("method", METHODS)
def test_finds_the_distance_of_absolute_values(method: str, distance: float, initial: float) -> None:
    """sum |x - x*| with every |x* - x0| the same: the estimate ends between a third of it and all of it."""
    target = distance * torch.tensor([1.0, -1.0] * 10, dtype=torch.float64)
    run = adamw(method, lambda x: (x - target).abs().sum(), torch.zeros_like(target), initial_d=initial).train(400)
    assert distance / 3 <= run.history[-1] <= distance
    assert (run.weight - target).abs().max() < 0.01 * distance


@pytest.mark.parametrize("initial", [1e-6, 1e-8])
@pytest.mark.parametrize("method", METHODS)
def test_is_as_good_as_a_tuned_rate(method: str, initial: float) -> None:
    """Logistic regression: within 0.1 % of what the best of nine rates gains, and d within a factor of 20."""
    loss, start, steps = logistic(), torch.zeros(10, dtype=torch.float64), 300

    def tuned(rate: float) -> float:
        weight = start.clone()
        base = torch.optim.AdamW([weight], betas=(0.9, BETA2), weight_decay=0.0)
        for k in range(steps):
            weight.grad, base.param_groups[0]["lr"] = gradient_of(loss, weight), rate * cosine(k / steps)
            base.step()
        return loss(weight).item()

    best = min(tuned(10.0**exponent) for exponent in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))
    run = adamw(method, loss, start, initial_d=initial).train(steps)
    assert loss(run.weight).item() - best < 1e-3 * (loss(start).item() - best)
    solution = start.clone()
    for _ in range(20):  # Newton's method
        hessian = torch.autograd.functional.hessian(loss, solution)
        solution = solution - torch.linalg.solve(hessian, gradient_of(loss, solution))
    distance = (solution - start).abs().max().item()
    assert distance / 20 <= run.history[-1] <= distance


BASES: dict[str, tuple[str, Callable[[list[Tensor]], torch.optim.Optimizer]]] = {
    "adamw": ("l1", partial(torch.optim.AdamW, weight_decay=0.0)),
    "sgd": ("l1", partial(torch.optim.SGD, momentum=0.9)),
    "psgd_kron": ("l1", heavyball.PSGDKron),
    "muon": ("spectral", heavyball.MuonAdamW),
}


@pytest.mark.filterwarnings("ignore:Learning rate changed")
@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (5, 5)])
@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("method", METHODS)
def test_is_never_above_the_distance_of_a_convex_problem(method: str, base: str, shape: tuple[int, int]) -> None:
    """Least squares over a matrix in float32, whatever the base and its momentum; nor below a 20th of it."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(30, shape[0], generator=generator)
    target = torch.randn(shape, generator=generator)
    kind, make = BASES[base]
    distance = target.abs().max().item()
    if kind == "spectral":
        distance = torch.linalg.matrix_norm(target, 2).item() / max(1.0, shape[0] / shape[1]) ** 0.5
    weight = torch.zeros(shape)
    estimate = RateEstimate(method, [Block(slice(0, weight.numel()), shape, kind)], weight.flatten())
    run = Run(lambda x: (inputs @ (x - target)).square().mean(), weight, make([weight]), estimate)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run.train(300)
    assert distance / 20 < run.history[-1] <= distance * (1 + 1e-5)
    assert run.loss(weight) < 1e-4 * run.loss(torch.zeros_like(weight))


@pytest.mark.parametrize("growth", [math.inf, 1.02, 1.2])
@pytest.mark.parametrize("method", METHODS)
def test_never_decreases_and_grows_no_faster_than_told(method: str, growth: float) -> None:
    run = adamw(method, logistic(), torch.zeros(10, dtype=torch.float64), growth=growth).train(300)
    ds = torch.tensor([1e-6, *run.history], dtype=torch.float64)
    factors = ds[1:] / ds[:-1]
    assert factors.min() >= 1 and factors.max() <= growth * (1 + 1e-12)
    assert factors.max() > min(growth, 1.4) * (1 - 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_estimate_goes_on_bit_for_bit(method: str, dtype: torch.dtype) -> None:
    loss, start, pairs = logistic(dtype), torch.zeros(10, dtype=dtype), []
    run = adamw(method, loss, start)
    for k in range(60):
        pairs.append((gradient_of(loss, run.weight), run.weight.clone()))
        if k == 25:
            saved = run.estimate.state()
            kept = {name: value.clone() for name, value in saved.items()}
        run.step(cosine(k / 60))
    resumed = RateEstimate(method, elementwise(10), torch.ones(10, dtype=dtype), beta=math.sqrt(BETA2))
    resumed.load(saved)
    for k in range(25, 60):
        resumed.observe(*pairs[k], cosine(k / 60))
    assert resumed.d > 10 * saved["d"]
    for name, value in run.estimate.state().items():
        assert torch.equal(value, resumed.state()[name])
        assert torch.equal(saved[name], kept[name])  # neither run wrote into it
    assert resumed.s.dtype == dtype and resumed.d.dtype == resumed.r.dtype == torch.float64
    with pytest.raises(ValueError, match="other parameters"):
        RateEstimate(method, elementwise(4), torch.zeros(4, dtype=dtype)).load(saved)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("kind", ["l1", "spectral"])
def test_a_step_that_is_not_finite_changes_nothing(method: str, bad: float, kind: str) -> None:
    torch.manual_seed(0)
    estimate = RateEstimate(method, [Block(slice(0, 6), (3, 2), kind)], torch.zeros(6), initial_d=0.5, beta=0.5)
    for _ in range(3):
        estimate.observe(torch.randn(6), torch.randn(6), 1.0)
    before = estimate.state()
    gradient = torch.tensor([1.0, 1.0, bad, 1.0, 1.0, 1.0])
    estimate.observe(gradient, torch.full((6,), 1e-9), 10.0)  # of 3e38, s overflows and r does not
    if bad != 3e38:
        estimate.observe(torch.ones(6), gradient, 1.0)  # weights that are not finite
    for name, value in estimate.state().items():
        assert torch.equal(value, before[name]), name
    estimate.observe(-torch.ones(6), torch.ones(6), 1.0)
    assert torch.isfinite(estimate.d) and not torch.equal(estimate.s, before["s"])


def test_gradients_of_zero_and_a_rate_of_zero_change_nothing() -> None:
    estimate = RateEstimate("prodigy", elementwise(3), torch.zeros(3))
    estimate.observe(torch.zeros(3), torch.ones(3), 1.0)  # 0 / 0
    estimate.observe(torch.ones(3), -torch.ones(3), 0.0)
    assert estimate.d == 1e-6 and estimate.r == 0 and not estimate.s.any()


@pytest.mark.parametrize("shape", [(6, 2), (2, 6), (4, 4), (3, 2, 2)])
def test_spectral_norm_bounds_the_nuclear_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    size, rows = math.prod(shape), shape[0]
    block = Block(slice(5, 5 + size), shape, "spectral")
    scale = max(1.0, rows * rows / size) ** 0.5
    for rank in range(1, min(rows, size // rows) + 1):
        matrix = torch.randn(rows, rank) @ torch.randn(rank, size // rows)
        nuclear = torch.linalg.matrix_norm(matrix, "nuc").item() * scale
        bound = block.dual_norm(torch.cat([torch.ones(5), matrix.flatten(), torch.ones(2)])).item()
        assert nuclear * (1 - 1e-5) <= bound <= nuclear * min(rows, size // rows) ** 0.5 * (1 + 1e-5)
    square = Block(slice(0, 16), (4, 4), "spectral")  # of a multiple of an orthogonal matrix it is the norm itself
    torch.testing.assert_close(square.dual_norm(1e30 * torch.eye(4).flatten()).item(), 4e30)  # the squares overflow


def test_the_norm_is_the_sum_over_blocks() -> None:
    blocks = [Block(slice(0, 3), (3,), "l1"), Block(slice(3, 7), (4, 1), "spectral", lr_scale=0.5)]
    blocks.append(Block(slice(7, 10), (3,), "l1", lr_scale=4.0))
    s = torch.tensor([1.0, -2, 3, 1, -1, 1, 1, 0, -1, 2], dtype=torch.float64)
    dual = 6 + 0.5 * (4**0.5 * 2) + 4 * 3  # one column: its nuclear norm is its length, 2; 4 rows for 1 column
    moved = torch.linspace(1, 2, 10, dtype=torch.float64)
    estimate = RateEstimate("dadaptation", blocks, torch.zeros_like(s), initial_d=1e-3, beta=0.9)
    estimate.observe(s, -moved, 1.0)
    torch.testing.assert_close(estimate.d.item(), (s @ moved).item() / dual, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "adam"}, {"growth": 1.0}, {"beta": 1.0}, {"initial_d": 0.0}, {"initial_d": math.nan}]
    + [{"blocks": [block]} for block in (Block(slice(1, 4), (3,), "l1"), Block(slice(0, 4), (3,), "l1"))]
    + [{"blocks": elementwise(3)}, {"blocks": [Block(slice(0, 4), (4,), "l2")]}],
)
def test_refuses_what_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"valid|must|the blocks have 3"):
        RateEstimate(**({"method": "prodigy", "blocks": elementwise(4), "start": torch.zeros(4)} | wrong))


def one_step(device: str) -> Tensor:
    blocks = [Block(slice(0, 6), (3, 2), "spectral"), Block(slice(6, 8), (2,), "l1")]
    weights = torch.zeros(8, device=device)
    estimate = RateEstimate("prodigy", blocks, weights, growth=1.5)
    for _ in range(2):
        d, before = estimate.d, weights.clone()
        estimate.observe(torch.ones_like(weights), weights, 0.7)
        weights.sub_(0.1)
        scale_step_([weights], [before], d)
    return weights


def test_reads_nothing_back_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a tensor's value was read")

    with monkeypatch.context() as patched:
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
            patched.setattr(Tensor, name, refuse)
        moved = one_step("cpu")
    torch.testing.assert_close(moved, torch.full((8,), -2e-7), rtol=1e-5, atol=0)
    assert one_step("meta").is_meta  # tensors without values: reading one raises

"""Every setting in configs/optimizer acts, MARS and caution do what their papers say, and state is put back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dist_trainer import optimizers
from dist_trainer.config_files import config_dir
from dist_trainer.optimizers.newton import finite_difference_product

FILES = sorted((config_dir() / "optimizer").glob("*.yaml"))
STEPS = 12
# Another value for each setting.
OTHER: dict[str, Any] = {
    "lr": 0.0123,
    "betas": [0.5, 0.7],
    "beta": 0.5,
    "eps": 0.01,
    "weight_decay": 0.1,
    "nesterov": False,
    "storage_dtype": "bfloat16",
    "q_dtype": "bfloat16",
    "mars": True,
    "mars_gamma": 0.1,
    "caution": True,
    "precond_lr": 0.5,
    "precond_init_scale": 0.3,
    "preconditioner_update_probability.initial": 0.3,
    "preconditioner_update_probability.final": 0.9,
    "preconditioner_update_probability.decay": 0.5,
    "preconditioner_update_probability.hold": 1,
    "momentum_into_precond_update": False,
    "precond_grad_accum": True,
    "dampening": 0.1,
    "lower_bound_beta": 0.1,
    "max_size_triangular": 5,
    "rank": 2,
    "delayed": False,
    "shampoo_beta": 0.5,
    "max_precond_dim": 5,
    "precondition_1d": True,
    "r": 1.0,
    "weight_lr_power": 0.0,
    "precondition_frequency": 1,
    "lstm_blocks": "whole",
    "groups.vectors.dims": [0],
    "groups.vectors.lr_scale": 0.5,
    "groups.vectors.weight_decay": 0.05,
    "groups.vectors_and_heads.names": ["encoder.*"],
    "groups.vectors_and_heads.dims": [0],
    "groups.vectors_and_heads.lr_scale": 1.0,
    "groups.vectors_and_heads.betas": [0.5, 0.7],
    "groups.vectors_and_heads.eps": 10.0,
    "groups.vectors_and_heads.weight_decay": 0.05,
    "rate_estimate": "prodigy",
    "rate_initial": 1e-3,
    "rate_growth": 1.01,
    "newton_every": 3,
    "newton_epsilon": 0.1,
    "newton_product": "forward",
    "newton_precision": "bfloat16",
}
# On the trainer's minibatches: tests/test_newton.py; on nothing but who does the work: tests/test_sharding.py.
ELSEWHERE = ("newton_sub_batch", "sync", "shard_group")

# What a setting needs to matter: gradients accumulate only over steps without a fit of the preconditioner, ...
RARE_FITS = {"preconditioner_update_probability": {"initial": 1.0, "final": 0.1, "decay": 0.6, "hold": 2}}
DECAY = {"weight_decay": 0.1}
NEEDS: dict[str, dict[str, Any]] = {
    "mars_gamma": {"mars": True},
    "precond_grad_accum": RARE_FITS,
    "preconditioner_update_probability.initial": RARE_FITS,
    "preconditioner_update_probability.final": RARE_FITS,
    "preconditioner_update_probability.decay": RARE_FITS,
    "preconditioner_update_probability.hold": RARE_FITS,
    "rate_initial": {"rate_estimate": "dadaptation"},
    # ... and an estimate grows with steps that are no smaller than its bound: PSGD's are, before it is fitted.
    "rate_growth": {"rate_estimate": "dadaptation", "lr": 1.0, "rate_initial": 1e-5, "precond_init_scale": 10.0},
    "groups.vectors.dims": DECAY,
    "groups.vectors.weight_decay": DECAY,
}


class Small(nn.Module):
    """An LSTM policy's kinds of weights: matrices, an LSTM's matrices, vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.lstm = nn.LSTM(8, 4)
        self.action_head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.encoder(inputs).tanh()[None])
        return self.action_head(outputs[0])


class Problem:
    """A small policy-like module and gradients that depend on the weights and on the step, not on luck."""

    def __init__(self, config: dict[str, Any], dtype: torch.dtype = torch.float32):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = Small().to(dtype)
        self.optimizer = optimizers.make_optimizer(config, self.module)
        self.parameters = list(self.module.parameters())
        self.step_count = 0

    def set_gradient(self) -> Tensor:
        """The flat gradient of a batch of this step's, also in the parameters' grad; a Newton optimizer's pair."""
        newton = self.optimizer.newton
        if newton and newton.is_due(self.step_count):
            pair = finite_difference_product(self.parameters, self.raw_gradient, newton, self.step_count)
            newton.hand_over(self.optimizer.units, *pair)
        flat = self.raw_gradient()
        optimizers.correct_gradient_(self.optimizer, flat)
        for parameter, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()
        return flat

    def raw_gradient(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.step_count)
        dtype = self.parameters[0].dtype
        inputs = torch.randn(16, 6, generator=generator, dtype=dtype)
        targets = torch.randn(16, 3, generator=generator, dtype=dtype)
        self.module.zero_grad()
        (self.module(inputs) - targets).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])

    def run(self, steps: int, lr: float, precond_factor: float = 1.0) -> Tensor:
        """The flat weights after some steps."""
        for _ in range(steps):
            gradient = self.set_gradient()
            key = {"seed": 1, "optimizer_step": self.step_count}
            optimizers.step(self.optimizer, gradient, lr=lr, precond_factor=precond_factor, **key)
            self.step_count += 1
        return torch.cat([p.detach().flatten() for p in self.parameters])


def load(path: Path, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config | changes


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values


def replaced(config: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy with the setting of this dotted name."""
    first, _, rest = name.partition(".")
    return config | {first: replaced(config[first], rest, value) if rest else value}


def knobs() -> list[Any]:
    return [
        pytest.param(path, name, id=f"{path.stem}-{name}")
        for path in FILES
        for name in flat(load(path))
        if not name.endswith("_target_") and name not in ELSEWHERE
    ]


@pytest.mark.parametrize(("path", "name"), knobs())
def test_every_listed_setting_changes_the_update(path: Path, name: str) -> None:
    """No file lists a setting that its optimizer ignores."""
    config = load(path)
    base = config | {key: value for key, value in NEEDS.get(name, {}).items() if key in config}
    assert flat(base)[name] != OTHER[name]
    other = replaced(base, name, OTHER[name])
    assert not torch.equal(Problem(base).run(STEPS, base["lr"]), Problem(other).run(STEPS, other["lr"]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_settings_give_the_same_update(path: Path) -> None:
    """So that the test above sees the setting and not noise, whatever the global generator's state."""
    torch.manual_seed(1)
    first = Problem(load(path)).run(STEPS, 0.01)
    torch.manual_seed(2)
    assert torch.equal(first, Problem(load(path)).run(STEPS, 0.01))
    assert first.isfinite().all()


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_captured_state_continues_exactly(path: Path, storage: str) -> None:
    """Law 6, for every optimizer and for moments in bfloat16, with MARS's memory of the last gradient."""
    config = load(path, storage_dtype=storage, mars=True)
    config |= {"caution": True} if "caution" in config else {}
    if "rate_estimate" in config:
        config["rate_estimate"] = "prodigy"
    whole = Problem(config)
    whole.run(5, 0.01)
    weights = [p.detach().clone() for p in whole.parameters]
    captured = optimizers.capture(whole.optimizer)
    expected = whole.run(STEPS, 0.01)

    resumed = Problem(config)
    with torch.no_grad():
        for parameter, weight in zip(resumed.parameters, weights, strict=True):
            parameter.copy_(weight)
    optimizers.restore(resumed.optimizer, captured)
    resumed.step_count = 5
    assert torch.equal(resumed.run(STEPS, 0.01), expected)


@pytest.mark.parametrize("name", ["psgd_kron", "psgd_pro", "qsgd", "lather", "psgd_lra"])
def test_the_preconditioners_rate_is_scheduled(name: str) -> None:
    """A factor on precond_lr equals that precond_lr; it is not compounded from step to step."""
    path = config_dir() / "optimizer" / f"{name}.yaml"
    scaled = Problem(load(path)).run(STEPS, 0.01, precond_factor=0.5)
    assert torch.equal(scaled, Problem(load(path, precond_lr=0.05)).run(STEPS, 0.01))
    assert not torch.equal(scaled, Problem(load(path)).run(STEPS, 0.01))


def test_mars_is_the_papers_correction() -> None:
    """c[t] = g[t] + gamma beta1 / (1 - beta1) (g[t] - g[t-1]), fed to Adam, written out; arXiv 2411.10438."""
    gamma, beta1, beta2, eps, lr = 0.025, 0.9, 0.99, 1e-16, 0.01  # heavyball clamps at eps instead of adding it
    without = {"_target_": "heavyball.AdamW", "betas": [beta1, beta2], "eps": eps, "storage_dtype": "float64"}
    actual = Problem(without | {"mars": True, "mars_gamma": gamma}, torch.float64)
    plain = Problem(without, torch.float64)
    weights = torch.cat([p.detach().flatten() for p in plain.parameters])
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    previous = None
    for step in range(1, STEPS + 1):
        plain.step_count = step - 1
        torch.nn.utils.vector_to_parameters(weights, plain.parameters)
        gradient = plain.set_gradient()
        corrected = gradient if previous is None else gradient + gamma * beta1 / (1 - beta1) * (gradient - previous)
        previous = gradient
        first = beta1 * first + (1 - beta1) * corrected
        second = beta2 * second + (1 - beta2) * corrected.square()
        weights = weights - lr * (first / (1 - beta1**step)) / ((second / (1 - beta2**step)).sqrt() + eps)
    torch.testing.assert_close(actual.run(STEPS, lr), weights, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", [f for f in FILES if "caution" in load(f)], ids=lambda path: path.stem)
def test_caution_is_the_papers_mask(path: Path) -> None:
    """w - lr u [u g > 0] n / (count + 1) per tensor, u being what the plain optimizer would do; arXiv 2411.16085."""
    lr, decay = 0.01, 0.1
    for steps in (1, 2, 6):  # the state does not depend on caution, as long as weights and gradients are the same
        plain, cautious = (Problem(load(path, weight_decay=decay, caution=caution)) for caution in (False, True))
        plain.run(steps - 1, lr)
        cautious.optimizer.caution = False
        cautious.run(steps - 1, lr)
        cautious.optimizer.caution = True
        before = torch.cat([p.detach().flatten() for p in plain.parameters])
        gradient = plain.set_gradient()
        after, actual = plain.run(1, lr), cautious.run(1, lr)
        for unit in cautious.optimizer.units:
            shrunk = 1 - lr * unit.inner.param_groups[0]["weight_decay"]
            for part in unit.parts:  # a tensor of its own, each
                update = (before[part] * shrunk - after[part]) / lr
                keep = update * gradient[part] > 0
                scale = keep.numel() / (keep.sum() + 1)
                expected = before[part] * shrunk - lr * update * keep * scale
                torch.testing.assert_close(actual[part], expected, rtol=1e-6, atol=1e-6)

"""Newton-PSGD: a PSGD preconditioner fitted to (vector, Hessian-vector) pairs instead of to gradients.

heavyball 3.2.1 has a switch for this (`hessian_approx`) that changes nothing: the test of its interval is inverted, and
a product that is computed is filed under tensors that were replaced since, and lost. Here the trainer computes the
products (finite differences of the gradient, so that a fused LSTM, which has no double backward, stays in use), and the
two look-ups of heavyball through which a pair would arrive are answered with it.

Source: X.-L. Li, "Preconditioned stochastic gradient descent", arXiv 1512.04202 (the Newton type of its section II).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import heavyball
import torch
from heavyball import utils
from torch import Tensor, nn

from dist_trainer.errors import ConfigError, choices
from dist_trainer.keyed import keyed_generators
from dist_trainer.optimizers.units import Unit
from dist_trainer.validation import validate_newton

# By name: heavyball derives others from these that never look for a pair.
TAKE_PAIRS = ("PSGDKron", "LATHER", "PSGDLRA")
EPSILON = {"float32": 3.45e-4, "bfloat16": 5e-3}  # by precision; benchmarks/LOG.md has the errors of others
_PAIRS = "newton_pairs"  # in a parameter group: by a parameter's address, {vector, hessian_vector}, until consumed


@dataclass
class Newton:
    """When and how products are taken; the preconditioner is fitted at these steps alone."""

    every: int  # optimizer steps
    product: str  # central: g(w + eps v) - g(w - eps v); forward: g(w + eps v) - g(w); exact: double backward
    precision: str  # of the passes of a finite difference: float32 (and no TF32) | bfloat16 (autocast)
    sub_batch: int  # one of so many groups of environments is used for the product
    epsilon: float | None = None  # of a finite difference, in units of a standard normal probe; None: EPSILON's
    fits: int = 0  # of one unit's preconditioner to a pair, counted over all units

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Newton:
        """From the optimizer's newton_* settings; all but newton_epsilon must be there. Raises ConfigError."""
        names = {f"newton_{field.name}" for field in fields(cls) if field.name != "fits"}
        for name in settings.keys() - names:
            raise ConfigError(f"optimizer.{name}", settings[name], f"no such setting; {choices(names, name)}")
        for name in sorted(names - settings.keys() - {"newton_epsilon"}):
            raise ConfigError(f"optimizer.{name}", None, f"needs a value, with {', '.join(sorted(settings))}")
        validate_newton(settings)
        return cls(**{name.removeprefix("newton_"): value for name, value in settings.items()})

    def is_due(self, optimizer_step: int) -> bool:
        return optimizer_step % self.every == 0

    def attach(self, units: Sequence[Unit]) -> None:
        """The preconditioners are fitted in steps that have a pair, and in no other.

        Raises ConfigError if none of the optimizers would take a pair.
        """
        if not any(takes_pairs(unit) for unit in units):
            given = ", ".join(sorted({type(unit.inner).__name__ for unit in units}))
            valid = ", ".join(f"heavyball.{name}" for name in TAKE_PAIRS)
            raise ConfigError("optimizer._target_", given, f"takes no newton_* settings; valid with them: {valid}")
        for unit in filter(takes_pairs, units):
            inner: Any = unit.inner
            inner.precond_schedule = partial(_fits_if_paired, inner.param_groups)

    def hand_over(self, units: Sequence[Unit], vector: Tensor, product: Tensor) -> None:
        """Flat (parameters,) tensors in the order of the policy's parameters, for the next step."""
        for unit in filter(takes_pairs, units):
            (group,) = unit.inner.param_groups
            group[_PAIRS] = {
                weight.data_ptr(): {"vector": vector[part], "hessian_vector": product[part]}
                for weight, part in zip(unit.weights, unit.parts, strict=True)
            }

    def check_consumed(self, units: Sequence[Unit]) -> None:
        """After the step. Raises RuntimeError if heavyball did not take a pair: it would have fitted something else."""
        for unit in units:
            for group in unit.inner.param_groups:
                unused = group.pop(_PAIRS, None)
                if unused:
                    kind = type(unit.inner).__name__
                    raise RuntimeError(f"{len(unused)} Newton pairs of {unit.name} were not used by {kind}")
                self.fits += 0 if unused is None else len(unit.weights)


def takes_pairs(unit: Unit) -> bool:
    return type(unit.inner) in [getattr(heavyball, name) for name in TAKE_PAIRS]


def _fits_if_paired(groups: Sequence[dict[str, Any]], _: object) -> float:
    """The probability of a fit: 1 in a step that has a pair, else 0."""
    return float(any(_PAIRS in group for group in groups))


def finite_difference_product(
    parameters: Sequence[nn.Parameter], gradient: Callable[[], Tensor], newton: Newton, seed: int
) -> tuple[Tensor, Tensor]:
    """A standard normal probe v and H v by differences of the gradient; weights are put back bit for bit.

    H v = (g(w + eps v) - g(w - eps v)) / (2 eps), or its one-sided form. In float32 autocast and TF32 are off
    meanwhile: their rounding is larger than the difference (benchmarks/LOG.md).

    Args:
        gradient: computes the flat gradient (parameters,) at the weights as they then are.
        seed: the same on all learners, so that their products can be added up.
    """
    vector = _probe(parameters, seed)
    saved = [p.detach().clone() for p in parameters]
    epsilon = EPSILON[newton.precision] if newton.epsilon is None else newton.epsilon
    central = newton.product == "central"

    def gradient_at(distance: float) -> Tensor:
        with torch.no_grad():
            parts = vector.split([p.numel() for p in parameters])
            for parameter, weight, part in zip(parameters, saved, parts, strict=True):
                parameter.copy_(torch.add(weight, part.view_as(weight), alpha=distance))
        return gradient().clone()

    try:
        with _precision(newton.precision, vector.device):
            ahead = gradient_at(epsilon)
            behind = gradient_at(-epsilon if central else 0.0)
    finally:
        with torch.no_grad():
            for parameter, weight in zip(parameters, saved, strict=True):
                parameter.copy_(weight)
    return vector, (ahead - behind) / (epsilon * (2 if central else 1))


def exact_product(
    parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor | None], seed: int
) -> tuple[Tensor, Tensor]:
    """The same by differentiating twice (Pearlmutter, "Fast exact multiplication by the Hessian", 1994).

    Args:
        loss: computes the loss (); None where this learner has nothing to add.
        seed: the same on all learners, so that their products can be added up.

    Raises RuntimeError if some operation of the policy has no double backward.
    """
    vector = _probe(parameters, seed)
    with _precision("float32", vector.device):
        value = loss()
        if value is None:
            return vector, torch.zeros_like(vector)
        gradients = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        along = torch.cat([gradient.flatten() for gradient in gradients]) @ vector
        columns = torch.autograd.grad(along, parameters, materialize_grads=True)
    return vector, torch.cat([column.flatten() for column in columns])


def _probe(parameters: Sequence[nn.Parameter], seed: int) -> Tensor:
    """Standard normal, (parameters,)."""
    device, dtype = parameters[0].device, parameters[0].dtype
    with keyed_generators(seed, device):
        return torch.randn(sum(p.numel() for p in parameters), device=device, dtype=dtype)


@contextmanager
def _precision(name: str, device: torch.device) -> Iterator[None]:
    """float32: no autocast, no TF32. bfloat16: autocast to it."""
    if name == "bfloat16":
        # Without the cache: it would go on with the weights of before the perturbation.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    # One by one: torch.backends.cudnn.flags would switch off cuDNN, and with it the fused LSTM, unless told otherwise.
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    backends = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _find(group: dict[str, Any], tensor: Tensor) -> tuple[dict[int, Any], int] | None:
    """The group's pairs and the key of this tensor's. heavyball copies the tensor of a group of one into a stack."""
    pairs: dict[int, Any] | None = group.get(_PAIRS)
    if not pairs:
        return None
    key = tensor.data_ptr() if len(group["params"]) > 1 else next(iter(pairs))
    return (pairs, key) if key in pairs else None


def _answer_lookups_with_pairs() -> None:
    get, take = utils.get_temporary, utils.take_temporary

    def get_temporary(group: dict[str, Any], tensor: Tensor) -> Any:
        found = _find(group, tensor)
        if found is None:
            return get(group, tensor)
        pairs, key = found
        return {name: part.view_as(tensor) for name, part in pairs[key].items()}

    def take_temporary(group: dict[str, Any], tensor: Tensor, *keys: str) -> Any:
        found = _find(group, tensor) if keys == ("vector", "hessian_vector") else None
        if found is None:
            return take(group, tensor, *keys)
        pairs, key = found
        pair = pairs.pop(key)
        return tuple(pair[name].view_as(tensor) for name in keys)

    utils.get_temporary, utils.take_temporary = get_temporary, take_temporary


_answer_lookups_with_pairs()

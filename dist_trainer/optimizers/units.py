"""Which weights are updated together, by which optimizer, with which settings: what an optimizer's yaml asks for.

A *unit* is what one inner optimizer steps: one parameter, one gate of an LSTM's matrix, or, for methods that treat
every number on its own (and for low-rank PSGD, whose preconditioner spans all weights), all parameters of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import heavyball
import torch
from torch import Tensor, nn

from dist_trainer.errors import ConfigError, choices
from dist_trainer.target import make
from dist_trainer.validation import LSTM_BLOCKS

LSTM_MATRICES = "*lstm*.weight_[ih]h*"  # names of ours and of torch's
GATES = 4  # input, forget, cell, output: so many equal blocks of rows
SELECTORS = ("names", "dims")  # of a group
FUSED = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")  # have one kernel for all weights


@dataclass
class Unit:
    """`parts` are the weights' places in the policy's flat gradient, in its order of parameters."""

    name: str
    weights: list[nn.Parameter]  # the policy's own, or views of their rows
    parts: list[slice]
    inner: torch.optim.Optimizer
    lr_scale: float  # of the common rate
    precond_lr: float | None  # before the schedule; None where the optimizer has no such rate
    beta1: float  # decay of the momentum; 0 where there is none

    def take_gradient(self, flat: Tensor) -> None:
        """Gives the weights their parts of the policy's flat gradient, as views."""
        for weight, part in zip(self.weights, self.parts, strict=True):
            weight.grad = flat[part].view_as(weight)


@dataclass
class _Weight:
    name: str
    weight: nn.Parameter
    part: slice
    dims: int


def make_units(settings: dict[str, Any], policy: nn.Module, one_by_one: bool) -> list[Unit]:
    """The units of a policy, in the order of its parameters.

    Args:
        settings: of the yaml, without those that are not the inner optimizer's (mars, newton_*, ...). `groups` are
            named settings for the parameters that they select by name (`names`, with * and ?) or by their number of
            dimensions (`dims`); the first that selects a parameter has it. A group changes what it sets and keeps the
            rest, unless it names a `_target_` of its own: then it has nothing but its own (and the storage_dtype, in a
            class of heavyball's). `lr_scale` multiplies the rate. `lstm_blocks: gates` makes each gate's rows of an
            LSTM's matrices a unit of their own.
        one_by_one: every parameter a unit of its own, even if the method does not ask for it.

    Raises ConfigError if an optimizer does not take its settings, or a group could never select anything.
    """
    common = {key: value for key, value in settings.items() if key != "groups"}
    groups = {name: group for name, group in (settings.get("groups") or {}).items() if group is not None}
    for name, group in groups.items():
        _check_group(name, group, common)
    members: dict[str, list[_Weight]] = {name: [] for name in ("", *groups)}
    for weight in _weights(policy):
        members[next((name for name, group in groups.items() if _selects(group, weight)), "")].append(weight)
    for name, group in groups.items():
        if group.get("names") and not members[name]:
            known = ", ".join(weight.name for weight in _weights(policy))
            raise ConfigError(f"optimizer.groups.{name}.names", group["names"], f"selects no parameter of: {known}")
    units = []
    for name, weights in members.items():
        own = {key: value for key, value in groups.get(name, {}).items() if key not in SELECTORS}
        kept = common if "_target_" not in own else _storage_dtype(common, own["_target_"])
        merged = kept | own
        for part_of_name, chosen in _split(merged, weights, one_by_one):
            units.append(_make_unit(part_of_name or name or "all", chosen, merged))
    return sorted(units, key=lambda unit: unit.parts[0].start)


def _storage_dtype(common: dict[str, Any], target: str) -> dict[str, Any]:
    """What a group with a class of its own takes over: all moments are then in one type."""
    known = target.startswith("heavyball.") and "storage_dtype" in common
    return {"storage_dtype": common["storage_dtype"]} if known else {}


def _check_group(name: str, group: dict[str, Any], common: dict[str, Any]) -> None:
    if not isinstance(group, dict):
        raise ConfigError(f"optimizer.groups.{name}", group, "must be settings, with names or dims")
    for selector, kind in (("names", str), ("dims", int)):
        values = group.get(selector) or []
        if not isinstance(values, list | tuple) or not all(isinstance(value, kind) for value in values):
            raise ConfigError(f"optimizer.groups.{name}.{selector}", values, f"must be a list of {kind.__name__}")
    if not any(group.get(selector) for selector in SELECTORS):
        wanted = "needs names or dims, which say what parameters are its"
        raise ConfigError(f"optimizer.groups.{name}", group, wanted)
    if "lr" in group:
        raise ConfigError(f"optimizer.groups.{name}.lr", group["lr"], "set lr_scale, a factor on optimizer.lr")
    if "_target_" not in group:
        known = {*common, *SELECTORS, "lr_scale"}
        for key in group.keys() - known:
            raise ConfigError(f"optimizer.groups.{name}.{key}", group[key], "no such setting; " + choices(known, key))


def _weights(policy: nn.Module) -> Iterator[_Weight]:
    at = 0
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            # A scalar as a vector of one: SOAP and PSGDLRA cannot step scalars.
            weight = parameter if parameter.dim() else nn.Parameter(parameter.detach().view(1))
            yield _Weight(name, weight, slice(at, at + parameter.numel()), parameter.dim())
            at += parameter.numel()


def _selects(group: dict[str, Any], weight: _Weight) -> bool:
    by_name = any(fnmatchcase(weight.name, pattern) for pattern in group.get("names") or ())
    return by_name or weight.dims in (group.get("dims") or ())


def _split(settings: dict[str, Any], weights: list[_Weight], one_by_one: bool) -> Iterator[tuple[str, list[_Weight]]]:
    """Names and weights of the units that a group's weights make up."""
    blocks = settings.get("lstm_blocks")
    if blocks is None and not one_by_one:
        if weights:
            yield "", weights
        return
    if blocks not in (None, *LSTM_BLOCKS):
        raise ConfigError("optimizer.lstm_blocks", blocks, choices(LSTM_BLOCKS, str(blocks)))
    for weight in weights:
        if blocks == "gates" and fnmatchcase(weight.name, LSTM_MATRICES):
            size = weight.weight.numel() // GATES
            for gate, rows in enumerate(weight.weight.detach().chunk(GATES)):
                start = weight.part.start + gate * size
                name = f"{weight.name}.gate{gate}"
                yield name, [_Weight(name, nn.Parameter(rows), slice(start, start + size), rows.dim())]
        else:
            yield weight.name, [weight]


def _make_unit(name: str, weights: list[_Weight], settings: dict[str, Any]) -> Unit:
    settings = {key: value for key, value in settings.items() if value is not None and key != "lstm_blocks"}
    lr_scale = settings.pop("lr_scale", 1.0)
    probability = settings.get("preconditioner_update_probability")
    if isinstance(probability, dict):
        settings["preconditioner_update_probability"] = partial(fit_probability, **probability)
    parameters = [weight.weight for weight in weights]
    target = settings.pop("_target_")
    fused = {"fused": True} if target in FUSED else {}
    inner = make("optimizer", target, torch.optim.Optimizer, parameters, **(fused | settings))
    if isinstance(inner, heavyball.utils.StatefulOptimizer):
        inner.consume_grad = False  # gradients are views of one flat tensor and stay where they are
    return Unit(
        name=name,
        weights=parameters,
        parts=[weight.part for weight in weights],
        inner=inner,
        lr_scale=lr_scale,
        precond_lr=settings.get("precond_lr"),
        beta1=settings["betas"][0] if "betas" in settings else settings.get("beta", 0.0),
    )


def fit_probability(step: int, initial: float, final: float, decay: float, hold: int) -> float:
    """Of fitting a PSGD preconditioner in optimizer step `step` (from 1): `initial` for `hold` steps, then times
    `decay` a step down to `final`. heavyball adds the probabilities up and fits whenever the sum passes a whole
    number: a fit is no matter of chance, and falls on the same step on every learner.
    """
    return max(final, initial * decay ** max(step - hold, 0))

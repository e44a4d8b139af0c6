"""heavyball's optimizers, driven so that all learners hold the same weights and state, and resume exactly.

heavyball 3.2.1 draws random numbers from torch's global generator inside `step()` (probes, initial factors, stochastic
rounding), which differ between learners: replicas then drift apart. Here every unit (see units.py) steps under a
generator keyed by (seed, optimizer_step, unit), so that what one unit draws does not depend on who steps the others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import heavyball
import torch
from torch import Tensor, nn

from dist_trainer.distributed import World
from dist_trainer.errors import ConfigError
from dist_trainer.keyed import keyed_generators, keyed_seed, seed_generators
from dist_trainer.optimizers import patches as patches  # before the first optimizer is made
from dist_trainer.optimizers.newton import Newton
from dist_trainer.optimizers.rate_free import Block, RateEstimate, scale_step_
from dist_trainer.optimizers.sharding import Shards, assign_owners, exchange_weights, make_shards, unit_memory
from dist_trainer.optimizers.stacking import stack, step_together
from dist_trainer.optimizers.state import capture_unit, copied, decode, encode, restore_unit, unit_tensors
from dist_trainer.optimizers.transforms import Mars, apply_caution_
from dist_trainer.optimizers.units import Unit, make_units
from dist_trainer.validation import check_shard_group


@dataclass
class Optimizer:
    """Units that are stepped together, and what dist_trainer adds around their step."""

    units: list[Unit]
    mars: Mars | None
    caution: bool
    newton: Newton | None
    rate: RateEstimate | None  # a further factor on the rate
    shards: Shards | None = None  # None: every learner steps all units

    @property
    def own_units(self) -> list[Unit]:
        """The units that this learner steps, and whose state it keeps."""
        return [unit for index, unit in enumerate(self.units) if not self.shards or self.shards.owns(index)]

    @property
    def steps(self) -> list[list[Unit]]:
        """own_units, those of one inner optimizer together."""
        together: dict[int, list[Unit]] = {}
        for unit in self.own_units:
            together.setdefault(id(unit.inner), []).append(unit)
        return list(together.values())

    @property
    def device(self) -> torch.device:
        return self.units[0].weights[0].device


def make_optimizer(config: dict[str, Any], policy: nn.Module, world: World | None = None) -> Optimizer:
    """The optimizer that `config` describes (`_target_` and its arguments) over the policy's trainable parameters.

    `mars*`, `caution`, `newton_*` and `rate_*` are handled here, whatever heavyball's flags for these do;
    units.make_units explains `groups` and `lstm_blocks`. A setting that is null is left out: the default holds. With
    `sync: sharded` the learners of a group of `shard_group` (default: those of a machine) divide the units.

    Raises ConfigError if there is no such class or it does not take the settings.
    """
    settings = {name: value for name, value in config.items() if value is not None}
    sharded, group_size = settings.pop("sync", "replicated") == "sharded", settings.pop("shard_group", None)
    mars_gamma = settings.pop("mars_gamma", 0.0)
    use_mars = settings.pop("mars", False)
    caution = settings.pop("caution", False)
    newton_settings = {name: settings.pop(name) for name in list(settings) if name.startswith("newton_")}
    rate_settings = {name: settings.pop(name) for name in list(settings) if name.startswith("rate_")}
    newton = Newton.from_settings(newton_settings) if newton_settings else None
    # A pair must find the weight that it belongs to, and heavyball stacks equally shaped weights of an optimizer. A
    # low-rank preconditioner is one for all weights, and takes them as they are.
    units = make_units(settings, policy, one_by_one=newton is not None and "rank" not in config)
    if not units:
        raise ConfigError("policy", type(policy).__name__, "has no parameters to train")
    if newton:
        newton.attach(units)
    mars = Mars([(part, mars_gamma, unit.beta1) for unit in units for part in unit.parts]) if use_mars else None
    shards = make_shards(world, _shard_group_size(world, group_size), units) if sharded and world else None
    optimizer = Optimizer(units, mars, caution, newton, _make_rate_estimate(rate_settings, units), shards)
    stack(optimizer.own_units)
    return optimizer


def _shard_group_size(world: World, size: int | None) -> int:
    """By default the learners of a machine; where machines have different numbers of them, the largest number that
    divides them all. Raises ConfigError if groups of this size cannot be formed."""
    if size is None:
        local_sizes = world.all_gather(torch.tensor([world.local_size], device=world.device))
        common = math.gcd(*local_sizes.flatten().tolist())
        if common == 1 and world.is_first and world.size > 1:
            warnings.warn("optimizer.sync=sharded divides nothing: groups stay within a machine", stacklevel=2)
        return common
    check_shard_group(size, world.size)
    return size


def _make_rate_estimate(settings: dict[str, Any], units: list[Unit]) -> RateEstimate | None:
    """By rate_estimate, rate_initial and rate_growth of the yaml; starts from the weights as they are."""
    method = settings.get("rate_estimate")
    if method is None:
        return None
    blocks = []
    for unit, weight, part in _in_order(units):
        orthogonalized = isinstance(unit.inner, heavyball.MuonAdamW) and weight.dim() >= 2
        blocks.append(Block(part, tuple(weight.shape), "spectral" if orthogonalized else "l1", unit.lr_scale))
    names = {"rate_initial": "initial_d", "rate_growth": "growth"}
    known = {name: settings[key] for key, name in names.items() if key in settings}
    return RateEstimate(method, blocks, _flat_weights(units), **known)


def _in_order(units: list[Unit]) -> list[tuple[Unit, Tensor, slice]]:
    """Every weight with its unit and its part, in the order of the flat gradient."""
    weights = [(unit, *pair) for unit in units for pair in zip(unit.weights, unit.parts, strict=True)]
    return sorted(weights, key=lambda weight: weight[2].start)


def _flat_weights(units: list[Unit]) -> Tensor:
    """(parameters,) in the order of the flat gradient."""
    return torch.cat([weight.detach().flatten() for _, weight, _ in _in_order(units)])


def correct_gradient_(optimizer: Optimizer, gradient: Tensor) -> None:
    """MARS's correction of the reduced, flat gradient, in place; before it is clipped. Nothing if MARS is off."""
    if optimizer.mars:
        optimizer.mars.correct_(gradient)


def step(
    optimizer: Optimizer, gradient: Tensor, *, lr: float, seed: int, optimizer_step: int, precond_factor: float = 1.0
) -> None:
    """One update from the flat gradient (parameters,); the same bits on every learner if the gradients are the same.

    `precond_factor` scales the rate at which a PSGD preconditioner is fitted.
    """
    d = optimizer.rate.d if optimizer.rate else None
    if optimizer.rate:
        optimizer.rate.observe(gradient, _flat_weights(optimizer.units), lr)
    with keyed_generators(seed, optimizer.device):
        for units in optimizer.steps:
            seed_generators(keyed_seed(seed, "optimizer", optimizer_step, units[0].name), optimizer.device)
            _step_units(optimizer, units, gradient, lr * units[0].lr_scale, precond_factor, d)
    if optimizer.newton:
        optimizer.newton.check_consumed(optimizer.own_units)
    if optimizer.shards:
        exchange_weights(optimizer.shards, optimizer.units)


def _step_units(
    optimizer: Optimizer, units: list[Unit], gradient: Tensor, lr: float, precond_factor: float, d: Tensor | None
) -> None:
    """Those of one inner optimizer."""
    inner, weights = units[0].inner, [weight for unit in units for weight in unit.weights]
    for unit in units:
        unit.take_gradient(gradient)
    for group in inner.param_groups:
        group["lr"] = lr
        if units[0].precond_lr is not None:
            group["precond_lr"] = units[0].precond_lr * precond_factor
    keep = optimizer.caution or d is not None
    before = [weight.detach().clone() for weight in weights] if keep else []
    step_together(units)
    if optimizer.caution:
        apply_caution_(weights, before, lr * inner.param_groups[0].get("weight_decay", 0.0))
    if d is not None:
        scale_step_(weights, before, d)


def capture(
    optimizer: Optimizer, units: Sequence[Unit] | None = None, keep: Callable[[Tensor], Tensor] = copied
) -> dict[str, Any]:
    """All that this learner's optimizer remembers, of its own units or of `units`, made of tensors, numbers, strings,
    lists and dicts. `keep`: of each tensor what is to stand in its place; by default a copy."""
    own = optimizer.own_units if units is None else units
    return {
        "units": {unit.name: capture_unit(unit, keep) for unit in own},
        "previous_gradient": encode(optimizer.mars.previous if optimizer.mars else None, keep),
        "rate": encode(optimizer.rate.state() if optimizer.rate else None, keep),
    }


def units_to_save(optimizer: Optimizer, world: World) -> list[Unit]:
    """Of all units those that this learner writes into a checkpoint, so that each unit is written once: its own ones,
    which it shares out with its peers in other groups; without shards a share like the other learners'."""
    shards, units = optimizer.shards, optimizer.units
    if shards:
        mine = range(shards.peers.rank, len(units), shards.peers.size)
        return [units[index] for index in mine if shards.owns(index)]
    owners = assign_owners([unit_memory(unit) for unit in units], world.size)
    return [unit for unit, owner in zip(units, owners, strict=True) if owner == world.rank]


def restore(optimizer: Optimizer, captured: dict[str, Any]) -> None:
    """Puts back what `capture` copied, of all units that this learner owns, bit for bit, onto the parameters' device.

    Raises ValueError if it was captured from an optimizer of other parameters.
    """
    units: dict[str, Any] = captured["units"]
    if not units.keys() >= {unit.name for unit in optimizer.own_units} or len(units) > len(optimizer.units):
        raise ValueError("the saved optimizer state belongs to other parameters")
    for unit in optimizer.own_units:
        restore_unit(unit, units[unit.name])
    if optimizer.mars:
        optimizer.mars.previous = decode(captured["previous_gradient"], optimizer.device)
    if optimizer.rate:
        optimizer.rate.load(decode(captured["rate"], optimizer.device))


def named_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor of this learner's state, by unit and key; no copies."""
    return unit_state(optimizer) | common_state(optimizer)


def unit_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The part of named_tensors that learners hold who own the same units."""
    return {
        f"optimizer/{unit.name}/{path}": tensor
        for unit in optimizer.own_units
        for path, tensor in unit_tensors(unit).items()
    }


def single_copy_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The part of named_tensors that no other learner holds: units that are sharded in a single group."""
    return unit_state(optimizer) if optimizer.shards and optimizer.shards.peers.size == 1 else {}


def common_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """The part of named_tensors that every learner holds, sharded or not."""
    tensors = {}
    if optimizer.mars and optimizer.mars.previous is not None:
        tensors["optimizer/previous_gradient"] = optimizer.mars.previous
    if optimizer.rate:
        tensors |= {f"optimizer/rate/{name}": getattr(optimizer.rate, name) for name in optimizer.rate.state()}
    return tensors

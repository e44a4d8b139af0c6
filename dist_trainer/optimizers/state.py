"""What optimizers remember, by the names of their units: copied, put back bit for bit, and listed for comparison.

heavyball's `load_state_dict` casts state to the weights' type and loses group entries whose names begin with an
underscore; here the raw tensors are copied instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dist_trainer.optimizers.units import Unit

NOT_COMPARED = "Q_cache"  # in a name: heavyball may leave it uninitialized
_SET = "__set__"


def copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def capture_unit(unit: Unit, keep: Callable[[Tensor], Tensor] = copied) -> dict[str, Any]:
    """Everything that a unit remembers, made of tensors, numbers, strings, lists and dicts alone. `keep`: of each
    tensor what is to stand in its place."""
    inner = unit.inner
    return {
        "state": [encode(inner.state.get(weight, {}), keep) for weight in unit.weights],
        "groups": [
            {key: encode(value, keep) for key, value in group.items() if key != "params" and _is_plain(value)}
            for group in inner.param_groups
        ],
        "inner_group": encode(getattr(inner, "inner_group", {}), keep),
    }


def restore_unit(unit: Unit, captured: dict[str, Any]) -> None:
    """Puts back what capture_unit copied, onto the weights' device. Raises ValueError if it is of other weights."""
    inner, device = unit.inner, unit.weights[0].device
    if len(unit.weights) != len(captured["state"]) or len(inner.param_groups) != len(captured["groups"]):
        raise ValueError(f"the saved state of {unit.name} belongs to other weights")
    for weight, state in zip(unit.weights, captured["state"], strict=True):
        inner.state[weight] = decode(state, device)
    for group, saved in zip(inner.param_groups, captured["groups"], strict=True):
        for key in [key for key in group if key != "params" and key not in saved and _is_plain(group[key])]:
            del group[key]  # heavyball's first step adds some, its step counter among them
        group.update({key: decode(value, device) for key, value in saved.items()})
    if hasattr(inner, "inner_group"):
        inner.inner_group = decode(captured["inner_group"], device)


def unit_tensors(unit: Unit) -> dict[str, Tensor]:
    """Every tensor of the unit's state that must be the same on all learners, by a path within the unit."""
    tensors: dict[str, Tensor] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                if NOT_COMPARED not in str(key):
                    walk(f"{name}/{key}", item)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                walk(f"{name}/{index}", item)

    for index, weight in enumerate(unit.weights):
        walk(f"{index}", unit.inner.state.get(weight, {}))
    known = {id(tensor) for tensor in tensors.values()}  # some of heavyball's counters are in both
    for index, group in enumerate(unit.inner.param_groups):
        own = {key: x for key, x in group.items() if isinstance(x, Tensor) and id(x) not in known}
        walk(f"group/{index}", own)
    return tensors


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str)


def encode(value: Any, keep: Callable[[Tensor], Tensor] = copied) -> Any:
    """A copy in types that torch.load accepts without executing code. Raises TypeError for anything else."""
    if isinstance(value, Tensor):
        return keep(value)
    if isinstance(value, dict):
        return {key: encode(item, keep) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return {_SET: sorted(value)}
    if isinstance(value, list | tuple):
        items = [encode(item, keep) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if _is_plain(value):
        return value
    raise TypeError(f"optimizer state of type {type(value).__name__} cannot be saved")


def decode(value: Any, device: torch.device) -> Any:
    """What `encode` copied, copied again, onto the device."""
    if isinstance(value, Tensor):
        # 0-dimensional counters stay on the host if that is where they were.
        return value.clone() if value.dim() == 0 and value.device.type == "cpu" else value.to(device, copy=True)
    if isinstance(value, dict):
        return set(value[_SET]) if set(value) == {_SET} else {k: decode(item, device) for k, item in value.items()}
    if isinstance(value, list):
        return [decode(item, device) for item in value]
    return tuple(decode(item, device) for item in value) if isinstance(value, tuple) else value

"""Units of Muon that are stepped by one call.

Most of a Muon step of small matrices is not arithmetic but calls. So the units of a learner that differ in nothing but
their weights share one inner optimizer, which orthogonalizes all matrices of a shape as one batch (muon.py).

What a unit is does not change: it has its name, its owner and its state. heavyball's MuonAdamW treats every weight on
its own, and draws nothing while all is in float32 or float64: so who steps a unit together with which others changes no
bit of it. (With bfloat16 moments it draws to round; such units stay alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import heavyball
import torch

from dist_trainer.optimizers.units import Unit

EXACT = ("float32", "float64")  # storage types that nothing is rounded to at random


def stack(units: Sequence[Unit]) -> None:
    """Gives the units that can be stepped together one inner optimizer. They must not have been stepped yet."""
    leaders: list[Unit] = []
    for unit in units:
        if not _can_be_stacked(unit):
            continue
        leader = next((one for one in leaders if _settings(one) == _settings(unit)), None)
        if leader is None:
            leaders.append(unit)
        else:
            leader.inner.param_groups[0]["params"].extend(unit.weights)
            unit.inner = leader.inner


def step_together(units: Sequence[Unit]) -> None:
    """One step of the inner optimizer that these units share; their state looks as if each had stepped alone."""
    inner: Any = units[0].inner
    inner.step()
    for group in inner.param_groups:
        group.pop("param_count", None)  # a sum over weights that heavyball makes anew where it is missing
    for unit in units[1:]:  # heavyball notes its counter at the first weight alone
        inner.state_(unit.weights[0])["step"] = inner.param_groups[0]["step_count"]


def _can_be_stacked(unit: Unit) -> bool:
    if not isinstance(unit.inner, heavyball.MuonAdamW):
        return False
    (group,) = unit.inner.param_groups
    exact = group["storage_dtype"] in EXACT and all(weight.dtype != torch.bfloat16 for weight in unit.weights)
    return exact and all(weight.dim() == 2 for weight in unit.weights)


def _settings(unit: Unit) -> tuple[Any, ...]:
    (group,) = unit.inner.param_groups
    return unit.lr_scale, {key: value for key, value in group.items() if key != "params"}

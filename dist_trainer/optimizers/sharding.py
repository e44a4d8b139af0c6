"""Sharded optimizers: each unit is stepped, and its state kept, by one learner of a group; the others get its weights.

All learners of a group hold the same reduced gradient and the same weights, and a unit's random numbers depend on its
name alone: its owner computes what every learner would have computed. Owners are chosen once, by a cost model, so that
the slowest learner of a group has as little to do as can be. Groups repeat each other's work: an exchange stays within
a group, and with it on the fast links of a node.

Others do it so as well: distributed Shampoo (arXiv 2309.06497, section 4), kron_torch's `dist_kron`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dist_trainer.distributed import World
from dist_trainer.optimizers.units import Unit


@dataclass
class Shards:
    """`owners`: of each unit, a rank within the group. `peers`: the owners of the same units in all groups."""

    group: World
    peers: World
    owners: list[int]

    def owns(self, index: int) -> bool:
        return self.owners[index] == self.group.rank


def unit_operations(unit: Unit) -> int:
    """Floating-point operations of a step, in units that only compare: every side n of a matrix of m numbers has a
    factor that multiplies it (m n) and is itself fitted or rooted (n^3). A vector costs its length.
    """
    return sum(w.numel() + sum(w.numel() * side + side**3 for side in _sides(w)) for w in unit.weights)


def unit_memory(unit: Unit) -> int:
    """Numbers of state, likewise: the weight's own moments, and a factor of n^2 for every side n of a matrix."""
    return sum(w.numel() + sum(side**2 for side in _sides(w)) for w in unit.weights)


def _sides(weight: Tensor) -> list[int]:
    return [weight.shape[0], weight.numel() // weight.shape[0]] if weight.dim() > 1 else []


def unit_costs(units: Sequence[Unit]) -> list[float]:
    """A unit's share of all operations plus its share of all state: who has more of one gets less of the other."""
    work, memory = ([measure(unit) for unit in units] for measure in (unit_operations, unit_memory))
    return [a / sum(work) + b / sum(memory) for a, b in zip(work, memory, strict=True)]


def assign_owners(costs: Sequence[float], learners: int) -> list[int]:
    """The owner of each unit: the costliest first, each to the learner with the least so far (Graham, 1969: at most 4/3
    of the best). The same on every learner."""
    load = [0.0] * learners
    owners = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        owners[index] = min(range(learners), key=lambda rank: (load[rank], rank))
        load[owners[index]] += costs[index]
    return owners


def make_shards(world: World, size: int, units: Sequence[Unit]) -> Shards:
    """Over groups of `size` learners; all learners must call it."""
    return Shards(world.subgroup(size), world.peers(size), assign_owners(unit_costs(units), size))


@torch.no_grad()
def exchange_weights(shards: Shards, units: Sequence[Unit]) -> None:
    """After the owners' steps: every learner of the group gets all weights, in one all-gather of flat buffers that are
    as long as the fullest."""
    if shards.group.size == 1:
        return
    sizes = [0] * shards.group.size
    for unit, owner in zip(units, shards.owners, strict=True):
        sizes[owner] += sum(weight.numel() for weight in unit.weights)
    like = units[0].weights[0]
    own = torch.zeros(max(sizes), dtype=like.dtype, device=like.device)
    for piece, weight in _pieces(own, units, shards.owners, shards.group.rank):
        piece.copy_(weight.flatten())
    everyone = shards.group.all_gather(own)  # (learners, longest)
    for owner in range(shards.group.size):
        if owner != shards.group.rank:
            for piece, weight in _pieces(everyone[owner], units, shards.owners, owner):
                weight.copy_(piece.view_as(weight))


def _pieces(flat: Tensor, units: Sequence[Unit], owners: Sequence[int], owner: int) -> list[tuple[Tensor, Tensor]]:
    """One owner's weights with their places in its flat buffer."""
    weights = [w for unit, of in zip(units, owners, strict=True) if of == owner for w in unit.weights]
    sizes = [weight.numel() for weight in weights]
    return list(zip(flat[: sum(sizes)].split(sizes), weights, strict=True)) if weights else []

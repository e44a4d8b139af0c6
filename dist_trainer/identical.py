"""Tensors that must have the same bits on every learner of a group: compared by checksums, or made equal."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dist_trainer.distributed import World


class LearnersDiffer(RuntimeError):
    """Replicas that must be bit-identical are not."""


def check_identical(world: World, tensors: Mapping[str, Tensor]) -> None:
    """Compares a checksum of every tensor over all learners; one small all-gather.

    If `world` is a group, all learners of the run must call it, each with its own.

    Raises LearnersDiffer, on all learners, that names the first tensor that differs and the ranks that disagree with
    the majority: all ranks where there is none, as between two learners.
    """
    found = _tell_all(world, _describe(world, list(tensors), _differences(world, tensors)))
    if found:
        raise LearnersDiffer(found)


def make_identical(world: World, tensors: Mapping[str, Tensor]) -> str | None:
    """Compares like check_identical, and overwrites what differs with the tensor of the majority's first learner (of
    the first learner of all where there is no majority). Returns what was found, in words; None if nothing."""
    different = _differences(world, tensors)
    for index, (name, tensor) in enumerate(tensors.items()):
        if different[:, index].any():
            source = int((~different[:, index]).nonzero()[0])
            # Some of an optimizer's counters are on the host, and some of its matrices are transposed.
            there = tensor.detach().to(world.device, copy=True).contiguous()
            tensors[name].detach().copy_(world.broadcast_(there, source))
    return _tell_all(world, _describe(world, list(tensors), different))


def check_nobody_says(world: World, found: str | None) -> None:
    """Raises LearnersDiffer, on all learners, if any of them says something; with what each says."""
    everyone = dict(enumerate(world.all_values(found)))
    if any(everyone.values()):
        raise LearnersDiffer("; ".join(f"rank {rank}: {text}" for rank, text in everyone.items() if text))


def _tell_all(world: World, found: str | None) -> str | None:
    """What any group of the run has found: all learners then act alike, and the first can report it."""
    if not world.members or world.size == 1:  # this group is the run, or all groups are of one
        return found
    return "; ".join(dict.fromkeys(text for text in world.all_values_of_run(found) if text)) or None


def _differences(world: World, tensors: Mapping[str, Tensor]) -> Tensor:
    """(W, K) on the host: which learner's tensor is not as that of the most (of the first learner among equals)."""
    if world.size == 1 or not tensors:
        return torch.zeros(world.size, len(tensors), dtype=torch.bool)
    sums = torch.stack([_checksum(tensor).to(world.device) for tensor in tensors.values()])  # (K,) int64
    everyone = world.all_gather(sums).cpu()  # (W, K)
    votes = (everyone[:, None] == everyone[None]).sum(1)  # (W, K) learners that agree with each
    chosen = votes.argmax(0, keepdim=True)  # (1, K) the first of those with most
    return everyone != everyone.gather(0, chosen)


def _describe(world: World, names: list[str], different: Tensor) -> str | None:
    """None if nothing differs."""
    if not different.any():
        return None
    first = int(different.any(dim=0).nonzero()[0])
    minority = different[:, first].nonzero().flatten().tolist()
    no_majority = 2 * len(minority) >= world.size
    members = world.members or tuple(range(world.size))
    ranks = [members[place] for place in (range(world.size) if no_majority else minority)]
    count = int(different.any(dim=0).sum())
    return (
        f"learners hold different values of {names[first]} ({count} of {len(names)} tensors differ); "
        f"not as the majority{' (there is none)' if no_majority else ''}: ranks {ranks}"
    )


def _checksum(tensor: Tensor) -> Tensor:
    """A sum over the tensor's bits that depends on their positions; int64, wraps around; exact on every device."""
    raw = tensor.detach().contiguous().flatten().view(torch.uint8)
    words = torch.nn.functional.pad(raw, (0, -raw.numel() % 4)).view(torch.int32).to(torch.int64)
    weights = torch.arange(1, 2 * words.numel(), 2, device=raw.device) * 2654435761  # odd: no single change cancels
    return (words * weights).sum()

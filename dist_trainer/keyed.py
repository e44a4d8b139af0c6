"""Random numbers that are a function of a key, so that all learners, and a resumed run, draw the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def keyed_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for one purpose: equal for equal arguments, unrelated for different ones."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@contextmanager
def keyed_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's default generators start from `seed`; afterwards they go on as if nothing had been drawn."""
    generators = _generators(device)
    saved = [generator.get_state() for generator in generators]
    seed_generators(seed, device)
    try:
        yield
    finally:
        for generator, state in zip(generators, saved, strict=True):
            generator.set_state(state)


def seed_generators(seed: int, device: torch.device) -> None:
    """Starts torch's default generators from `seed`; to be called inside keyed_generators."""
    for generator in _generators(device):
        generator.manual_seed(seed)


def _generators(device: torch.device) -> list[torch.Generator]:
    on_device = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
    return [torch.default_generator, *on_device]

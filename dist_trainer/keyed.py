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
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    saved = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, saved, strict=True):
            generator.set_state(state)

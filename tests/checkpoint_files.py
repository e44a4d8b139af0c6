"""Checkpoints for tests: written without a run, and damaged in every way."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dist_trainer.checkpoint_file import Manifest, ShardFile, write_manifest, write_shard


def write_checkpoint(path: Path, payload: bytes = b"payload", *more: bytes, score: float | None = None) -> None:
    """Whole, one shard for each payload."""
    shards = []
    for rank, content in enumerate([payload, *more]):
        name = f"{rank}_of_{1 + len(more)}.{random.randrange(2**32):x}"
        shards.append(write_shard(path / name, partial(_write, content)))
    write_manifest(path, Manifest(int(path.stem.split("_")[1]), score, shards))


def _write(content: bytes, file: ShardFile) -> None:
    file.write(content)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def part_of_a_run(rank: int, size: int = 20) -> bytes:
    """A shard as learners write it."""
    numbers = torch.arange(size, dtype=torch.float32)
    shard: dict[str, Any] = {
        "units": {f"unit {rank}": {"state": [{"momentum": numbers + rank}]}},
        "per_env": {
            "snapshot": torch.full((3, 8), rank, dtype=torch.uint8),
            "state": torch.full((2, 3, 4), float(rank)),
            "running_returns": torch.full((3,), float(rank)),
        },
    }
    if rank == 0:
        optimizer = {"previous_gradient": None, "rate": None}
        shard["common"] = {"iteration": 3, "policy": {"weight": numbers}, "optimizer": optimizer}
    return saved(shard)


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.iterdir())


def truncations(checkpoint: Path, scratch: Path, step: int = 1) -> Iterator[tuple[str, Path]]:
    """Copies of it with one file cut to a length, for every file and every `step`-th length (of the first 300 all);
    with a file missing; with a byte too many. The copy is valid until the next one."""
    for path in files_of(checkpoint):
        whole = path.read_bytes()
        lengths = sorted({*range(min(300, len(whole))), *range(0, len(whole), step), len(whole) - 1})
        copy = _copy(checkpoint, scratch) / path.name
        for length in lengths:
            copy.write_bytes(whole[:length])
            yield f"{path.name} cut to {length} of {len(whole)} bytes", copy.parent
        copy.write_bytes(whole + b"\0")
        yield f"{path.name} with a byte more", copy.parent
        copy.unlink()
        yield f"{path.name} missing", copy.parent


def flips(checkpoint: Path, scratch: Path, count: int, generator: random.Random) -> Iterator[tuple[str, Path]]:
    """Copies of it with one byte anywhere made any other; every file gets its share, however short."""
    paths = files_of(checkpoint)
    for number in range(count):
        path = paths[number % len(paths)]
        content = bytearray(path.read_bytes())
        where, change = generator.randrange(len(content)), generator.randrange(1, 256)
        content[where] ^= change
        copy = _copy(checkpoint, scratch)
        (copy / path.name).write_bytes(content)
        yield f"{path.name}: byte {where} of {len(content)} xor {change}", copy


def _copy(checkpoint: Path, scratch: Path) -> Path:
    copy = scratch / checkpoint.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(checkpoint, copy)
    return copy

"""`python -m tests.slurm.digest RUN_DIR`: the iteration of a run's newest checkpoint and a hash of all that it holds,
but for times and file sizes. Equal lines: the same run, bit for bit."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_search import find_checkpoint

NOT_OF_THE_RUN = ("extra",)  # seconds of training, sizes of TensorBoard's files


def leaves(value: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """All that is in nested containers, by name."""
    if isinstance(value, torch.Tensor):
        yield (
            f"{name} {value.dtype} {tuple(value.shape)}",
            value.contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
        )
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            if key not in NOT_OF_THE_RUN:
                yield from leaves(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}/{index}")
    else:
        yield name, repr(value).encode()


def main(run_dir: str) -> None:
    saved = load_file(find_checkpoint(run_dir, "run"))
    digest = hashlib.sha256()
    for name, content in leaves(saved, ""):
        digest.update(name.encode())
        digest.update(content)
    print(saved["iteration"], digest.hexdigest()[:16])


if __name__ == "__main__":
    main(sys.argv[1])

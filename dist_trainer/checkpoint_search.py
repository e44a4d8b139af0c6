"""Which checkpoints a run has, which of them to go on from, and which to keep."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path

from dist_trainer.checkpoint_file import (
    MANIFEST,
    NAME,
    checkpoint_folder,
    iteration_of,
    list_checkpoints,
    read_manifest,
    verify,
    what_file_is,
)
from dist_trainer.errors import ConfigError


def is_checkpoint(path: Path) -> bool:
    """Rather than a run folder; whole or not."""
    return path.suffix == ".ckpt" or path.is_file() or (path / MANIFEST).exists()


def run_of(where: str) -> Path:
    """The run folder of what `find_checkpoint` takes."""
    path = Path(where)
    return path.parent.parent if is_checkpoint(path) else path


def find_checkpoint(where: str, field: str, best: bool = False) -> Path:
    """The checkpoint itself; or, of a run folder, the newest (of highest score if `best`) that is intact. If that is
    not the first choice, a warning names both.

    Raises ConfigError that says what is missing, or damaged.
    """
    path = Path(where)
    if is_checkpoint(path):
        verify(path)
        return path
    if not path.is_dir():
        raise ConfigError(field, where, "no such run folder or checkpoint")
    found = list_checkpoints(path)
    if not found:
        old = [file for file in checkpoint_folder(path).glob("iteration_*.ckpt") if file.is_file()]
        what = f"holds no checkpoint ({checkpoint_folder(path)} is empty)"
        raise ConfigError(field, where, f"the run folder {what_file_is(old[-1]) if old else what}")
    choices = sorted(found, key=lambda one: (score_of(one), iteration_of(one))) if best else found
    broken: list[str] = []
    for checkpoint in reversed(choices):
        try:
            verify(checkpoint)
        except ConfigError as error:
            broken.append(str(error))
            continue
        if broken:
            warnings.warn(f"{'; '.join(broken)}; {checkpoint} is used instead", stacklevel=2)
        return checkpoint
    raise ConfigError(field, where, f"no checkpoint of it is intact: {'; '.join(broken)}")


def score_of(checkpoint: Path) -> float:
    """Minus infinity if there is none, or it cannot be read."""
    try:
        score = read_manifest(checkpoint).score
    except ConfigError:
        score = None
    return -math.inf if score is None or math.isnan(score) else score


def set_aside_newer(checkpoint: Path) -> None:
    """Renames checkpoints newer than the one that is resumed: they belong to a branch that is given up, or are damaged.
    What was not written to its end is removed."""
    if not NAME.fullmatch(checkpoint.name):
        return
    for path in checkpoint.parent.glob("iteration_*.ckpt"):
        if not NAME.fullmatch(path.name) or iteration_of(path) <= iteration_of(checkpoint):
            continue
        aside = path.with_name(path.name + ".abandoned")
        shutil.rmtree(aside, ignore_errors=True)  # of a branch before that
        if (path / MANIFEST).exists():
            path.replace(aside)
        else:
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoint(checkpoint: Path) -> None:
    """The manifest first: what is half removed is none any more."""
    (checkpoint / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def prune_checkpoints(run_dir: Path, keep: int, keep_best: bool) -> None:
    """Leaves the newest, and that of the highest score; and nothing older that was not written to its end."""
    found = list_checkpoints(run_dir)
    kept = set(found[-keep:])
    if keep_best and found:
        best = max(found, key=lambda one: (score_of(one), iteration_of(one)))
        kept |= {best} if score_of(best) > -math.inf else set()
    newest = iteration_of(found[-1]) if found else -1
    for path in checkpoint_folder(run_dir).glob("iteration_*.ckpt"):
        if NAME.fullmatch(path.name) and path.is_dir() and path not in kept and iteration_of(path) < newest:
            remove_checkpoint(path)

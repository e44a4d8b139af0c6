"""Checkpoint files on disk: atomic, checksummed, found again. Nothing here knows what is inside, nor imports torch.

A file is one header line, `dist_trainer checkpoint <version> <payload bytes> <sha256 of the payload>`, and the payload.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from dist_trainer.errors import ConfigError

FORMAT_VERSION = 3
_MAGIC = b"dist_trainer checkpoint"
_NAME = re.compile(r"iteration_(\d+)\.ckpt")


def checkpoint_folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def checkpoint_path(run_dir: Path, iteration: int) -> Path:
    return checkpoint_folder(run_dir) / f"iteration_{iteration:08d}.ckpt"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in checkpoint_folder(run_dir).glob("iteration_*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.split("_")[1]))


def write_atomically(path: Path, data: bytes) -> None:
    """The file is there whole or not at all, whatever happens meanwhile: write beside it, fsync, rename."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk it is in the way of the next one
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_checkpoint(path: Path, payload: bytes) -> None:
    digest = hashlib.sha256(payload).hexdigest().encode()
    header = b" ".join([_MAGIC, str(FORMAT_VERSION).encode(), str(len(payload)).encode(), digest])
    write_atomically(path, header + b"\n" + payload)


def read_checkpoint(path: Path) -> bytes:
    """The payload. Raises ConfigError if the file is missing, cut off, altered, or of another format version."""
    try:
        header, newline, payload = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise ConfigError("checkpoint", path, f"cannot be read: {error.strerror}") from None
    fields = header.removeprefix(_MAGIC + b" ").split(b" ")
    if not newline or not header.startswith(_MAGIC + b" ") or len(fields) != 3:
        raise ConfigError("checkpoint", path, "is not a checkpoint, or its beginning is damaged")
    version, size, digest = fields
    if version != str(FORMAT_VERSION).encode():
        raise ConfigError("checkpoint", path, f"has another format version than {FORMAT_VERSION}")
    if size != str(len(payload)).encode():
        wanted = size.decode(errors="replace")
        raise ConfigError("checkpoint", path, f"is cut off: {len(payload)} bytes of {wanted}; use an older one")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise ConfigError("checkpoint", path, "is damaged: its checksum does not match; use an older one")
    return payload


def find_checkpoint(where: str, field: str) -> Path:
    """The file itself, or the newest checkpoint of a run folder; intact.

    Raises ConfigError that says what is missing, or damaged and which one is older.
    """
    path = Path(where)
    if path.is_file():
        read_checkpoint(path)
        return path
    if not path.is_dir():
        raise ConfigError(field, where, "no such run folder or checkpoint file")
    found = list_checkpoints(path)
    if not found:
        raise ConfigError(field, where, f"the run folder holds no checkpoint ({checkpoint_folder(path)} is empty)")
    try:
        read_checkpoint(found[-1])
    except ConfigError as error:
        older = f"; the one before it is {found[-2]}" if len(found) > 1 else ""
        raise ConfigError(field, where, f"{error}{older}") from None
    return found[-1]


def set_aside_newer(checkpoint: Path) -> None:
    """Renames checkpoints newer than the one that is resumed: they belong to a branch that is given up."""
    siblings = list_checkpoints(checkpoint.parent.parent)
    for path in siblings[siblings.index(checkpoint) + 1 :] if checkpoint in siblings else ():
        path.replace(path.with_name(path.name + ".abandoned"))


def prune_checkpoints(run_dir: Path, keep: int) -> None:
    for path in list_checkpoints(run_dir)[:-keep]:
        path.unlink(missing_ok=True)

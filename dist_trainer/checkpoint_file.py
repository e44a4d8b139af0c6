"""Checkpoints on disk: whole or not at all, and checksummed. Nothing here knows what is inside, nor imports torch.

    checkpoints/iteration_00000012.ckpt/
        0_of_2.3f9a61c2         shards, each written by one learner, with a CRC-32 in the manifest
        1_of_2.3f9a61c2
        manifest                written last, and renamed into place: with it the checkpoint is there

A shard's name is never used again (its end is drawn at random for each attempt), and a shard is nothing before a
manifest names it. So a kill at any moment leaves the checkpoint as it was before, or whole.

The manifest is one header line, `dist_trainer checkpoint <version> <bytes that follow> <their sha256>`, and JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dist_trainer.errors import ConfigError

FORMAT_VERSION = 4
MANIFEST = "manifest"
CHUNK = 2**22  # bytes that are written, or read, and summed at a time: between two the thread can be interrupted
NAME = re.compile(r"iteration_(\d+)\.ckpt")
_MAGIC = b"dist_trainer checkpoint"
_SHARD_NAME = re.compile(r"\d+_of_\d+\.[0-9a-f]+")


@dataclass(frozen=True)
class Shard:
    """What a manifest says of one."""

    name: str
    size: int  # bytes
    crc32: int


@dataclass(frozen=True)
class Manifest:
    iteration: int
    score: float | None  # mean return of recent episodes; None: there were none
    shards: list[Shard]  # in the order of the learners' ranks


def checkpoint_folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def checkpoint_path(run_dir: Path, iteration: int) -> Path:
    return checkpoint_folder(run_dir) / f"iteration_{iteration:08d}.ckpt"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Those that were written to their end; oldest first."""
    found = [path.parent for path in checkpoint_folder(run_dir).glob(f"iteration_*.ckpt/{MANIFEST}")]
    return sorted((path for path in found if NAME.fullmatch(path.name)), key=iteration_of)


def iteration_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.split("_")[1])


# --- writing


class ShardFile:
    """A file to write into, as torch.save wants it; counts and sums the bytes on the way.

    `write` raises nothing: torch's writer cannot be left in its middle. The first OSError comes with `finish`.
    """

    def __init__(self, path: Path):
        self._path, self._size, self._crc32 = path, 0, 0
        self._error: OSError | None = None
        self._raw = path.open("xb", buffering=0)
        self._file = io.BufferedWriter(self._raw, CHUNK)

    def write(self, data: bytes | memoryview) -> int:
        """How much there was to write."""
        view = memoryview(data).cast("B")
        try:
            for start in range(0, 0 if self._error else len(view), CHUNK):
                chunk = view[start : start + CHUNK]
                self._crc32 = zlib.crc32(chunk, self._crc32)
                self._file.write(chunk)
        except OSError as error:
            self._error = error
        self._size += len(view)
        return len(view)

    def flush(self) -> None:
        """For torch.save; `finish` does it."""

    def finish(self) -> Shard:
        """The file is on the disk. Raises OSError if it is not, or not whole; there is no such file then."""
        try:
            if self._error:
                raise self._error
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            _fsync_folder(self._path.parent)
        except OSError:
            self.discard()
            raise
        return Shard(self._path.name, self._size, self._crc32)

    def discard(self) -> None:
        """Removes it: on a full disk it is in the way of the next one."""
        self._path.unlink(missing_ok=True)
        try:
            self._file.close()
        except OSError:  # of what was still to be written
            self._raw.close()


def write_shard(path: Path, write: Callable[[ShardFile], object]) -> Shard:
    """Makes the checkpoint's folder if need be. Raises OSError, and what `write` raises, and leaves no file then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = ShardFile(path)
    try:
        write(file)
    except BaseException:
        file.discard()
        raise
    return file.finish()


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """With this the checkpoint is there. Other files in its folder, of attempts that came to nothing, are removed."""
    body = json.dumps(asdict(manifest), allow_nan=False).encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    header = b" ".join([_MAGIC, str(FORMAT_VERSION).encode(), str(len(body)).encode(), digest])
    write_atomically(checkpoint / MANIFEST, header + b"\n" + body)
    _fsync_folder(checkpoint.parent)
    kept = {MANIFEST, *(shard.name for shard in manifest.shards)}
    for path in checkpoint.iterdir():
        if path.name not in kept:
            path.unlink()


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
    _fsync_folder(path.parent)


def _fsync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- reading


def read_manifest(checkpoint: Path) -> Manifest:
    """Raises ConfigError if it is missing, cut off, altered, or of another format version."""
    if checkpoint.is_file():
        raise ConfigError("checkpoint", checkpoint, what_file_is(checkpoint))
    try:
        header, newline, body = (checkpoint / MANIFEST).read_bytes().partition(b"\n")
    except FileNotFoundError:
        what = "is not complete: it has no manifest" if checkpoint.exists() else "cannot be read: there is none"
        raise ConfigError("checkpoint", checkpoint, what) from None
    except OSError as error:
        raise ConfigError("checkpoint", checkpoint, f"cannot be read: {error.strerror}") from None
    fields = header.removeprefix(_MAGIC + b" ").split(b" ")
    if not newline or not header.startswith(_MAGIC + b" ") or len(fields) != 3:
        raise ConfigError("checkpoint", checkpoint, "is not a checkpoint, or its manifest's beginning is damaged")
    version, size, digest = fields
    if version != str(FORMAT_VERSION).encode():
        raise ConfigError("checkpoint", checkpoint, f"has another format version than {FORMAT_VERSION}")
    if size != str(len(body)).encode():
        wanted = size.decode(errors="replace")
        raise ConfigError("checkpoint", checkpoint, f"its manifest is cut off: {len(body)} bytes of {wanted}")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ConfigError("checkpoint", checkpoint, "its manifest is damaged: its checksum does not match")
    return _parse_manifest(checkpoint, body)


def what_file_is(path: Path) -> str:
    with path.open("rb") as file:
        old = file.read(len(_MAGIC)) == _MAGIC
    if old and path.name != MANIFEST:
        return (
            f"has another format version than {FORMAT_VERSION} (up to 3 a checkpoint was one file): go on with the "
            "dist_trainer that wrote it"
        )
    return "is not a checkpoint: that is a folder"


def _parse_manifest(checkpoint: Path, body: bytes) -> Manifest:
    """Whoever wrote it: nothing but files of this folder is read. Raises ConfigError."""
    try:
        fields = json.loads(body)
        shards = [Shard(str(shard["name"]), int(shard["size"]), int(shard["crc32"])) for shard in fields["shards"]]
        score = None if fields["score"] is None else float(fields["score"])
        manifest = Manifest(int(fields["iteration"]), score, shards)
        ok = bool(shards) and all(_SHARD_NAME.fullmatch(shard.name) for shard in shards)
    except (ValueError, TypeError, KeyError, RecursionError):
        ok = False
    if not ok:
        raise ConfigError("checkpoint", checkpoint, "its manifest does not say what belongs to it")
    return manifest


def read_shard(checkpoint: Path, shard: Shard) -> bytearray:
    """Raises ConfigError if it is missing, cut off or altered."""
    content = bytearray()
    _look_through(checkpoint, shard, content.extend)
    return content


def verify(checkpoint: Path) -> Manifest:
    """Reads all of it. Raises ConfigError as read_manifest and read_shard do."""
    manifest = read_manifest(checkpoint)
    for shard in manifest.shards:
        _look_through(checkpoint, shard, len)
    return manifest


def _look_through(checkpoint: Path, shard: Shard, take: Callable[[bytes], object]) -> None:
    """Hands out its bytes chunk by chunk."""
    path, crc32 = checkpoint / shard.name, 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != shard.size:
                raise ConfigError("checkpoint", path, f"is cut off or altered: {size} bytes instead of {shard.size}")
            while chunk := file.read(CHUNK):
                crc32 = zlib.crc32(chunk, crc32)
                take(chunk)
    except OSError as error:
        raise ConfigError("checkpoint", path, f"cannot be read: {error.strerror}") from None
    if crc32 != shard.crc32:
        raise ConfigError("checkpoint", path, "is damaged: its checksum does not match")

"""Checkpoint files: whole or refused, the newest kept, and never code."""

from __future__ import annotations

import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import (
    checkpoint_folder,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from dist_trainer.errors import ConfigError


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def payload(size: int = 500) -> bytes:
    buffer = io.BytesIO()
    torch.save({"iteration": 3, "policy": {"weight": torch.arange(size, dtype=torch.float32)}}, buffer)
    return buffer.getvalue()


def test_what_was_written_is_read(run_dir: Path) -> None:
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, payload())
    assert read_checkpoint(path) == payload()
    assert torch.equal(load_file(path)["policy"]["weight"], torch.arange(500.0))
    assert [file.name for file in checkpoint_folder(run_dir).iterdir()] == ["iteration_00000003.ckpt"]


def test_every_truncation_is_refused(run_dir: Path) -> None:
    """Nothing, parts of the header, the header alone, the payload less one byte, anything between."""
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, payload())
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    for length in [*range(header + 2), *range(header, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=r"damaged|cut off"):
            read_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ConfigError):
        read_checkpoint(path)


def test_random_damage_is_refused(run_dir: Path) -> None:
    """One byte anywhere, made any other."""
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, payload())
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(200):
        damaged, where = bytearray(whole), generator.randrange(len(whole))
        damaged[where] ^= generator.randrange(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(ConfigError):
            read_checkpoint(path)


def test_any_damage_to_the_header_is_refused(run_dir: Path) -> None:
    """Every byte of it, made any of those that a lenient parser may take for the same."""
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, b"payload")
    whole = path.read_bytes()
    accepted = []
    for where in range(whole.index(b"\n") + 1):
        for byte in set(b" \t\r\n\v\f\0+-_.01AF\x85\xa0\xff") - {whole[where]}:
            damaged = bytearray(whole)
            damaged[where] = byte
            path.write_bytes(damaged)
            try:
                read_checkpoint(path)
            except ConfigError:
                continue
            accepted.append((where, damaged[where]))
    assert accepted == []


def test_other_format_version_is_named(run_dir: Path) -> None:
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, b"payload")
    path.write_bytes(path.read_bytes().replace(b"checkpoint 3 ", b"checkpoint 7 ", 1))
    with pytest.raises(ConfigError, match="another format version than 3"):
        read_checkpoint(path)


def test_newest_is_found_and_partial_files_are_ignored(run_dir: Path) -> None:
    """By the number, not by the time; what was still being written when a run was killed does not count."""
    for iteration in (12, 5, 100_000_000, 99_999_999):
        write_checkpoint(checkpoint_path(run_dir, iteration), payload())
    newer = checkpoint_path(run_dir, 200_000_000)
    newer.with_name(newer.name + ".partial").write_bytes(b"half a checkp")
    (checkpoint_folder(run_dir) / "iteration_old.ckpt").write_bytes(b"something of the user's")
    numbers = [int(path.stem.split("_")[1]) for path in list_checkpoints(run_dir)]
    assert numbers == [5, 12, 99_999_999, 100_000_000]
    assert find_checkpoint(str(run_dir), "resume") == checkpoint_path(run_dir, 100_000_000)
    assert find_checkpoint(str(checkpoint_path(run_dir, 5)), "resume") == checkpoint_path(run_dir, 5)


def test_partial_file_of_an_earlier_kill_is_replaced(run_dir: Path) -> None:
    path = checkpoint_path(run_dir, 3)
    path.with_name(path.name + ".partial").write_bytes(b"x" * 100_000)
    write_checkpoint(path, payload())
    assert read_checkpoint(path) == payload()
    assert list(checkpoint_folder(run_dir).iterdir()) == [path]


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_prune_keeps_the_newest(run_dir: Path, keep: int) -> None:
    for iteration in (2, 10, 9, 100, 1):
        write_checkpoint(checkpoint_path(run_dir, iteration), b"payload")
    prune_checkpoints(run_dir, keep)
    assert [int(path.stem.split("_")[1]) for path in list_checkpoints(run_dir)] == [1, 2, 9, 10, 100][-keep:]


def test_empty_run_folder_and_missing_file_are_refused(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=.*holds no checkpoint"):
        find_checkpoint(str(run_dir), "resume")
    with pytest.raises(ConfigError, match=r"checkpoint=.*no such run folder or checkpoint file"):
        find_checkpoint(str(run_dir / "missing"), "checkpoint")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_checkpoint(run_dir / "missing")


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def saved_by_torch(content: Any, new_format: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["pickle", "torch", "old torch"])
def test_code_in_a_checkpoint_does_not_run(run_dir: Path, how: str) -> None:
    """A file with a right header and checksum that would run code on unpickling is refused, and runs nothing."""
    marker, path = run_dir / "code_ran", checkpoint_path(run_dir, 3)
    content = {"iteration": 3, "policy": Code(marker)}
    attack = pickle.dumps(content, protocol=2) if how == "pickle" else saved_by_torch(content, how == "torch")
    write_checkpoint(path, attack)
    with pytest.raises(ConfigError):
        load_file(path)
    assert not marker.exists()
    torch.load(io.BytesIO(attack), weights_only=False) if how != "pickle" else pickle.loads(attack)
    assert marker.exists()  # the attack would have worked


def test_payload_that_torch_cannot_read_is_refused(run_dir: Path) -> None:
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, b"no archive at all")
    with pytest.raises(ConfigError):
        load_file(path)

"""Checkpoints on disk: whole or refused, the newest and the best kept, and never code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import (
    MANIFEST,
    checkpoint_folder,
    checkpoint_path,
    list_checkpoints,
    read_manifest,
    read_shard,
    verify,
    write_atomically,
    write_shard,
)
from dist_trainer.checkpoint_search import find_checkpoint, prune_checkpoints, set_aside_newer
from dist_trainer.errors import ConfigError
from tests.checkpoint_files import files_of, flips, part_of_a_run, truncations, write_checkpoint


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


@pytest.fixture
def checkpoint(run_dir: Path) -> Path:
    """Of two learners."""
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, part_of_a_run(0), part_of_a_run(1), score=1.5)
    return path


def numbers(run_dir: Path) -> list[int]:
    return [int(path.stem.split("_")[1]) for path in list_checkpoints(run_dir)]


def damage(path: Path) -> None:
    """A flipped bit in the middle of the first shard."""
    shard = files_of(path)[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def test_what_was_written_is_read(checkpoint: Path) -> None:
    manifest = verify(checkpoint)
    assert (manifest.iteration, manifest.score) == (3, 1.5)
    assert [read_shard(checkpoint, shard) for shard in manifest.shards] == [part_of_a_run(0), part_of_a_run(1)]
    content = load_file(checkpoint)
    assert torch.equal(content["policy"]["weight"], torch.arange(20.0))
    assert content["optimizer"]["units"].keys() == {"unit 0", "unit 1"}
    assert content["per_env"]["snapshot"][:, 0].tolist() == [0, 0, 0, 1, 1, 1]  # by the global ids
    assert content["per_env"]["state"][0, :, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert content["per_env"]["running_returns"].tolist() == [0, 0, 0, 1, 1, 1]


def test_every_truncation_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Of the manifest and of the shards, at every length of the manifest (the script has all: tests/faults)."""
    seen = 0
    for what, copy in truncations(checkpoint, tmp_path / "copy", step=23):
        seen += 1
        for look in (verify, load_file):
            with pytest.raises(ConfigError):
                look(copy)
            assert what
    assert seen > 600


def test_random_damage_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for what, copy in flips(checkpoint, tmp_path / "copy", 300, random.Random(0)):
        for look in (verify, load_file):
            try:
                look(copy)
            except ConfigError:
                continue
            raise AssertionError(f"accepted: {what}")


def test_any_damage_to_the_header_is_refused(checkpoint: Path) -> None:
    """Every byte of it, made any of those that a lenient parser may take for the same."""
    manifest = checkpoint / MANIFEST
    whole = manifest.read_bytes()
    accepted = []
    for where in range(whole.index(b"\n") + 1):
        for byte in set(b" \t\r\n\v\f\0+-_.01AF\x85\xa0\xff") - {whole[where]}:
            damaged = bytearray(whole)
            damaged[where] = byte
            manifest.write_bytes(damaged)
            try:
                read_manifest(checkpoint)
            except ConfigError:
                continue
            accepted.append((where, damaged[where]))
    assert accepted == []


def test_shards_of_two_checkpoints_do_not_mix(checkpoint: Path, run_dir: Path) -> None:
    """Each is whole, but it is not the one that the manifest means."""
    other = checkpoint_path(run_dir, 4)
    write_checkpoint(other, part_of_a_run(0), part_of_a_run(1, size=21))
    files_of(checkpoint)[1].write_bytes(files_of(other)[1].read_bytes())
    with pytest.raises(ConfigError, match="checksum does not match"):
        verify(checkpoint)


def test_other_format_versions_are_named(checkpoint: Path, run_dir: Path) -> None:
    """The next one; and the last one, of which a checkpoint was a file."""
    manifest = checkpoint / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"checkpoint 4 ", b"checkpoint 7 ", 1))
    with pytest.raises(ConfigError, match="another format version than 4"):
        read_manifest(checkpoint)
    manifest.unlink()
    old = checkpoint_path(run_dir, 5)
    old.write_bytes(b"dist_trainer checkpoint 3 7 abc\npayload")
    for where in (old, run_dir):
        with pytest.raises(ConfigError, match=r"another format version than 4 \(up to 3 a checkpoint was one file\)"):
            find_checkpoint(str(where), "resume")


def test_a_manifest_reads_nothing_elsewhere(checkpoint: Path, run_dir: Path) -> None:
    """Whoever wrote it: names of shards are no paths, and JSON of another kind is refused."""
    outside = run_dir / "0_of_1.aa"
    shard = write_shard(outside, lambda file: file.write(part_of_a_run(0)))
    manifest: dict[str, Any] = {"iteration": 3, "score": None}
    entry = {"size": shard.size, "crc32": shard.crc32}
    for body in (
        json.dumps(manifest | {"shards": [entry | {"name": "../../0_of_1.aa"}]}),
        json.dumps(manifest | {"shards": [entry | {"name": str(outside)}]}),
        json.dumps(manifest | {"shards": []}),
        '{"iteration": 3, "shards": 5}',
        "[]",
        "[" * 100_000,
    ):
        write_manifest_text(checkpoint, body)
        with pytest.raises(ConfigError, match="does not say what belongs to it"):
            load_file(checkpoint)


def write_manifest_text(checkpoint: Path, body: str) -> None:
    """With a right header."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    (checkpoint / MANIFEST).write_text(f"dist_trainer checkpoint 4 {len(body)} {digest}\n{body}")


# --- finding


def test_newest_is_found_and_what_is_half_written_is_ignored(run_dir: Path) -> None:
    """By the number, not by the time; without a manifest it does not count."""
    for iteration in (12, 5, 100_000_000, 99_999_999):
        write_checkpoint(checkpoint_path(run_dir, iteration))
    newer = checkpoint_path(run_dir, 200_000_000)
    write_shard(newer / "0_of_1.12", lambda file: file.write(b"half a checkp"))
    (newer / "manifest.partial").write_bytes(b"dist_trai")
    (checkpoint_folder(run_dir) / "iteration_old.ckpt").write_bytes(b"something of the user's")
    assert numbers(run_dir) == [5, 12, 99_999_999, 100_000_000]
    assert find_checkpoint(str(run_dir), "resume") == checkpoint_path(run_dir, 100_000_000)
    assert find_checkpoint(str(checkpoint_path(run_dir, 5)), "resume") == checkpoint_path(run_dir, 5)


def test_a_damaged_one_is_passed_over_and_both_are_named(run_dir: Path) -> None:
    """In a run folder; who names it gets no other."""
    for iteration in (5, 6, 7):
        write_checkpoint(checkpoint_path(run_dir, iteration))
    damage(checkpoint_path(run_dir, 7))
    (checkpoint_path(run_dir, 6) / MANIFEST).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"iteration_00000007.*checksum.*iteration_00000006.*iteration_00000005.*used"):
        assert find_checkpoint(str(run_dir), "resume") == checkpoint_path(run_dir, 5)
    with pytest.raises(ConfigError, match="checksum"):
        find_checkpoint(str(checkpoint_path(run_dir, 7)), "resume")
    damage(checkpoint_path(run_dir, 5))
    with pytest.raises(ConfigError, match=r"resume=.*no checkpoint of it is intact.*iteration_00000005"):
        find_checkpoint(str(run_dir), "resume")


def test_the_best_is_found(run_dir: Path) -> None:
    """The newest of the highest score; of those that are intact; the newest if none has a score."""
    for iteration, score in ((1, None), (2, 7.0), (3, 9.0), (4, 9.0), (5, -1.0)):
        write_checkpoint(checkpoint_path(run_dir, iteration), score=score)
    assert find_checkpoint(str(run_dir), "checkpoint", best=True) == checkpoint_path(run_dir, 4)
    damage(checkpoint_path(run_dir, 4))
    with pytest.warns(UserWarning, match=r"iteration_00000004.*iteration_00000003"):
        assert find_checkpoint(str(run_dir), "checkpoint", best=True) == checkpoint_path(run_dir, 3)
    for iteration in (2, 3, 4, 5):
        write_checkpoint(checkpoint_path(run_dir, iteration))
    assert find_checkpoint(str(run_dir), "checkpoint", best=True) == checkpoint_path(run_dir, 5)


def test_empty_run_folder_and_missing_checkpoint_are_refused(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=.*holds no checkpoint"):
        find_checkpoint(str(run_dir), "resume")
    with pytest.raises(ConfigError, match=r"checkpoint=.*no such run folder or checkpoint"):
        find_checkpoint(str(run_dir / "missing"), "checkpoint")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(run_dir / "missing.ckpt")
    checkpoint_path(run_dir, 3).mkdir()
    with pytest.raises(ConfigError, match="not complete: it has no manifest"):
        find_checkpoint(str(checkpoint_path(run_dir, 3)), "resume")


# --- keeping


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_prune_keeps_the_newest(run_dir: Path, keep: int) -> None:
    for iteration in (2, 10, 9, 100, 1):
        write_checkpoint(checkpoint_path(run_dir, iteration))
    prune_checkpoints(run_dir, keep, keep_best=True)
    assert numbers(run_dir) == [1, 2, 9, 10, 100][-keep:]


def test_prune_keeps_the_best_and_drops_what_was_not_finished(run_dir: Path) -> None:
    """What is newer is being written."""
    for iteration, score in ((1, 3.0), (2, 8.0), (3, 5.0), (4, None), (5, 4.0)):
        write_checkpoint(checkpoint_path(run_dir, iteration), score=score)
    for unfinished in (2, 4, 6):
        write_shard(checkpoint_path(run_dir, 10 * unfinished) / "0_of_1.1", lambda file: file.write(b"x"))
    write_checkpoint(checkpoint_path(run_dir, 50), score=1.0)
    prune_checkpoints(run_dir, 2, keep_best=True)
    assert numbers(run_dir) == [2, 5, 50]
    assert len(list(checkpoint_folder(run_dir).iterdir())) == 4
    prune_checkpoints(run_dir, 2, keep_best=False)
    assert numbers(run_dir) == [5, 50]


def test_written_again_it_is_the_old_one_or_the_new_one(checkpoint: Path) -> None:
    """Its shards have other names: until the new manifest is there the old one holds."""
    before = load_file(checkpoint)
    write_shard(checkpoint / "0_of_1.ffff", lambda file: file.write(part_of_a_run(0, size=30)))
    assert load_file(checkpoint).keys() == before.keys()
    assert len(load_file(checkpoint)["policy"]["weight"]) == 20
    write_checkpoint(checkpoint, part_of_a_run(0, size=30))
    assert len(load_file(checkpoint)["policy"]["weight"]) == 30
    assert len(files_of(checkpoint)) == 2


def test_newer_ones_are_set_aside(run_dir: Path) -> None:
    """More than once; what was not finished is removed."""
    for _ in range(2):
        for iteration in (5, 6, 7):
            write_checkpoint(checkpoint_path(run_dir, iteration))
        write_shard(checkpoint_path(run_dir, 8) / "0_of_1.1", lambda file: file.write(b"x"))
        set_aside_newer(checkpoint_path(run_dir, 5))
        assert numbers(run_dir) == [5]
        names = sorted(path.name for path in checkpoint_folder(run_dir).iterdir())
        newer = [f"iteration_0000000{number}.ckpt.abandoned" for number in (6, 7)]
        assert names == ["iteration_00000005.ckpt", *newer]


def test_partial_file_of_an_earlier_kill_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.with_name("file.partial").write_bytes(b"x" * 100_000)
    write_atomically(path, b"payload")
    assert path.read_bytes() == b"payload"
    assert list(tmp_path.iterdir()) == [path]


# --- code


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
@pytest.mark.parametrize("shard", [0, 1])
def test_code_in_a_checkpoint_does_not_run(run_dir: Path, how: str, shard: int) -> None:
    """A shard with a right checksum that would run code on unpickling is refused, and runs nothing."""
    marker, path = run_dir / "code_ran", checkpoint_path(run_dir, 3)
    content = {"iteration": 3, "policy": Code(marker)}
    attack = pickle.dumps(content, protocol=2) if how == "pickle" else saved_by_torch(content, how == "torch")
    shards = [part_of_a_run(0), part_of_a_run(1)]
    shards[shard] = attack
    write_checkpoint(path, *shards)
    with pytest.raises(ConfigError):
        load_file(path)
    assert not marker.exists()
    torch.load(io.BytesIO(attack), weights_only=False) if how != "pickle" else pickle.loads(attack)
    assert marker.exists()  # the attack would have worked


@pytest.mark.parametrize("content", [b"no archive at all", b"", saved_by_torch([1, 2], True)])
def test_what_is_no_part_of_a_run_is_refused(run_dir: Path, content: bytes) -> None:
    path = checkpoint_path(run_dir, 3)
    write_checkpoint(path, content)
    with pytest.raises(ConfigError, match="holds something else than"):
        load_file(path)

"""Nothing in a run folder is overwritten by another run, and a resumed branch replaces the one that was given up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dist_trainer import run_folder
from dist_trainer.config import EnvConfig, TrainConfig
from dist_trainer.errors import ConfigError
from dist_trainer.metrics import EventWriter
from dist_trainer.run_folder import claim_new_run_folder, lock_run_folder, write_run


def config_for(run_dir: Path | None) -> TrainConfig:
    return TrainConfig(env=EnvConfig(name="cartpole"), run_dir=str(run_dir) if run_dir else None)


def test_runs_started_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = [claim_new_run_folder(config_for(None), "lstm", "muon") for _ in range(3)]
    assert len({folder for folder, _ in claims}) == 3
    for folder, lock in claims:
        assert folder.parent == Path("runs") and folder.name.startswith("cartpole-lstm-muon-")
        lock.close()


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    """Also between a new run and a resumed one, and until the first has ended."""
    folder, lock = claim_new_run_folder(config_for(tmp_path / "run"), "lstm", "muon")
    for again in (lambda: claim_new_run_folder(config_for(folder), "lstm", "muon"), lambda: lock_run_folder(folder)):
        with pytest.raises(ConfigError, match="another process is training in this folder"):
            again()
    lock.close()
    lock_run_folder(folder).close()


def test_a_folder_that_holds_a_run_is_not_claimed_anew(tmp_path: Path) -> None:
    folder, lock = claim_new_run_folder(config_for(tmp_path / "run"), "lstm", "muon")
    write_run(config_for(folder), folder, resumed_at=None)
    lock.close()
    with pytest.raises(ConfigError, match="continue it with resume="):
        claim_new_run_folder(config_for(folder), "lstm", "muon")


def test_each_start_leaves_its_configuration_and_origin(tmp_path: Path) -> None:
    config = config_for(tmp_path)
    write_run(config, tmp_path, resumed_at=None)
    config.total_env_steps = 123.0
    write_run(config, tmp_path, resumed_at=7)
    assert "total_env_steps: 123.0" in (tmp_path / "config.yaml").read_text()
    for name in ("start", "resumed_at_7"):
        assert {path.name for path in (tmp_path / "provenance" / name).iterdir()} == {
            "git_commit.txt",
            "git_diff.patch",
            "environment.json",
        }


def test_the_patch_has_new_files_and_bytes_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "package").mkdir(parents=True)
    (checkout / "old.txt").write_bytes(b"first\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *command], cwd=checkout, check=True)
    (checkout / "old.txt").write_bytes(b"not utf-8: \xe9\n")
    (checkout / "new file.py").write_text("new = 1\n")
    monkeypatch.setattr(run_folder, "__file__", str(checkout / "package" / "run_folder.py"))
    run_folder.write_provenance(tmp_path / "provenance")
    patch = (tmp_path / "provenance" / "git_diff.patch").read_bytes()
    assert b"+not utf-8: \xe9" in patch and b"+new = 1" in patch
    assert len((tmp_path / "provenance" / "git_commit.txt").read_text().strip()) == 40


def test_event_files_are_cut_but_never_grown(tmp_path: Path) -> None:
    """A file shorter than the checkpoint remembers (its disk was full, or another branch cut it) gets no zeros."""
    for name, size in (("events.long", 100), ("events.short", 10), ("events.unknown", 5)):
        (tmp_path / name).write_bytes(b"e" * size)
    EventWriter(tmp_path, {"events.long": 60, "events.short": 60}).close()
    assert (tmp_path / "events.long").read_bytes() == b"e" * 60
    assert (tmp_path / "events.short").read_bytes() == b"e" * 10
    assert not (tmp_path / "events.unknown").exists()

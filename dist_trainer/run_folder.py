"""The folder of one run: its resolved configuration, where its code came from, checkpoints, TensorBoard events."""

from __future__ import annotations

import fcntl
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from omegaconf import OmegaConf

from dist_trainer.checkpoint_file import write_atomically
from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError

CONFIG_FILE = "config.yaml"
TENSORBOARD_FOLDER = "tensorboard"
LOCK_FILE = ".lock"
_PACKAGES = ("dist_trainer", "torch", "heavyball", "numpy", "hydra-core", "omegaconf", "tensorboard")


def claim_new_run_folder(config: TrainConfig, policy: str, optimizer: str) -> tuple[Path, TextIO]:
    """Makes the folder that `run_dir` names, or one named by environment, policy, optimizer and time.

    Returns it with its lock (see lock_run_folder). Raises ConfigError if it holds a run or cannot be made.
    """
    if config.run_dir:
        check_run_dir(config.run_dir)
        return Path(config.run_dir), lock_run_folder(Path(config.run_dir))
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = Path("runs") / f"{config.env.name}-{policy}-{optimizer}-{stamp}"
    check_run_dir(str(name.parent / "new"))
    for attempt in itertools.count(1):
        folder = name if attempt == 1 else name.with_name(f"{name.name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # two runs in one second
            continue
        return folder, lock_run_folder(folder)
    raise AssertionError("count() does not end")


def lock_run_folder(folder: Path) -> TextIO:
    """Makes the folder this process's own for as long as the returned file is open.

    Raises ConfigError if another process trains there, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError("run_dir", folder, "another process is training in this folder") from None
    except OSError as error:
        raise ConfigError("run_dir", folder, f"cannot be written: {error.strerror}") from None
    return lock


def check_run_dir(run_dir: str) -> None:
    """Raises ConfigError if a new run cannot be written there, or if there is one already."""
    path = Path(run_dir)
    if (path / CONFIG_FILE).exists():
        raise ConfigError(
            "run_dir", run_dir, f"holds a run already; continue it with resume={run_dir}, or name another"
        )
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError("run_dir", run_dir, f"cannot be made: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK) or _refuses_files(existing):
        raise ConfigError("run_dir", run_dir, f"cannot be written: no permission in {existing}")


def _refuses_files(folder: Path) -> bool:
    """Permission bits say nothing to root, nor of read-only file systems: try."""
    probe = folder / f".dist_trainer-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return True
    return False


def write_run(config: TrainConfig, run_dir: Path, resumed_at: int | None) -> None:
    """What is known before the first iteration: configuration, origin of the code. Each resume adds its own."""
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run_dir / TENSORBOARD_FOLDER).mkdir(exist_ok=True)
    write_provenance(run_dir / "provenance" / ("start" if resumed_at is None else f"resumed_at_{resumed_at}"))
    # Last: a folder with this file holds a run.
    write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())


def write_provenance(folder: Path) -> None:
    """git commit, uncommitted changes and new files of the code, package versions, machine, command line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "git_commit.txt").write_bytes(_git("rev-parse", "HEAD") or b"not a git checkout\n")
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")
    new_files = [_git("diff", "--no-index", "/dev/null", os.fsdecode(name), status=1) for name in untracked if name]
    (folder / "git_diff.patch").write_bytes(_git("diff", "HEAD") + b"".join(new_files))
    versions = {name: _version(name) for name in _PACKAGES}
    versions |= {"python": platform.python_version(), "platform": platform.platform()}
    facts = {"versions": versions, "command": sys.argv, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    (folder / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str, status: int = 0) -> bytes:
    """What git prints in the checkout of this file; nothing if it is none, or git ends with another status."""
    checkout = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == status else b""

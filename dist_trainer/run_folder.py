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
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from omegaconf import OmegaConf

from dist_trainer.checkpoint_file import list_checkpoints, write_atomically
from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError
from dist_trainer.launcher import launcher_name, process_name
from dist_trainer.process import end_with_parent

CONFIG_FILE = "config.yaml"
PROVENANCE = "provenance"
TENSORBOARD_FOLDER = "tensorboard"
LOCK_FILE = ".lock"
LAUNCHER_FILE = ".launcher"
LOCK_PATIENCE_S = 60.0  # for a learner that is ending
_PACKAGES = ("dist_trainer", "torch", "heavyball", "numpy", "hydra-core", "omegaconf", "tensorboard")


def default_folders(env: str, policy: str, optimizer: str) -> list[Path]:
    """Of all runs that have got their folder by claim_new_run_folder."""
    return sorted(Path("runs").glob(f"{env}-{policy}-{optimizer}-[0-9]*"))


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


def claim_begun_run_folder(folder: Path) -> TextIO:
    """Waits for the lock, and takes away what a run left that ended before its first checkpoint.

    Raises ConfigError if there is a checkpoint by now.
    """
    lock = lock_run_folder(folder, LOCK_PATIENCE_S)
    if list_checkpoints(folder):
        raise ConfigError("run_dir", folder, "holds a checkpoint that was not there just now; give the command again")
    if (folder / CONFIG_FILE).exists():  # else nothing was begun, and what lies there is not ours
        for path in [*(folder / TENSORBOARD_FOLDER).glob("events.*"), folder / CONFIG_FILE]:
            path.unlink(missing_ok=True)
    return lock


def lock_run_folder(folder: Path, patience_s: float = 0.0) -> TextIO:
    """Makes the folder this process's own for as long as the returned file is open.

    A learner that was killed holds its lock until the system has ended it; on a network file system, until the server
    knows. Raises ConfigError if another process trains there, or it cannot be written.
    """
    until = time.monotonic() + patience_s
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+")
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.1)
        lock.seek(0)
        lock.truncate()
        with suppress(OSError):  # for whoever finds it locked; a disk that is full now may have space again later
            os.write(lock.fileno(), f"{process_name(os.getpid())}\n".encode())
    except BlockingIOError:
        lock.seek(0)
        host, _, _, pid, *_ = [*lock.read().split(), *["?"] * 4]
        what = f"another process is training in this folder: {pid} on {host}"
        raise ConfigError("run_dir", folder, what) from None
    except OSError as error:
        raise ConfigError("run_dir", folder, f"cannot be written: {error.strerror}") from None
    return lock


def write_launchers(folder: Path, names: Iterable[str | None]) -> None:
    """Remembers by which torchruns the learners were started (launcher_name), and by which process."""
    launchers = sorted({name for name in names if name})
    write_atomically(folder / LAUNCHER_FILE, "\n".join([process_name(os.getpid()), *launchers, ""]).encode())


def begun_by_this_launcher(folder: Path) -> bool:
    """Whether the torchrun that started this process had started the run's learners as well. Then they ended, and this
    process is to go on in their place."""
    name = launcher_name()
    try:
        first_learner, *launchers = (folder / LAUNCHER_FILE).read_text().splitlines()
    except (OSError, ValueError):
        return False
    return name in launchers and first_learner != process_name(os.getpid())


def check_run_dir(run_dir: str) -> None:
    """Raises ConfigError if a new run cannot be written there, or if there is one already."""
    path = Path(run_dir)
    if (path / CONFIG_FILE).exists():
        raise ConfigError(
            "run_dir",
            run_dir,
            f"holds a run already; continue it with resume={run_dir}, or with resume=auto; or name another",
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
    write_provenance(run_dir / PROVENANCE / ("start" if resumed_at is None else f"resumed_at_{resumed_at}"))
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


def commits_of_runs(run_dirs: Iterable[Path]) -> list[str]:
    """Of the code that has trained in these folders, by what provenance/ says; a resumed run has several."""
    files = [file for run_dir in run_dirs for file in (run_dir / PROVENANCE).glob("*/git_commit.txt")]
    return sorted({file.read_text().strip() for file in files})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str, status: int = 0) -> bytes:
    """What git prints in the checkout of this file; nothing if it is none, or git ends with another status."""
    checkout = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, preexec_fn=end_with_parent)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == status else b""

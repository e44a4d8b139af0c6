"""The folder of one run: its resolved configuration, where its code came from, checkpoints, TensorBoard events."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import OmegaConf

from dist_trainer.checkpoint_file import write_atomically
from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError

CONFIG_FILE = "config.yaml"
TENSORBOARD_FOLDER = "tensorboard"
_PACKAGES = ("dist_trainer", "torch", "heavyball", "numpy", "hydra-core", "omegaconf", "tensorboard")


def default_run_dir(config: TrainConfig, policy: str, optimizer: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return str(Path("runs") / f"{config.env.name}-{policy}-{optimizer}-{stamp}")


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


def create_run_folder(config: TrainConfig, run_dir: Path) -> None:
    """Makes the folder and writes what is known before the run starts."""
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run_dir / TENSORBOARD_FOLDER).mkdir(exist_ok=True)
    write_provenance(run_dir / "provenance")
    # Last: a folder with this file holds a run.
    write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())


def write_provenance(folder: Path) -> None:
    """git commit and uncommitted changes of the code, package versions, machine, command line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "git_commit.txt").write_text(_git("rev-parse", "HEAD") or "not a git checkout\n")
    (folder / "git_diff.patch").write_text(_git("diff", "HEAD"))
    versions = {name: _version(name) for name in _PACKAGES}
    versions |= {"python": platform.python_version(), "platform": platform.platform()}
    facts = {"versions": versions, "command": sys.argv, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    (folder / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    source = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""

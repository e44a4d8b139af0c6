"""Where the yaml files of the groups env, policy, optimizer and machine lie: `configs/`, and folders of users' own.

A user's folder has `env/NAME.yaml` and the like, and is named by `--config-dir` or in DIST_TRAINER_CONFIGS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dist_trainer.errors import ConfigError, choices

CONFIGS = "DIST_TRAINER_CONFIGS"  # environment variable: users' folders, separated by colons
OPTION = "--config-dir"
GROUPS = ("env", "policy", "optimizer", "machine", "tuned")
SPACES = "sweep"  # what a sweep tries: no group of a training
SUITES = "benchmark"  # what a benchmark trains in: nor is this


def config_dir() -> Path:
    """`configs/`: beside the package in a checkout, inside it where it was installed."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package.parent / "configs", package / "configs") if (path / "train.yaml").exists())


def own_config_dirs() -> list[Path]:
    """The users' folders. Raises ConfigError if there is none of that name, or it has no folder of a group."""
    folders = [Path(text).resolve() for text in os.environ.get(CONFIGS, "").split(os.pathsep) if text]
    for folder in folders:
        if not any((folder / group).is_dir() for group in (*GROUPS, SPACES, SUITES)):
            valid = f"must be a folder with yaml files in one of {', '.join((*GROUPS, SPACES, SUITES))}"
            raise ConfigError(OPTION, folder, valid)
    return folders


def take_config_dirs(arguments: Sequence[str]) -> list[str]:
    """Notes every `--config-dir DIR` for this process and those that it starts; returns the other arguments."""
    words = [word for text in arguments for word in (text.split("=", 1) if text.startswith(f"{OPTION}=") else [text])]
    while OPTION in words:
        at = words.index(OPTION)
        if not words[at + 1 : at + 2]:
            raise ConfigError(OPTION, "", "must be followed by a folder")
        known = os.environ.get(CONFIGS)
        os.environ[CONFIGS] = os.pathsep.join([str(Path(words[at + 1]).resolve()), *([known] if known else [])])
        words = words[:at] + words[at + 2 :]
    return words


def group_files(group: str) -> dict[str, Path]:
    """Its yaml files by the names that choose them. Raises ConfigError if a name is there twice."""
    found: dict[str, Path] = {}
    for folder in dict.fromkeys([config_dir(), *own_config_dirs()]):
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in found:
                raise ConfigError(group, path.stem, f"is both {found[path.stem]} and {path}; rename one")
            found[path.stem] = path
    return dict(sorted(found.items()))


def group_choices(group: str) -> list[str]:
    return list(group_files(group))


def group_file(group: str, name: str) -> Path:
    """Raises ConfigError that names the closest match."""
    files = group_files(group)
    if name not in files:
        raise ConfigError(group, name, f"no such file in configs/{group}; " + choices(files, name))
    return files[name]

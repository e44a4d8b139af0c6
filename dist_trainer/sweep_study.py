"""The folder of a study: what it is about (study.yaml), its journal, and a folder for each trial.

study.yaml            the trainings' whole configuration, the space, and how a score is made of a training
journal.log           trials, their parameters and scores: optuna-dashboard opens it
trials/0007/run1/     the run folder of trial 7's first seed; run1.log is what the training has said
workers/              signs of life, and what each worker of this machine has said
tuned/best.yaml       and other results, see sweep_results.py
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial

from dist_trainer.cli import small_text
from dist_trainer.errors import ConfigError
from dist_trainer.sweep_journal import open_storage
from dist_trainer.verb_configs import SweepConfig

STUDY_FILE = "study.yaml"
DIRECTION = optuna.study.StudyDirection.MAXIMIZE

# What a trial is marked with beside what optuna knows of it (user_attrs).
WORKER = "worker"  # whose it is, or was
ATTEMPTS = "attempts"  # that ended by a crash, or with their worker
REASON = "reason"  # why it failed, or was given back
SETTINGS = "settings"  # of the training, by their names
SECONDS, ENV_STEPS = "seconds", "env_steps"  # what it has cost
SHARE = "share"  # of the whole training that this was spent on: below 1 if it was pruned


@dataclass(frozen=True)
class StudyFolder:
    """An open study, which all workers share."""

    folder: Path
    storage: JournalStorage
    study_id: int
    name: str

    def trials(self) -> list[FrozenTrial]:
        """As they stand now; not to be changed."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}"


def open_study(folder: Path, definition: Mapping[str, Any]) -> StudyFolder:
    """Begins it, or goes on. Raises ConfigError that names what is not as it was when it was begun."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        began = _begin(folder / STUDY_FILE, definition)
    except OSError as error:
        raise ConfigError("sweep.folder", folder, f"cannot be written: {error.strerror}") from None
    if not began:
        check_same(folder, definition)
    return _open(folder)


def _open(folder: Path) -> StudyFolder:
    storage = open_storage(folder)
    if not storage.get_all_studies():
        with suppress(optuna.exceptions.DuplicatedStudyError):  # another worker was quicker
            storage.create_new_study([DIRECTION], folder.resolve().name)
    study = storage.get_all_studies()[0]  # its name stays when the folder is moved
    return StudyFolder(folder, storage, study._study_id, study.study_name)


def _begin(path: Path, definition: Mapping[str, Any]) -> bool:
    """False if another worker has. The file is there whole or not at all. Writes in any case: raises OSError if the
    folder cannot be written."""
    own = path.with_name(f".{path.name}-{uuid.uuid4()}")
    own.write_text(yaml.safe_dump(dict(definition), sort_keys=False))
    try:
        os.link(own, path)
    except FileExistsError:
        return False
    finally:
        own.unlink()
    return True


def check_same(folder: Path, definition: Mapping[str, Any]) -> None:
    """Raises ConfigError."""
    try:
        before = yaml.safe_load(small_text(folder / STUDY_FILE))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError("sweep.folder", folder, f"its {STUDY_FILE} cannot be read: {error}") from None
    old, new = _leaves(before), _leaves(yaml.safe_load(yaml.safe_dump(dict(definition))))
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            valid = f"was {old.get(name)} when the study in {folder} was begun; name another sweep.folder"
            raise ConfigError(name.removeprefix("train."), new.get(name), valid)


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {
        key: leaf for part, below in value.items() for key, leaf in _leaves(below, f"{name}.{part}".lstrip(".")).items()
    }


def cost_of(trial: FrozenTrial, config: SweepConfig) -> float | None:
    """Of its trainings so far: seconds, or steps of the environments."""
    return trial.user_attrs.get(SECONDS if config.cost == "seconds" else ENV_STEPS)

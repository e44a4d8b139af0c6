"""One curve of a run folder: a metric against environment steps and against seconds of training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_trainer.cli import small_text
from dist_trainer.errors import ConfigError, choices
from dist_trainer.run_folder import CONFIG_FILE, TENSORBOARD_FOLDER

CLOCK = "charts/seconds"  # training time over all resumes: what a run stood still for is not in it
ENV = "env/"


@dataclass(frozen=True)
class RunCurve:
    """P points."""

    run: Path
    settings: dict[str, Any]  # the run's configuration, by names such as ppo.gamma
    metric: str
    steps: NDArray[np.int64]  # (P,) of all learners, rising
    seconds: NDArray[np.float64]  # (P,)
    values: NDArray[np.float64]  # (P,)

    @property
    def env(self) -> str:
        return str(self.settings["env.name"])

    def reached(self, score: float) -> int | None:
        """The first point at `score` or above."""
        there = np.flatnonzero(self.values >= score)
        return int(there[0]) if len(there) else None


def read_settings(run: Path) -> dict[str, Any]:
    """Raises ConfigError if this is no run folder. Names no class, so that a stranger's folder does no harm."""
    try:
        content = yaml.safe_load(small_text(run / CONFIG_FILE))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError("run folder", run, f"is not one: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError("run folder", run, f"its {CONFIG_FILE} cannot be read: {error}") from None
    settings = dict(_leaves(content, ""))
    if "env.name" not in settings:
        raise ConfigError("run folder", run, f"its {CONFIG_FILE} names no environment")
    return settings


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, below in value.items() for leaf in _leaves(below, f"{name}.{key}".lstrip("."))]


def read_curve(run: Path, settings: dict[str, Any], metric: str) -> RunCurve:
    """`metric`: a tag, or the part behind env/. Raises ConfigError if the run has no such curve (yet)."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says that a file was cut, as a resume does
    events = EventAccumulator(str(run / TENSORBOARD_FOLDER), size_guidance={"scalars": 0, "images": 1, "histograms": 1})
    try:
        events.Reload()
    except DirectoryDeletedError:
        raise ConfigError("metric", metric, f"{run} has no curves: its training ended before they began") from None
    tags = events.Tags()["scalars"]
    tag = metric if metric in tags else ENV + metric
    if tag not in tags:
        found = [name.removeprefix(ENV) for name in tags if name.startswith(ENV)]
        there = choices(found, metric) if found else "it has no curves yet"
        raise ConfigError("metric", metric, f"{run} has none of this name; {there}")
    points = {event.step: event.value for event in events.Scalars(tag)}
    clock = {event.step: event.value for event in events.Scalars(CLOCK)}
    steps = sorted(points.keys() & clock.keys())
    return RunCurve(
        run,
        settings,
        metric,
        np.array(steps, np.int64),
        np.array([clock[step] for step in steps], np.float64),
        np.array([points[step] for step in steps], np.float64),
    )

"""Runs the trainings of a benchmark, some at a time, each as a process of its own. Any number of such programs, on any
number of machines, may do so together.

A run belongs to whoever holds the lock of its folder, and the lock ends with its holder: what was killed is taken up by
the next who comes by, from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dist_trainer.benchmark_grid import Run
from dist_trainer.checkpoint_file import write_atomically
from dist_trainer.process import end_with_parent
from dist_trainer.sweep_run import Ended, Training

TRAINING, SCORE_FILE, FAILED_FILE, LOCK_FILE = "train", "score.json", "failed.json", "lock"
EVALUATE_LOG = "evaluate.log"
ATTEMPTS = 2  # of a training that crashes
LOOK_EVERY_S = 0.1
SAVE_S = 60.0  # for a checkpoint, when asked to stop


@dataclass(frozen=True)
class Place:
    """What of this machine one run may use."""

    threads: int  # of each learner
    devices: Sequence[str] = ()  # GPUs; empty: as they are


@dataclass(frozen=True)
class Orders:
    settings: Sequence[str]  # of all runs
    learners: int
    stop: Callable[[], bool]
    say: Callable[[str], None]


def is_over(run: Run) -> bool:
    """Whether there is nothing left to do: it has a score, or has failed for good."""
    return (run.folder / SCORE_FILE).exists() or attempts(run)[0] >= ATTEMPTS


def attempts(run: Run) -> tuple[int, str]:
    """How often it has failed, and why the last time."""
    try:
        content = json.loads((run.folder / FAILED_FILE).read_text())
    except FileNotFoundError:
        return 0, ""
    return int(content["attempts"]), str(content["reason"])


def do_runs(runs: Sequence[Run], places: Sequence[Place], orders: Orders) -> None:
    """Until all are over, are others', or `stop` says so."""
    left = iter([run for run in runs if not is_over(run)])
    with ThreadPoolExecutor(len(places)) as pool:
        for done in [pool.submit(_work, left, place, orders) for place in places]:
            done.result()


def _work(left: Iterator[Run], place: Place, orders: Orders) -> None:
    for run in left:  # shared: each takes the next one
        while not orders.stop() and not is_over(run):
            with _held(run) as mine:
                if not mine:
                    break
                _do(run, place, orders)
        if orders.stop():
            return


@contextmanager
def _held(run: Run) -> Iterator[bool]:
    """Whether the run is this process's."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _do(run: Run, place: Place, orders: Orders) -> None:
    """Trains, or goes on, and evaluates."""
    if is_over(run):  # by somebody else, just now
        return
    began = time.monotonic()
    name = f"{run.task.env}, {run.contestant.name}, seed {run.seed}"
    own = [f"torch_threads={place.threads}", f"env_threads={place.threads}"]
    settings = [
        f"env={run.task.env}",
        *run.contestant.settings,
        f"seed={run.seed}",
        f"total_env_steps={run.task.steps:g}",
    ]
    environment = {"OMP_NUM_THREADS": str(place.threads)}
    if place.devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(place.devices)
    training = Training(
        run.folder / TRAINING, [*settings, *run.task.train, *orders.settings, *own], orders.learners, environment
    )
    while not training.has_ended:
        if orders.stop():
            training.stop(SAVE_S)
            break
        time.sleep(LOOK_EVERY_S)
    ended = training.ended()
    if ended.how == "complete":
        ended = _evaluate(run, own, environment, orders.stop)
    if ended.how == "stopped" or (ended.how == "crashed" and orders.stop()):  # it may have been killed to stop it
        return
    if ended.how != "complete":
        so_far = ATTEMPTS if ended.how == "hopeless" else attempts(run)[0] + 1
        content = {"attempts": so_far, "how": ended.how, "reason": ended.reason}
        write_atomically(run.folder / FAILED_FILE, json.dumps(content).encode())
    orders.say(f"{name}: {ended.reason or 'done'} ({time.monotonic() - began:.0f} s)")


def _evaluate(run: Run, own: Sequence[str], environment: dict[str, str], stop: Callable[[], bool]) -> Ended:
    """Complete, stopped or crashed. In a session of its own, as a training is: a terminal's Ctrl-C is no failure."""
    file = run.folder / f"{SCORE_FILE}.new"
    words = [f"checkpoint={run.folder / TRAINING}", f"greedy={run.task.greedy}", "opponents=false", f"json={file}"]
    command = [sys.executable, "-m", "dist_trainer", "evaluate", *words, *run.task.evaluate, *own]
    with (run.folder / EVALUATE_LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    while process.poll() is None:
        if stop():
            process.kill()
            process.wait()
            return Ended("stopped")
        time.sleep(LOOK_EVERY_S)
    if process.returncode != 0:
        said = (run.folder / EVALUATE_LOG).read_text(errors="replace").strip().splitlines() or ["no word"]
        return Ended("crashed", f"evaluate: {said[-1]}")
    file.rename(run.folder / SCORE_FILE)
    return Ended("complete")


def score_of(folder: Path, metric: str) -> float:
    """The mean that `evaluate` found."""
    means: dict[str, float] = json.loads((folder / SCORE_FILE).read_text())["means"]
    return means[metric]

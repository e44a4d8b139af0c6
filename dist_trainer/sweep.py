"""The verb `sweep`: starts this machine's workers of a study, shows how it goes, and writes what came of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from dist_trainer.gpus import VISIBLE, share_devices, visible_devices
from dist_trainer.process import end_with_parent
from dist_trainer.sweep_plan import SweepPlan
from dist_trainer.sweep_results import write_results
from dist_trainer.sweep_study import StudyFolder, open_study
from dist_trainer.sweep_table import Progress, is_over, ranked
from dist_trainer.sweep_worker import GAVE_UP, MISTAKE, OVER, STOPPED

LOOK_EVERY_S = 0.5
FORCE_AFTER = 3  # interrupts
PAUSE_S = 2.5  # between restarts, doubled by each
RESTARTS = 3  # of all workers together, after one has ended by itself


class Workers:
    """Processes of this machine, each with its share of cores and GPUs, in sessions of their own."""

    def __init__(self, plan: SweepPlan, study: StudyFolder, arguments: Sequence[str]):
        self._folder, self._arguments = study.folder / "workers", arguments
        self._folder.mkdir(exist_ok=True)
        count, learners = plan.config.workers, plan.config.learners
        self._threads = max(1, len(os.sched_getaffinity(0)) // (count * learners))
        self._devices = share_devices(visible_devices(str(plan.base["device"])), count, learners)
        self.restarts, self._not_before = 0, 0.0
        self.processes = [self._start(index) for index in range(count)]

    def log_of(self, index: int) -> Path:
        return self._folder / f"{os.uname().nodename}-{os.getpid()}-{index}.log"

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if self._devices[index]:
            environment[VISIBLE] = ",".join(self._devices[index])
        command = [sys.executable, "-m", "dist_trainer.sweep_worker", str(self._threads), *self._arguments]
        log: IO[bytes]
        with self.log_of(index).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def statuses(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def replace(self, index: int) -> bool:
        """Whether there is a new one. Not at once after another: what ends workers, such as a disk that is away for a
        moment, may pass."""
        if time.monotonic() < self._not_before:
            return False
        self.restarts += 1
        self._not_before = time.monotonic() + PAUSE_S * 2**self.restarts
        self.processes[index] = self._start(index)
        return True

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


class Stop:
    """Signals are passed on to the workers; the third Ctrl-C ends them at once."""

    def __init__(self) -> None:
        self.asked, self.interrupts = False, 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        self.asked = True
        self.interrupts += number == signal.SIGINT


def run_sweep(plan: SweepPlan, arguments: Sequence[str]) -> int:
    """`arguments`: those of the plan, for the workers. Exit status: 0 if the study is over with a score, 3 if it was
    stopped, else 1. Raises ConfigError."""
    study = open_study(plan.folder, plan.definition)
    stop, console = Stop(), Console()
    console.print(f"sweep: {study.folder}, {plan.config.workers} worker(s) here", soft_wrap=True, highlight=False)
    workers = Workers(plan, study, arguments)
    told = False
    with Progress(plan, study, console) as progress:
        while _under_way(workers, progress, stop.asked):
            if stop.asked and not told:
                told = True
                progress.say("sweep: stopping; trials that are under way write a checkpoint")
                workers.signal(signal.SIGTERM)
            if stop.interrupts >= FORCE_AFTER:
                workers.signal(signal.SIGKILL)
            progress.update()
            time.sleep(LOOK_EVERY_S)
        progress.update()
    return _end(plan, study, workers, console, told)


def _under_way(workers: Workers, progress: Progress, stopping: bool) -> bool:
    """Whether a worker works on, or one that has died was replaced: the last one, too."""
    found = False
    for index, status in enumerate(workers.statuses()):
        if status is None:
            found = True
        elif status not in (OVER, GAVE_UP, MISTAKE, STOPPED) and not stopping and workers.restarts < RESTARTS:
            found = True
            if workers.replace(index):
                progress.say(f"sweep: a worker ended with status {status}; another one takes its place")
    return found


def _end(plan: SweepPlan, study: StudyFolder, workers: Workers, console: Console, told: bool) -> int:
    """`told`: the workers were asked to stop. One that did not listen yet was ended by that, and held no trial."""
    write_results(plan, study, console)
    well = (OVER, STOPPED, -signal.SIGTERM) if told else (OVER, STOPPED)
    failed = [index for index, status in enumerate(workers.statuses()) if status not in well]
    for index in failed:
        console.print(f"sweep: a worker failed; see {workers.log_of(index)}", soft_wrap=True, highlight=False)
    if is_over(plan, study.trials()):
        return 0 if ranked(study.trials()) else 1
    if failed:
        return 1
    console.print("sweep: stopped; the same command goes on", highlight=False)
    return STOPPED

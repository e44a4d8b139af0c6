"""`python -m dist_trainer.sweep_worker THREADS SETTING=VALUE...`: one worker, as the verb `sweep` starts it.

Takes trials until none is left. Asked to stop (SIGTERM, SIGINT, SIGUSR1) it stops its training with a checkpoint, and
gives the trial back; killed, it leaves the trial to whoever notices.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

from dist_trainer.config_files import take_config_dirs
from dist_trainer.errors import ConfigError
from dist_trainer.process import deny_writing_to_others, end_with_parent
from dist_trainer.sweep_plan import plan_sweep
from dist_trainer.sweep_queue import Queue
from dist_trainer.sweep_signs import SignOfLife, Watch
from dist_trainer.sweep_study import open_study
from dist_trainer.sweep_trial import Worker, run_trial

OVER, MISTAKE, STOPPED, GAVE_UP = 0, 2, 3, 4  # exit statuses; 1 is that of an exception
MOST_FAILURES = 10  # in a row: then it is not the settings, but the machine, or what all trials have in common
WAIT_S = 1.0  # for others' trials, of which one may come back


class StopFlag:
    """Set by signals; nothing is interrupted by them."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._set)

    def _set(self, _number: int, _frame: object) -> None:
        self.is_set = True

    def __call__(self) -> bool:
        return self.is_set


def work(arguments: Sequence[str], threads: int) -> int:
    """Exit status. Raises ConfigError."""
    stop = StopFlag()
    plan = plan_sweep(take_config_dirs(arguments))
    study = open_study(plan.folder, plan.definition)
    life = SignOfLife(study.folder)
    try:
        watch = Watch(study.folder, plan.config.patience_s)
        queue = Queue(study, life.name, watch, plan.config.trials, plan.config.retries)
        worker = Worker(plan, study, queue, stop, threads)
        failures = 0
        while not stop():
            trial = queue.take()
            if trial:
                failed = run_trial(worker, trial) in ("hopeless", "crashed")
                failures = failures + 1 if failed else 0
                if failures == MOST_FAILURES:
                    print(f"{failures} trainings in a row have failed: this worker gives up", flush=True)
                    return GAVE_UP
            elif queue.is_over():
                return OVER
            else:
                time.sleep(WAIT_S)
        return OVER if queue.is_over() else STOPPED
    finally:
        life.end()


def main() -> int:
    end_with_parent()
    deny_writing_to_others()
    try:
        return work(sys.argv[2:], int(sys.argv[1]))
    except ConfigError as error:
        print(f"dist_trainer: {error}", flush=True)
        return MISTAKE


if __name__ == "__main__":
    sys.exit(main())

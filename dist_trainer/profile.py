"""`profile=true`: a trace of a few iterations by each learner, for a trace viewer, and the top costs on the terminal.

torch's profiler records what torch does, the phases of stopwatch.py and the device's kernels; the pools note when each
of their threads (or worker processes) works. Nothing of it is computed with: the run is the same to the bit. While the
profiler does not run it costs nothing.
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from pathlib import Path

from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function

from dist_trainer import stopwatch
from dist_trainer.config import TrainConfig
from dist_trainer.console import Progress
from dist_trainer.learner import Learner
from dist_trainer.trace_file import CLOCK, ITERATION, cost_table, with_pool, write_trace

FOLDER = "profile"  # in the run folder
CLOCK_MARKS = 10  # to tell by how much the trace's clock is off; the machine may be busy at some of them
OF_ALL_THREADS = _ExperimentalConfig(profile_all_threads=True)  # with overlap=true another one collects


class Profile:
    """Use as a context; `begin_iteration` at the start of each. At each start of a run, also a resumed one, profiles
    the `profile_iterations` that come after `profile_after`."""

    def __init__(self, learner: Learner, run_dir: Path, progress: Progress):
        config: TrainConfig = learner.config
        self._learner, self._folder, self._progress = learner, run_dir / FOLDER, progress
        self._wait = config.profile_after if config.profile else None  # iterations; None: no profile, or no more
        self._done, self._count = 0, config.profile_iterations
        self._first = 0  # iteration that was profiled
        self._clock_ns: list[int] = []  # the steady clock, at marks in the trace
        self._profiler: profile | None = None
        self._marked = ExitStack()  # the iteration

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A run that ends while it is profiled has its trace; one that fails has none."""
        if self._profiler:
            self._stop(writes=kind is None)
        elif self._wait is not None and kind is None:
            self._progress.say(f"no profile: the run ended within profile_after={self._learner.config.profile_after}")

    def begin_iteration(self) -> None:
        if self._wait is None:
            return
        if self._wait > 0:
            self._wait -= 1
            return
        self._marked.close()
        if self._done == self._count:
            self._stop(writes=True)
            return
        if not self._profiler:
            self._start()
        self._done += 1
        self._marked.enter_context(record_function(ITERATION))

    def _start(self) -> None:
        on_gpu = self._learner.world.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        self._first = self._learner.iteration
        self._profiler = profile(activities=activities, experimental_config=OF_ALL_THREADS)
        self._profiler.start()
        for _ in range(CLOCK_MARKS):
            self._clock_ns.append(time.monotonic_ns())
            with record_function(CLOCK):
                continue
        self._learner.pool.trace(True)
        stopwatch.trace(True)

    def _stop(self, writes: bool) -> None:
        profiler, self._profiler, self._wait = self._profiler, None, None
        if profiler is None:
            return
        self._marked.close()
        stopwatch.trace(False)
        profiler.stop()
        if not writes:  # what failed may have left a step in flight, and the learner is about to go
            return
        self._learner.pool.trace(False)
        spans, rank = self._learner.pool.take_spans(), self._learner.world.rank
        file = self._folder / f"iteration_{self._first}_rank_{rank}.json.gz"
        try:
            trace = with_pool(profiler, self._clock_ns, spans)
            write_trace(file, trace)
        except OSError as error:  # a full disk ends no run
            warnings.warn(f"no profile: {file} cannot be written: {error}", stacklevel=2)
            return
        if self._learner.world.is_first:
            self._progress.show(cost_table(trace["traceEvents"], self._learner.world.device.type == "cuda"))
            self._progress.say(f"profile of {self._done} iteration(s): {self._folder}; open a file in ui.perfetto.dev")

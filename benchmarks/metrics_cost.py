"""What it costs to be told: TensorBoard, the dashboard, histograms, replays.

    python -m benchmarks.metrics_cost [--pairs 4] [--seconds 20] [--env breakout]

Two figures. Pairs: throughput of runs with everything as it is by default, on a terminal (a pseudo-terminal), by that
of runs beside them, in turn, that write a point in a million iterations, into a file. Share: of the time of the first
kind, what the loop spent in report.Report.iteration, replays (one in ten minutes by default) counted apart. The pairs
tell what threads beside the loop cost, too, but are as noisy as the machine; the share is exact and leaves those out.
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

QUIET = ["log_every=1000000", "diagnostics_every=0", "histograms_every=0", "replay_minutes=0"]
ALL = ["diagnostics_every=0"]  # which is a measurement of its own, with a cost of its own (benchmarks/LOG.md)
SETTINGS = ["device=cpu", "torch_threads=1", "env_threads=1", "checkpoint_minutes=1000"]
MEASURED = """
import sys, time
from dist_trainer import report
inner, replay, spent = report.Report.iteration, report.Report._replay, [0.0, 0.0, 0.0]
def timed(function, index):
    def call(*args, **kwargs):
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[index] += time.perf_counter() - began
    return call
report.Report.iteration, report.Report._replay = timed(inner, 0), timed(replay, 1)
from dist_trainer.__main__ import main
sys.argv = ["dist_trainer", *sys.argv[2:]]
out = OUT
began = time.perf_counter()
main()
open(out, "w").write(f"{spent[0]} {spent[1]} {time.perf_counter() - began}")
"""


def rate(run_dir: Path) -> float:
    """Steps per second of training."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 1, "histograms": 1})
    events.Reload()
    last = events.Scalars("charts/seconds")[-1]
    return last.step / last.value


def run(command: list[str], on_terminal: bool, log: Path) -> None:
    """Raises CalledProcessError."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "COLUMNS": "120"}
    with log.open("wb") as file:
        if not on_terminal:
            subprocess.run(command, stdout=file, stderr=file, check=True, env=environment)
            return
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)

        def read() -> None:
            try:
                while part := os.read(ours, 65536):
                    file.write(part)
            except OSError:  # the other end is closed
                return

        reader = threading.Thread(target=read)
        reader.start()
        status = process.wait()
        reader.join()
        os.close(ours)
    if status:
        raise subprocess.CalledProcessError(status, command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--env", default="breakout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def train(name: str, steps: float, on_terminal: bool) -> Path:
            run_dir = place / name
            own = [*SETTINGS, *(ALL if on_terminal else QUIET), f"env={options.env}", f"run_dir={run_dir}"]
            program = MEASURED.replace("OUT", repr(str(place / f"{name}.time")))
            command = [sys.executable, "-c", program, "-", "train", *own, f"total_env_steps={steps}"]
            run(command, on_terminal, place / f"{name}.log")
            return run_dir

        steps = options.seconds * rate(train("first", 5e5, on_terminal=False))
        ratios, shares, replays = [], [], []
        for pair in range(options.pairs):
            rates = {}
            for told in (True, False) if pair % 2 else (False, True):
                rates[told] = rate(train(f"{pair}{told}", steps, on_terminal=told))
            ratios.append(rates[True] / rates[False])
            spent, replay, whole = map(float, (place / f"{pair}True.time").read_text().split())
            shares.append((spent - replay) / whole)
            replays.append(replay)
            print(f"pair {pair + 1}: {rates[True]:,.0f} / {rates[False]:,.0f} steps/s = {ratios[-1]:.4f}", flush=True)
    middle, spread = statistics.median(ratios), max(ratios) - min(ratios)
    print(f"{options.env}: ratio {middle:.4f} (median of {options.pairs} pairs, spread {spread:.4f})")
    share, replay = statistics.median(shares), statistics.median(replays)
    print(f"share of the loop's time in reports {share:.4%}; a replay {replay:.2f} s, once in 600 s {replay / 600:.4%}")


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s")

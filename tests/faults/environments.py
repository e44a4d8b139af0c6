"""CartPole whose steps crash, hang and show no number at random: how fast it trains, and whether it gets there.

    python -m tests.faults.environments [--env-steps 2e6] [--repeat 3] [--segfault 1e-5] [--hang 1e-6] [--nan 1e-5] ...

Trains `env=probe_faults env.workers=processes` without faults and with them, in turns, and compares. With the defaults
about one process in a million steps hangs and costs the deadline; ten crash and ten show what is no number, and each
costs the start of a process. Exit status 1 if it trains at less than 90 % of its speed or does not reach a mean return
of 475, where CartPole counts as solved. Keep the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
SOLVED, LEAST_SPEED = 475, 0.9


@dataclass
class Result:
    steps_per_second: float  # of training, start-up excluded
    mean_return: float  # of the latest 100 episodes or more
    restarts: float  # of worker processes
    seconds: float
    complaints: list[str]  # what was said of environments


def train(run_dir: Path, *settings: str) -> Result:
    """Raises CalledProcessError if the run fails."""
    fixed = ["env=probe_faults", "env.workers=processes", "device=cpu", f"run_dir={run_dir}"]
    done = subprocess.run(
        [sys.executable, "-m", "dist_trainer", "train", *fixed, *settings],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    accumulator = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    restarts = sum(event.value for event in accumulator.Scalars("env/worker_restarts"))
    last, seconds = accumulator.Scalars("env/episode_return")[-1], accumulator.Scalars("charts/seconds")
    # From the first iteration's end on: before it libraries are still being loaded.
    speed = (seconds[-1].step - seconds[0].step) / (seconds[-1].value - seconds[0].value)
    complaints = [line for line in done.stderr.splitlines() if " of probe_faults" in line]
    return Result(speed, last.value, restarts, seconds[-1].value, complaints)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-steps", type=float, default=2e6)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=0.1, help="env.step_timeout_s")
    rates = {"segfault": 1e-5, "hang": 1e-6, "nan": 1e-5}
    for name, rate in rates.items():
        parser.add_argument(f"--{name}", type=float, default=rate, help="probability of a step")
    parser.add_argument("settings", nargs="*", help="further settings of both trainings")
    options = parser.parse_args()
    common = [f"total_env_steps={options.env_steps}", f"env.step_timeout_s={options.timeout}", *options.settings]
    faults = [f"env.params.{name}={getattr(options, name)}" for name in rates]
    print("| | steps/s | mean return | worker restarts | a second |\n|---|---|---|---|---|", flush=True)
    speeds: dict[str, list[float]] = {"undisturbed": [], "with faults": []}
    solved = True
    for round_ in range(options.repeat):
        for name, extra in (("undisturbed", []), ("with faults", faults)):
            with tempfile.TemporaryDirectory() as folder:
                result = train(Path(folder) / "run", *common, *extra, f"seed={round_ + 1}")
            speeds[name].append(result.steps_per_second)
            solved &= result.mean_return >= SOLVED
            cells = (f"{result.steps_per_second:,.0f}", f"{result.mean_return:.1f}", f"{result.restarts:.0f}")
            print(f"| {name} | {' | '.join(cells)} | {result.restarts / result.seconds:.2f} |", flush=True)
    ratio = median(speeds["with faults"]) / median(speeds["undisturbed"])
    print(
        f"\nspeed with faults: {100 * ratio:.1f} % (medians of {options.repeat}); solved: {'yes' if solved else 'no'}"
    )
    return 0 if solved and ratio > LEAST_SPEED else 1


if __name__ == "__main__":
    sys.exit(main())

"""How fast the real trainer is, where its time goes, and how near to the limit of the machine (benchmarks/limit.py).

    python -m benchmarks.throughput [--learners 1 2] [--precision float32 bfloat16] [--repeat 3] [SETTING=VALUE ...]

Limit and trainer take turns, `repeat` times; medians are printed. The trainer runs as users run it (torchrun if there
are several learners, one thread each), 65,536 samples an iteration on Breakout unless the settings say otherwise; its
speed is that of the median iteration, the first two left out. Keep the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.limit import measure
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.envs import env_spec

ITERATIONS, WARM_UP = 10, 2
PHASES = ("rollout", "learn", "other")


def train(learners: int, settings: list[str], samples: int) -> dict[str, float]:
    """Steps/s of the median iteration, and the median share of each phase."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={learners}"] if learners > 1 else []
    alone = ["torch_threads=1", "env_threads=1", "device=cpu"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        steps = [f"total_env_steps={ITERATIONS * samples}", f"run_dir={run_dir}", "checkpoint_minutes=1000"]
        command = [sys.executable, *launcher, "-m", "dist_trainer", "train", *settings, *alone, *steps]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()

        def typical(tag: str) -> float:
            return median([point.value for point in events.Scalars(tag)][WARM_UP:])

        seconds = {phase: typical(f"perf/{phase}_seconds") for phase in PHASES}
        return {"steps/s": typical("perf/env_steps_per_second")} | {
            phase: time / sum(seconds.values()) for phase, time in seconds.items()
        }


def limit(config: TrainConfig, learners: int, precision: str) -> float:
    samples = config.horizon_env_steps
    hidden = config.policy["hidden_size"]
    sizes = (env_spec(config.env), hidden, samples, config.horizon, config.ppo.minibatches)
    return measure(*sizes, learners, 1, precision).both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[])
    parser.add_argument("--learners", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    settings = ["env=breakout", "policy=lstm", "total_envs=1024", "horizon=64", *options.settings]
    config = compose_train(settings)[0]
    columns = ["precision", "learners", "steps/s", "limit", "ratio", *PHASES]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for precision in options.precision:
        for learners in options.learners:
            runs, limits = [], []
            for _ in range(options.repeat):
                limits.append(limit(config, learners, precision))
                runs.append(train(learners, [*settings, f"precision={precision}"], config.horizon_env_steps))
            speed, most = median(run["steps/s"] for run in runs), median(limits)
            shares = " | ".join(f"{median(run[phase] for run in runs):.0%}" for phase in PHASES)
            print(
                f"| {precision} | {learners} | {speed:,.0f} | {most:,.0f} | {speed / most:.2f} | {shares} |", flush=True
            )


if __name__ == "__main__":
    main()

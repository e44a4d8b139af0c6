"""How fast the real trainer is, where its time goes, and how near to the limit of the machine (benchmarks/limit.py).

    python -m benchmarks.throughput [--device auto] [--env breakout] [--hidden 128] [--learners 1 2]
                                    [--precision float32 bfloat16] [--repeat 3] [SETTING=VALUE ...]

Limit and trainer take turns, `repeat` times; medians are printed, a row as soon as it is known. The trainer runs as
users run it (torchrun if there are several learners), 65,536 samples an iteration unless the settings say otherwise;
its speed is that of the median iteration, the first ones left out. On CPUs each learner has one thread. On GPUs there
is one learner each, by default on all that are visible; `busy` is the share of a learner's time in which its GPU
computes (benchmarks/gpu_profile.py). Keep the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.limit import PRECISIONS, measure, measure_gpus
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.envs import env_spec

ITERATIONS, WARM_UP = {"cpu": 10, "cuda": 30}, {"cpu": 2, "cuda": 5}
PHASES = {  # columns: the trainer's phases (stopwatch.py)
    "rollout": ("environments", "inference", "copies"),
    "gradient": ("gradient", "curvature"),
    "optimizer": ("optimizer",),
    "exchange": ("communication",),
    "other": ("other",),
}
COLUMNS = ("environment", "LSTM", "precision", "learners", "steps/s", "limit", "ratio", *PHASES, "busy")


def output_of(command: list[str], threads: int | None = None) -> str:
    """Raises RuntimeError with the end of what the command said if it fails."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def train(device: str, learners: int, settings: list[str], samples: int, iterations: int) -> dict[str, float]:
    """Steps/s of the median iteration, and the median share of each phase."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={learners}"] if learners > 1 else []
    alone = ["torch_threads=1", "env_threads=1"] if device == "cpu" else []
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        steps = [f"total_env_steps={iterations * samples}", f"run_dir={run_dir}", "checkpoint_minutes=1000"]
        command = [*launcher, "-m", "dist_trainer", "train", *settings, *alone, f"device={device}", *steps]
        output_of(command, threads=1 if device == "cpu" else None)
        events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()

        def typical(tag: str) -> float:
            return median([point.value for point in events.Scalars(tag)][WARM_UP[device] :])

        seconds = {
            column: sum(typical(f"perf/{phase}_seconds") for phase in phases) for column, phases in PHASES.items()
        }
        return {"steps/s": typical("perf/env_steps_per_second")} | {
            phase: time / sum(seconds.values()) for phase, time in seconds.items()
        }


def limit(device: str, config: TrainConfig, learners: int, precision: str) -> float:
    samples = config.horizon_env_steps
    hidden = config.policy["hidden_size"]
    sizes = (env_spec(config.env), hidden, samples, config.horizon, config.ppo.minibatches)
    if device == "cuda":
        return measure_gpus(*sizes, learners, precision).both
    return measure(*sizes, learners, 1, precision).both


def busy_share(config: TrainConfig, settings: list[str], learners: int) -> float:
    """Of the GPU of one learner with its part of the environments, in a process of its own."""
    command = ["-m", "benchmarks.gpu_profile", "--device", "cuda", "--json", *settings]
    printed = output_of([*command, f"total_envs={config.total_envs // learners}"])
    return json.loads(printed.splitlines()[-1])["busy"]


def row(device: str, settings: list[str], learners: int, precision: str, repeat: int, iterations: int) -> str:
    config = compose_train(settings)[0]
    settings = [*settings, f"precision={precision}"]
    runs, limits = [], []
    for _ in range(repeat):
        limits.append(limit(device, config, learners, precision))
        runs.append(train(device, learners, settings, config.horizon_env_steps, iterations))
    speed, most = median(run["steps/s"] for run in runs), median(limits)
    shares = " | ".join(f"{median(run[phase] for run in runs):.0%}" for phase in PHASES)
    busy = f"{busy_share(config, settings, learners):.0%}" if device == "cuda" else "-"
    return f"{precision} | {learners} | {speed:,.0f} | {most:,.0f} | {speed / most:.2f} | {shares} | {busy}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--env", nargs="+", default=["breakout"])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128])
    parser.add_argument("--learners", type=int, nargs="+", help="default: one and as many as cores; all GPUs")
    parser.add_argument("--precision", nargs="+", help="default: all that the device has")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--iterations", type=int, help="of each training run")
    options = parser.parse_intermixed_args()
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    everyone = [torch.cuda.device_count()] if device == "cuda" else [1, len(os.sched_getaffinity(0))]
    iterations = options.iterations or ITERATIONS[device]
    if iterations <= WARM_UP[device]:
        parser.error(f"--iterations={iterations}: the first {WARM_UP[device]} are left out; give more")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for env in options.env:
        for hidden in options.hidden:
            sizes = [f"env={env}", "policy=lstm", f"policy.hidden_size={hidden}", "total_envs=1024", "horizon=64"]
            for precision in options.precision or PRECISIONS[device]:
                for learners in options.learners or everyone:
                    own = [*sizes, *options.settings]
                    measured = row(device, own, learners, precision, options.repeat, iterations)
                    print(f"| {env} | {hidden} | {measured} |", flush=True)


if __name__ == "__main__":
    main()

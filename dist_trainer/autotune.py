"""`python -m dist_trainer autotune`: how this machine runs a training fastest, found by running it.

Only what does not change the run is tried: how many learners share the machine, and how many threads and buffer groups
each has. One thing is decided after the other, by short runs of the real trainer, the candidates taking turns.
"""

from __future__ import annotations

import datetime
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dist_trainer.cli import apply, compose_train, parse
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import config_dir
from dist_trainer.errors import ConfigError
from dist_trainer.plan import plan_train
from dist_trainer.plan_trained import check_writable
from dist_trainer.process import end_with_parent
from dist_trainer.run_folder import TENSORBOARD_FOLDER
from dist_trainer.validation import validate_autotune
from dist_trainer.verb_configs import AutotuneConfig

ROUNDS = 2  # of each candidate
WARM_UP = 2  # iterations that do not count
MARGIN = 1.05  # a candidate further down the list must be this much faster: the simpler ones come first


@dataclass(frozen=True)
class Candidate:
    learners: int  # on this machine
    torch_threads: int  # of each
    env_threads: int
    env_groups: int

    @property
    def settings(self) -> list[str]:
        return [f"{name}={getattr(self, name)}" for name in ("torch_threads", "env_threads", "env_groups")]


class RunFailed(RuntimeError):
    """A candidate's run did not end well."""


@dataclass(frozen=True)
class AutotunePlan:
    """What to try, and where the result goes."""

    config: TrainConfig
    settings: list[str]  # of the training, as they were given
    iterations: int  # of each run that count
    output: Path

    @property
    def is_in_configs(self) -> bool:
        """Whether `machine=` finds the result."""
        return self.output.parent == config_dir() / "machine"


def plan_autotune(arguments: Sequence[str]) -> AutotunePlan:
    """Raises ConfigError. Settings that are not the verb's own are those of the training."""
    own = {field.name for field in fields(AutotuneConfig)}
    of_verb = [argument for argument in arguments if argument.partition("=")[0] in own]
    settings = [argument for argument in arguments if argument not in of_verb]
    chosen: AutotuneConfig = apply(OmegaConf.structured(AutotuneConfig), parse(of_verb))
    validate_autotune(chosen)
    config = compose_train(settings)[0]
    for name in ("run_dir", "resume"):
        if getattr(config, name) is not None:
            raise ConfigError(name, getattr(config, name), "autotune makes its own runs, and keeps none")
    plan_train(settings, 1)
    output = Path(chosen.output) if chosen.output else config_dir() / "machine" / f"{socket.gethostname()}.yaml"
    check_writable("output", output)
    return AutotunePlan(config, settings, chosen.iterations, output)


def run(plan: AutotunePlan) -> int:
    """Prints what was measured and writes the best to `plan.output`. Returns the exit status."""
    cores, gpus = len(os.sched_getaffinity(0)), _gpus(plan.config)
    print(f"{plan.config.env.name} on {cores} cores and {gpus} GPUs; {plan.iterations} iterations a run\n", flush=True)
    best = _best_of(plan, learner_candidates(plan.config, cores, gpus), "learners x threads")
    best = _best_of(plan, env_thread_candidates(best[0], cores), "threads of the environments")
    best = _best_of(plan, group_candidates(plan.config, best[0]), "buffer groups")
    command = train_command(best[0], plan)
    write(plan, *best, command)
    print(f"\n{best[1]:,.0f} steps/s; written to {plan.output}. Train so:\n\n  {command}")
    return 0


def _gpus(config: TrainConfig) -> int:
    if config.device == "cpu":
        return 0
    import torch  # not before the settings were checked

    return torch.cuda.device_count()


def learner_candidates(config: TrainConfig, cores: int, gpus: int) -> list[Candidate]:
    """One learner for each GPU; without GPUs every number that divides both the cores and the environments."""
    possible = [gpus] if gpus else [n for n in range(1, cores + 1) if cores % n == 0 and divides(config, n)]
    return [Candidate(n, max(1, cores // n), max(1, cores // n), 1) for n in possible]


def divides(config: TrainConfig, parts: int) -> bool:
    """Whether the environments of every minibatch can be shared out over so many learners or groups."""
    return config.total_envs % (parts * config.ppo.minibatches) == 0


def env_thread_candidates(best: Candidate, cores: int) -> list[Candidate]:
    share = max(1, cores // best.learners)
    return [best, *(replace(best, env_threads=n) for n in sorted({1, 2, share // 2, share} - {0, best.env_threads}))]


def group_candidates(config: TrainConfig, best: Candidate) -> list[Candidate]:
    sizes = [n for n in (2, 4) if config.total_envs % (n * best.learners) == 0]
    return [best, *(replace(best, env_groups=n) for n in sizes)]


def _best_of(plan: AutotunePlan, candidates: Sequence[Candidate], what: str) -> tuple[Candidate, float]:
    """The fastest of the candidates, and its speed."""
    print(
        f"{what}\n| learners | torch_threads | env_threads | env_groups | steps/s |\n|---|---|---|---|---|", flush=True
    )
    speeds: dict[Candidate, list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(ROUNDS):
        for candidate in candidates:
            speeds[candidate] += measure(candidate, plan)
    best = candidates[0]
    for candidate in candidates:
        cells = (candidate.learners, candidate.torch_threads, candidate.env_threads, candidate.env_groups)
        print(f"| {' | '.join(map(str, cells))} | {median(speeds[candidate]):,.0f} |", flush=True)
        if median(speeds[candidate]) > MARGIN * median(speeds[best]):
            best = candidate
    print(flush=True)
    return best, median(speeds[best])


def launcher(learners: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={learners}"] if learners > 1 else []


def measure(candidate: Candidate, plan: AutotunePlan) -> list[float]:
    """Steps/s of each iteration. Raises RunFailed with what the trainer said."""
    steps = (WARM_UP + plan.iterations) * plan.config.horizon_env_steps
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        fixed = [f"total_env_steps={steps}", f"run_dir={run_dir}", "checkpoint_minutes=1e6", "log_every=1"]
        command = [sys.executable, *launcher(candidate.learners), "-m", "dist_trainer", "train"]
        command += [*plan.settings, *candidate.settings, *fixed]
        # torchrun sets it as well, for several; and one learner alone must not have more in the background
        environment = os.environ | {"OMP_NUM_THREADS": str(candidate.torch_threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, preexec_fn=end_with_parent)
        if done.returncode:
            raise RunFailed(f"{shlex.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
        events = EventAccumulator(str(run_dir / TENSORBOARD_FOLDER), size_guidance={"scalars": 0})
        events.Reload()
        return [point.value for point in events.Scalars("perf/env_steps_per_second")][WARM_UP:]


def train_command(best: Candidate, plan: AutotunePlan) -> str:
    start = ["torchrun", "--standalone", f"--nproc-per-node={best.learners}"] if best.learners > 1 else ["python"]
    chosen = [f"machine={plan.output.stem}"] if plan.is_in_configs else best.settings
    return shlex.join([*start, "-m", "dist_trainer", "train", *plan.settings, *chosen])


def write(plan: AutotunePlan, best: Candidate, speed: float, command: str) -> None:
    today = datetime.date.today().isoformat()
    lines = [
        "# @package _global_",
        f"# Found by autotune on {socket.gethostname()}, {today}: {speed:,.0f} steps/s with",
        f"#   {command}",
        *(setting.replace("=", ": ") for setting in best.settings),
    ]
    plan.output.parent.mkdir(parents=True, exist_ok=True)
    plan.output.write_text("\n".join(lines) + "\n")

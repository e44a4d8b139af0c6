"""The settings of every verb but `train`, whose are in config.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EvaluateConfig:
    """`python -m dist_trainer evaluate`."""

    checkpoint: str = "???"  # a run folder (its newest checkpoint) or a checkpoint
    library: str | None = None  # of the run's environment: to name it here is to trust it
    best: bool = False  # of a run folder the checkpoint of the highest score, not the newest
    episodes: int = 100  # one environment each
    greedy: bool = False  # the most likely action instead of a sampled one
    seed: int = 12345  # of the environments and of sampling
    max_steps: int = 100_000  # per environment; an episode that is longer counts as unfinished
    device: str = "auto"  # auto | cpu | cuda
    torch_threads: int | None = None  # default: all cores
    env_threads: int | None = None  # the same
    opponents: bool = True  # and a table of scores against each of env.opponents (configs/env), where there are any
    against: list[str] = field(default_factory=list)  # and against other runs or checkpoints, who play the other team
    require_mean_return: float | None = None  # exit with status 1 below it
    json: str | None = None  # also write the result to this file


@dataclass
class WatchConfig:
    """`python -m dist_trainer watch`."""

    checkpoint: str = "???"  # a run folder (its newest checkpoint) or a checkpoint
    library: str | None = None  # of the run's environment: to name it here is to trust it
    best: bool = False  # of a run folder the checkpoint of the highest score, not the newest
    greedy: bool = False  # the most likely action instead of a sampled one; key s changes it
    seed: int = 12345  # of the environment and of sampling
    show: int = 0  # which environment: its number, as in a training of more than so many; key n shows the next
    fps: float | None = None  # steps per second; default: as the environment's yaml says (env.view)
    device: str = "cpu"  # auto | cpu | cuda
    steps: int | None = None  # close the window after so many


@dataclass
class PlayConfig:
    """`python -m dist_trainer play`."""

    checkpoint: str | None = None  # a run folder or a checkpoint, whose agents you play with or against; null: alone
    library: str | None = None  # of the run's environment: to name it here is to trust it
    best: bool = False  # of a run folder the checkpoint of the highest score, not the newest
    always: bool | None = None  # you decide without holding a key; default: if alone, or one of players in turn
    greedy: bool = False  # the others' most likely action instead of a sampled one; key s changes it
    seed: int = 12345  # of the environment and of sampling
    show: int = 0  # which environment: its number, as in a training of more than so many; key n shows the next
    fps: float | None = None  # steps per second; default: as the environment's yaml says (env.view)
    device: str = "cpu"  # auto | cpu | cuda
    steps: int | None = None  # close the window after so many


@dataclass
class RecordConfig:
    """`python -m dist_trainer record`."""

    checkpoint: str = "???"  # a run folder (its newest checkpoint) or a checkpoint
    output: str = "???"  # the video: NAME.gif or NAME.mp4
    library: str | None = None  # of the run's environment: to name it here is to trust it
    best: bool = False  # of a run folder the checkpoint of the highest score, not the newest
    greedy: bool = False  # the most likely action instead of a sampled one
    seed: int = 12345  # of the environment and of sampling
    show: int = 0  # which environment: its number, as in a training of more than so many
    episodes: int = 1  # of the environment, one after the other
    steps: int = 1000  # at most
    fps: float | None = None  # steps per second; default: as the environment's yaml says (env.view)
    overlay: bool = False  # value, actions and return beside the picture (needs pygame)
    scale: int = 1  # by which the picture is enlarged
    device: str = "cpu"  # auto | cpu | cuda


@dataclass
class CompareConfig:
    """`python -m dist_trainer compare`."""

    metric: str | None = None  # of the episodes, or another tag; default: that of the environment's known scores
    score: float | None = None  # which samples and seconds are counted to; default: 95 % of the way to the reference
    x: str = "steps"  # of the picture: steps | seconds
    output: str | None = "compare.png"  # the picture (.png, .svg, .pdf); null: none
    csv: str | None = None  # also write every point to this file
    json: str | None = None  # and the table to this one
    markdown: str | None = None  # and to this one, for people


@dataclass
class BenchmarkConfig:
    """`python -m dist_trainer benchmark`; other settings are those of all trainings."""

    optimizers: list[str] = field(  # files of configs/optimizer, with their defaults
        default_factory=lambda: ["muon", "psgd_kron", "newton_psgd", "soap", "adamw"]
    )
    envs: Any = "all"  # of the suite: all | a list such as [cartpole,breakout]
    suite: str = "cpu"  # a file in configs/benchmark: environments, their steps, what is asked of them
    seeds: int = 5  # of each optimizer in each environment
    budget: float = 1.0  # times the suite's steps
    tuned: dict[str, str] = field(default_factory=dict)  # settings for each, too: {muon:runs/sweep-x/tuned/best.yaml}
    sensitivity: dict[str, Any] = field(default_factory=dict)  # setting: factors, such as {optimizer.lr:[0.25,4]}
    sensitivity_seeds: int = 2  # of each of these
    folder: str = "runs/benchmark"  # of runs, which are not repeated, and of the report
    workers: int | None = None  # runs at a time here; default: one for each core or GPU; 0: none, only the report
    learners: int = 1  # of each run
    score: str = "final"  # that is compared: final (of episodes after training) | curve (mean over the training)
    report: bool = True  # at the end, of the runs that are done


@dataclass
class SweepConfig:
    """`python -m dist_trainer sweep`: the settings sweep.*; the others are those of the trainings."""

    trials: int = 50  # of the study, by all workers together; a study that is over goes on with a larger number
    space: str = "ppo"  # what is tried: a file of configs/sweep, or the path of a yaml like those
    folder: str | None = None  # of the study, seen by all workers; default: runs/sweep-<env>-<optimizer>
    sampler: str = "auto"  # gp | tpe | random | cost (what each cost buys) | auto: gp, or tpe for conditions
    startup: int = 10  # trials that are spread evenly, before the sampler learns from them
    defaults_first: bool = True  # trial 0 is what the configuration says, as far as the space contains it
    seed: int = 1  # of the sampler
    pruner: str = "median"  # of trials that are behind the others at the same step: median | halving | none
    reports: int = 20  # points of a run at which it is compared
    workers: int = 1  # on this machine by this command; others join by the same command, here or elsewhere
    learners: int = 1  # of each training
    seeds: int = 1  # trainings of each trial, from `seed` on, whose scores are averaged
    metric: str | None = None  # of the episodes, or another tag; default: that of the environment's known scores
    window: float = 0.2  # the score is the metric's mean over this last part of a run
    cost: str = "seconds"  # of a trial: seconds (of training) | env_steps
    retries: int = 2  # of a trial whose training crashes or whose worker disappears; it goes on from its checkpoint
    patience_s: float = 60.0  # without a sign of life a worker counts as gone
    stall_minutes: float = 30.0  # without a new point a training counts as crashed
    stop_s: float = 120.0  # for a training to write its checkpoint when it is to stop; then it is killed


@dataclass
class AutotuneConfig:
    """`python -m dist_trainer autotune`."""

    iterations: int = 6  # of each short run that are timed
    output: str | None = None  # the yaml file to write; default: configs/machine/<name of this machine>.yaml


@dataclass
class DoctorConfig:
    """`python -m dist_trainer doctor`."""

    run_dir: str = "runs"  # where checkpoints would be written
    device: str = "auto"  # auto | cpu | cuda
    timeout_s: float = 60.0  # learners that do not come or answer for so long are named

"""One trial, from its values to its score: trainings one after the other, compared with other trials meanwhile."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dist_trainer.errors import ConfigError
from dist_trainer.run_curves import read_curve
from dist_trainer.run_status import read_status
from dist_trainer.sweep_plan import SweepPlan
from dist_trainer.sweep_queue import Queue
from dist_trainer.sweep_run import Follower, Training, mean_from, read_if_there
from dist_trainer.sweep_study import ENV_STEPS, REASON, SECONDS, SETTINGS, SHARE, StudyFolder
from dist_trainer.sweep_suggest import suggest

LOOK_EVERY_S = 0.1
ENQUEUED = "fixed_params"  # where optuna keeps what Study.enqueue_trial was given, as people may do by hand
NO_SCORE = "no episode has ended in the last part of the training"


@dataclass(frozen=True)
class Worker:
    """What a trial needs of the worker that runs it."""

    plan: SweepPlan
    study: StudyFolder
    queue: Queue
    stop: Callable[[], bool]
    threads: int  # of each learner

    def say(self, text: str) -> None:
        print(text, flush=True)


def run_trial(worker: Worker, trial: FrozenTrial) -> str:
    """Until it is finished, or given back. What became of it: complete, pruned, stopped, hopeless, crashed or lost."""
    settings = choose(worker, trial)
    worker.say(f"trial {trial.number}: {settings}")
    scores: list[float] = []
    cost = {SECONDS: 0.0, ENV_STEPS: 0.0}
    for run in range(1, worker.plan.config.seeds + 1):
        verdict, reason = train(worker, trial, settings, run)
        worker.say(f"trial {trial.number}, run {run}: {verdict} {reason}".rstrip())
        score = _add_run(worker, trial, run, cost)
        if verdict == "complete" and math.isnan(score):
            verdict, reason = "hopeless", _why_no_score(worker, trial, run)
        scores.append(score)
        if verdict != "complete":
            break
    attributes: dict[str, Any] = dict(cost)
    if verdict == "complete":
        worker.queue.finish(trial, TrialState.COMPLETE, sum(scores) / len(scores), **attributes)
    elif verdict == "pruned":
        share = cost[ENV_STEPS] / (worker.plan.config.seeds * _total_steps(worker, settings))
        reported = worker.study.storage.get_trial(trial._trial_id).intermediate_values
        last = reported[max(reported)]
        worker.queue.finish(trial, TrialState.PRUNED, last, **attributes, **{SHARE: min(1.0, share)})
    elif verdict == "hopeless":
        worker.queue.finish(trial, TrialState.FAIL, None, **attributes, **{REASON: reason})
    elif verdict == "stopped":
        worker.queue.give_back(trial)
    elif verdict == "crashed":
        worker.queue.crashed(trial, reason)
    return verdict


def choose(worker: Worker, trial: FrozenTrial) -> dict[str, Any]:
    """The trial's settings: those that it has begun with, or new ones. Whatever of them was kept stays."""
    if SETTINGS in trial.user_attrs:
        return trial.user_attrs[SETTINGS]
    plan = worker.plan
    fixed = {**trial.system_attrs.get(ENQUEUED, {}), **trial.params}
    if trial.number == 0 and plan.config.defaults_first:
        fixed = {**plan.space.parameters_of(plan.base), **fixed}
    settings, suggested = suggest(plan.space, plan.config, worker.study.trials(), trial.number, fixed)
    for name, value in suggested.params.items():
        if name not in trial.params:
            distribution = suggested.distributions[name]
            internal = distribution.to_internal_repr(value)
            worker.study.storage.set_trial_param(trial._trial_id, name, internal, distribution)
    worker.queue.mark(trial, **{SETTINGS: settings})
    return settings


def train(worker: Worker, trial: FrozenTrial, settings: Mapping[str, Any], run: int) -> tuple[str, str]:
    """One run of the trial, from where it is: complete, pruned, stopped, hopeless, crashed or lost; and why."""
    plan, config = worker.plan, worker.plan.config
    folder = worker.study.trial_folder(trial.number) / f"run{run}"
    status = read_status(folder)
    if status and status.state == "complete":  # an earlier attempt came further
        return "complete", ""
    seed = int(plan.base["seed"]) + run - 1
    own = [f"seed={seed}", f"torch_threads={worker.threads}", f"env_threads={worker.threads}"]
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(worker.threads))}
    training = Training(folder, [*own[1:], *plan.arguments(settings), own[0]], config.learners, environment)
    follower = Follower(folder, plan.metric)
    judge = Judge(worker, trial) if run == 1 else None
    while not training.has_ended:
        if worker.stop():
            training.stop(config.stop_s)
            ended = training.ended()
            # Killed, because it took too long to stop: it goes on from its last checkpoint, and has not crashed.
            return ("stopped", "") if ended.how == "crashed" else (ended.how, ended.reason)
        if follower.look():
            if not worker.queue.is_mine(trial):
                training.kill()
                return "lost", "another worker has taken it"
            if follower.quiet_s > 60 * config.stall_minutes:
                training.kill()
                return "crashed", f"nothing new for {config.stall_minutes:g} minutes"
            if judge and follower.curve and judge.is_hopeless(follower.curve):
                training.stop(config.stop_s)
                if training.ended().how == "stopped":
                    return "pruned", ""
        time.sleep(LOOK_EVERY_S)
    ended = training.ended()
    return ended.how, ended.reason


class Judge:
    """Compares a trial with the others at the same number of environment steps."""

    def __init__(self, worker: Worker, trial: FrozenTrial):
        self._every = float(worker.plan.base["total_env_steps"]) / worker.plan.config.reports
        self._trial_id, self._storage = trial._trial_id, worker.study.storage
        self._study = optuna.load_study(
            study_name=worker.study.name,
            storage=worker.study.storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=make_pruner(worker.plan),
        )
        self._done = max(trial.intermediate_values, default=0)

    def is_hopeless(self, curve: Any) -> bool:
        """Reports every part of the curve that is complete; whether one of them was too bad."""
        for report in range(self._done + 1, int(curve.steps[-1] // self._every) + 1):
            self._done = report
            upto = curve.steps <= report * self._every
            values = curve.values[upto & (curve.steps > (report - 1) * self._every)]
            if len(values) == 0 or not math.isfinite(values.mean()):
                continue
            self._storage.set_trial_intermediate_value(self._trial_id, report, float(values.mean()))
            if self._study.pruner.prune(self._study, self._storage.get_trial(self._trial_id)):
                return True
        return False


def make_pruner(plan: SweepPlan) -> optuna.pruners.BasePruner:
    config = plan.config
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, config.reports // 5))
    if config.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, config.reports // 10), reduction_factor=3)
    return optuna.pruners.NopPruner()


def _add_run(worker: Worker, trial: FrozenTrial, run: int, cost: dict[str, float]) -> float:
    """Adds what the run has cost. Returns its score; NaN if it has none."""
    curve = read_if_there(worker.study.trial_folder(trial.number) / f"run{run}", worker.plan.metric)
    if curve is None or len(curve.steps) == 0:
        return math.nan
    cost[SECONDS] += float(curve.seconds[-1])
    cost[ENV_STEPS] += float(curve.steps[-1])
    return mean_from(curve, (1 - worker.plan.config.window) * float(curve.steps[-1]))


def _why_no_score(worker: Worker, trial: FrozenTrial, run: int) -> str:
    try:
        read_curve(worker.study.trial_folder(trial.number) / f"run{run}", {}, worker.plan.metric)
    except ConfigError as error:  # no training has this metric, or no episode has ended at all
        return str(error)
    return NO_SCORE


def _total_steps(worker: Worker, settings: Mapping[str, Any]) -> float:
    return float(settings.get("total_env_steps", worker.plan.base["total_env_steps"]))

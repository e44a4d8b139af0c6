"""The training loop: collect, learn, report, check, save. Every learner runs it in step.

Whatever one learner alone knows (a signal, the time for a checkpoint) is added up with the metrics once an iteration;
all learners see the same sum and take the same branch.
"""

from __future__ import annotations

import gc
import math
import warnings
from pathlib import Path
from typing import Any

from dist_trainer.checkpoint import load_checkpoint
from dist_trainer.checkpoints import Checkpoints
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.drift import check_for_drift
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.overlap import rollouts_of
from dist_trainer.ppo import mean_kl
from dist_trainer.profile import Profile
from dist_trainer.report import Report, add_up
from dist_trainer.rollback import Rollbacks, roll_back
from dist_trainer.run_folder import write_run
from dist_trainer.run_status import StatusFile
from dist_trainer.schedule import adapt_rate
from dist_trainer.stop import StopRequest
from dist_trainer.update import learn


class TrainingDiverged(RuntimeError):
    """Too many updates in a row had to be undone."""


def train(config: TrainConfig, world: World, run_dir: Path, resume_from: Path | None) -> None:
    """Runs until `total_env_steps`, or until asked to stop; a checkpoint is written at the end either way.

    Raises LearnersDiffer, TrainingDiverged, CheckpointNotWritten, and whatever an environment, the policy or a
    collective raises.
    """
    learner = make_learner(config, world)
    stop = StopRequest(speaks=world.is_first)  # not before a learner that fails to be made could be told to end
    saved = load_checkpoint(learner, resume_from) if resume_from else None
    if world.is_first:  # not before the learner could be made
        try:
            write_run(config, run_dir, learner.iteration if resume_from else None)
        except OSError as error:
            if not resume_from:
                raise
            warnings.warn(f"{run_dir} goes on without a note of this start: {error}", stacklevel=2)
    rollbacks = Rollbacks.of(config)
    with StatusFile(run_dir, world.is_first) as status:
        while True:
            try:
                return train_from(learner, run_dir, saved, stop, rollbacks, status)
            except TrainingDiverged as diverged:
                if not rollbacks.another(learner.iteration):
                    raise
                told, rate_before = str(diverged), learner.rollback_factor
            del learner
            gc.collect()  # before its successor needs as much memory
            learner = make_learner(config, world)
            saved = roll_back(learner, run_dir, rate_before)
            if world.is_first:
                where = f"back to iteration {learner.iteration}, on at {learner.rollback_factor:g} of the rate"
                print(f"WARNING: {told}: {where} (rollback {rollbacks.total})", flush=True)


def train_from(
    learner: Learner,
    run_dir: Path,
    saved: dict[str, Any] | None,
    stop: StopRequest,
    rollbacks: Rollbacks,
    status: StatusFile,
) -> None:
    """As `train`. `saved`: what load_checkpoint returned, if the learner is not at the run's beginning."""
    config = learner.config
    report = Report(learner, run_dir, saved)
    undone_in_a_row = 0
    profile = Profile(learner, run_dir, report.progress)
    with Checkpoints(learner, run_dir, report, status.at) as checkpoints, report, profile:
        if saved is None:
            warm_up_normalizer(learner)
            checkpoints.save_and_wait(learner)
        status.at(learner.iteration, learner.finished)
        next_rollout = rollouts_of(learner)
        while not learner.finished:
            profile.begin_iteration()
            if learner.past:
                learner.past.begin_iteration(learner.iteration)
            with next_rollout(learner.iteration) as rollout:
                update = learn(learner, rollout)
            learner.iteration += 1
            learner.missed_env_steps += config.horizon_env_steps - update.env_steps

            wishes = [float(stop.requested), float(checkpoints.is_due(learner.iteration))]
            totals = add_up(learner, update, wishes, report.lap())
            stop_wishes, checkpoint_wishes = totals.wishes
            undone_in_a_row = undone_in_a_row + 1 if update.undone else 0
            if not undone_in_a_row:
                rollbacks.note_good_update(learner.iteration)
            kl = math.nan if update.undone else mean_kl(totals.losses)
            learner.rate_factor = adapt_rate(learner.rate_factor, kl, config.adaptive_rate)
            facts = checkpoints.facts() | {"optimizer/rollbacks": rollbacks.total}
            if learner.past:
                facts |= learner.past.rate(learner.iteration - 1, *totals.against_past)
            report.iteration(learner, update, totals, facts)
            if undone_in_a_row >= config.max_bad_updates:
                raise TrainingDiverged(
                    f"{undone_in_a_row} updates in a row were not finite and were undone; {run_dir} holds the last "
                    "checkpoint from before; a lower optimizer.lr may help"
                )
            done = learner.finished or stop_wishes > 0
            saves = done or (checkpoint_wishes and not undone_in_a_row)
            if config.check_every and (saves or learner.iteration % config.check_every == 0):
                check_for_drift(learner, report.progress.say)
            if done:
                checkpoints.save_and_wait(learner)
                status.at(learner.iteration, learner.finished)
                break
            if saves:
                checkpoints.save(learner)
    report.finish(learner)

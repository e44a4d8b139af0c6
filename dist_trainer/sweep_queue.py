"""Which trial is whose. Every trial is taken by one worker, and comes back if that worker disappears.

All that is decided here is decided under one lock, from what the journal says at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from dist_trainer.sweep_journal import decisions_lock
from dist_trainer.sweep_signs import Watch
from dist_trainer.sweep_study import ATTEMPTS, REASON, WORKER, StudyFolder

LOST = "its worker disappeared"


@dataclass
class Queue:
    """As one worker sees it."""

    study: StudyFolder
    worker: str
    watch: Watch
    trials: int  # of the study
    retries: int  # of each

    def is_over(self) -> bool:
        found = self.study.trials()
        return len(found) >= self.trials and all(trial.state.is_finished() for trial in found)

    def take(self) -> FrozenTrial | None:
        """The first trial that waits, or a new one. None: all are finished, or under way."""
        storage = self.study.storage
        with decisions_lock(self.study.folder):
            self._take_back()
            found = self.study.trials()
            waiting = [trial for trial in found if trial.state == TrialState.WAITING]
            if waiting:
                chosen = waiting[0]._trial_id
                storage.set_trial_user_attr(chosen, WORKER, self.worker)
                storage.set_trial_state_values(chosen, TrialState.RUNNING)
            elif len(found) < self.trials:
                new = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: self.worker})
                chosen = storage.create_new_trial(self.study.study_id, new)
            else:
                return None
            return storage.get_trial(chosen)

    def is_mine(self, trial: FrozenTrial) -> bool:
        """Whether this worker still has it: one that was stopped for long may have been taken for gone."""
        now = self.study.storage.get_trial(trial._trial_id)
        return now.state == TrialState.RUNNING and now.user_attrs.get(WORKER) == self.worker

    def mark(self, trial: FrozenTrial, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.study.storage.set_trial_user_attr(trial._trial_id, name, value)

    def give_back(self, trial: FrozenTrial) -> None:
        """To be gone on with, by whoever takes it; it has done nothing wrong."""
        self._unless_lost(trial, TrialState.WAITING, None, {})

    def crashed(self, trial: FrozenTrial, reason: str) -> None:
        """It waits for another attempt, or has failed."""
        with decisions_lock(self.study.folder):
            if self.is_mine(trial):
                self._count_attempt(self.study.storage.get_trial(trial._trial_id), reason)

    def finish(self, trial: FrozenTrial, state: TrialState, score: float | None, **attributes: Any) -> None:
        self._unless_lost(trial, state, None if score is None else [score], attributes)

    def _unless_lost(
        self, trial: FrozenTrial, state: TrialState, values: list[float] | None, attributes: dict[str, Any]
    ) -> None:
        with decisions_lock(self.study.folder):
            if self.is_mine(trial):
                self.mark(trial, **attributes)
                self.study.storage.set_trial_state_values(trial._trial_id, state, values)

    def _take_back(self) -> None:
        """What belongs to workers that are gone."""
        for trial in self.study.trials():
            owner = trial.user_attrs.get(WORKER, "")
            if trial.state != TrialState.RUNNING or owner == self.worker:
                continue
            if not owner or self.watch.is_gone(owner):  # or begun by hand, and by no worker
                self._count_attempt(trial, LOST)

    def _count_attempt(self, trial: FrozenTrial, reason: str) -> None:
        attempts = trial.user_attrs.get(ATTEMPTS, 0) + 1
        self.mark(trial, **{ATTEMPTS: attempts, REASON: reason})
        state = TrialState.WAITING if attempts <= self.retries else TrialState.FAIL
        self.study.storage.set_trial_state_values(trial._trial_id, state)

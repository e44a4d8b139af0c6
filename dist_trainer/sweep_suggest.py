"""The values of a trial, from those of the trials before it.

A sampler sees a copy of the study in which everything that is known counts, also for samplers that know finished trials
alone: one that failed by its own fault has the worst score, one that was pruned its last, one under way the median.
It is seeded by the number of the trial, so that a sweep that was stopped goes on as it would have.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from dist_trainer.sweep_cost import COST, CostAwareSampler
from dist_trainer.sweep_even import EvenSampler
from dist_trainer.sweep_space import Space
from dist_trainer.sweep_study import SHARE, cost_of
from dist_trainer.verb_configs import SweepConfig

MOST_FOR_GP = 300  # trials: its work grows with their cube
GOLDEN = 0x9E3779B9  # multiplier that spreads seeds


def suggest(
    space: Space, config: SweepConfig, trials: Sequence[FrozenTrial], number: int, fixed: Mapping[str, Any]
) -> tuple[dict[str, Any], FrozenTrial]:
    """The settings, and a trial with the sampler's parameters. `fixed`: parameters that are not to be sampled."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would name each copy of the study
    seen = as_seen([trial for trial in trials if trial.number != number], config)
    finished = sum(trial.state.is_finished() for trial in trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        view = optuna.create_study(direction="maximize", sampler=make_sampler(config, space, number, finished))
        view.add_trials(seen)
        if fixed:
            view.enqueue_trial(dict(fixed))
        trial = view.ask()
        return space.suggest(trial), view.get_trials(deepcopy=False)[-1]


def make_sampler(config: SweepConfig, space: Space, number: int, finished: int) -> BaseSampler:
    """For one trial."""
    seed = (config.seed * GOLDEN + number) % 2**32
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    if finished < config.startup:
        return EvenSampler(config.seed, number, len(space.knobs))
    conditions = any(knob.when for knob in space.knobs)
    if config.sampler == "gp" or (config.sampler == "auto" and not conditions and config.trials <= MOST_FOR_GP):
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
    if config.sampler == "cost":
        return CostAwareSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True)


def as_seen(trials: Sequence[FrozenTrial], config: SweepConfig) -> list[FrozenTrial]:
    """Finished trials with scores, as the module's text says; none before there is a score."""
    scores = {trial.number: score for trial in trials if (score := _score(trial)) is not None}
    if not scores:
        return []
    worst, middle = min(scores.values()), median(scores.values())
    found = []
    for trial in trials:
        if not trial.params:
            continue
        value = scores.get(trial.number, worst if trial.state == TrialState.FAIL else middle)
        attributes = {COST: cost} if (cost := _whole_cost(trial, config)) else {}
        distributions: dict[str, BaseDistribution] = trial.distributions
        found.append(create_trial(value=value, params=trial.params, distributions=distributions, user_attrs=attributes))
    return found


def _score(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value):
        return trial.value
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        return trial.intermediate_values[max(trial.intermediate_values)]
    return None


def _whole_cost(trial: FrozenTrial, config: SweepConfig) -> float | None:
    """What the trial would have cost to its end."""
    cost = cost_of(trial, config)
    return cost / trial.user_attrs.get(SHARE, 1.0) if cost and trial.state.is_finished() else None

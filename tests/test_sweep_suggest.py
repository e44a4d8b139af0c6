"""The samplers of `sweep`: what they learn from, that they find what is there, the arithmetic of the cost-aware one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from dist_trainer.sweep_cost import best_within, expected_improvement, pareto_front
from dist_trainer.sweep_even import from_unit, to_unit
from dist_trainer.sweep_gaussian import GaussianProcess
from dist_trainer.sweep_space import read_space
from dist_trainer.sweep_suggest import as_seen, suggest
from dist_trainer.verb_configs import SweepConfig

SPACE = read_space({"optimizer.lr": {"log": [1e-4, 1.0]}, "ppo.entropy_coef": {"log": [1e-4, 1.0]}})
WITH_LENGTH = read_space(
    {
        "optimizer.lr": {"log": [1e-4, 1.0]},
        "ppo.entropy_coef": {"log": [1e-4, 1.0]},
        "total_env_steps": {"log": [1e4, 1e6]},
    }
)


def peak(settings: Mapping[str, Any]) -> float:
    """1 at a rate of 0.01 and a coefficient of 0.001; 0.61 a decade away."""
    distance = math.log10(settings["optimizer.lr"] / 0.01) ** 2 + math.log10(settings["ppo.entropy_coef"] / 0.001) ** 2
    return math.exp(-distance / 2)


def as_trial(trial: FrozenTrial, number: int, state: TrialState, score: float | None, cost: float) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=score,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"env_steps": cost},
    )
    made.number = number
    return made


def sweep(
    config: SweepConfig, objective: Callable[[Mapping[str, Any]], float | None], trials: int
) -> list[tuple[dict[str, Any], FrozenTrial]]:
    """Settings and trial of each; `objective` None: it fails."""
    space = WITH_LENGTH if config.sampler == "cost" else SPACE
    found: list[tuple[dict[str, Any], FrozenTrial]] = []
    for number in range(trials):
        settings, trial = suggest(space, config, [trial for _, trial in found], number, {})
        score = objective(settings)
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        found.append((settings, as_trial(trial, number, state, score, settings.get("total_env_steps", 1e6))))
    return found


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_samplers_find_a_better_setting_than_random_ones_in_four_of_five_seeds(sampler: str) -> None:
    better = 0
    for seed in range(1, 6):
        best = {
            name: max(peak(settings) for settings, _ in sweep(SweepConfig(sampler=name, seed=seed), peak, 25))
            for name in (sampler, "random")
        }
        better += best[sampler] > best["random"]
    assert better >= 4


def test_the_cost_aware_sampler_reaches_the_same_score_with_less() -> None:
    """A score that grows with the length of the training, the same peak at every length."""

    def objective(settings: Mapping[str, Any]) -> float:
        return peak(settings) * (1 - math.exp(-settings.get("total_env_steps", 1e6) / 2e5))

    wanted, spent = 0.9, {}
    for sampler in ("auto", "cost"):
        costs = []
        for seed in range(1, 4):
            found = sweep(SweepConfig(sampler=sampler, seed=seed, cost="env_steps"), objective, 25)
            totals = np.cumsum([settings.get("total_env_steps", 1e6) for settings, _ in found])
            assert sampler == "auto" or totals[-1] < 0.6 * 25e6
            costs.append(next(cost for cost, (s, _) in zip(totals, found, strict=True) if objective(s) > wanted))
        spent[sampler] = np.median(costs)
    assert spent["cost"] < 0.7 * spent["auto"]


def test_what_fails_is_avoided() -> None:
    """Above a rate of 0.1 everything diverges."""
    for sampler in ("auto", "tpe"):

        def objective(settings: Mapping[str, Any]) -> float | None:
            return None if settings["optimizer.lr"] > 0.1 else peak(settings)

        found = sweep(SweepConfig(sampler=sampler), objective, 25)
        failed = [trial.state == TrialState.FAIL for _, trial in found]
        assert sum(failed[:10]) >= 2  # a quarter of the range, before anything is known
        assert sum(failed[10:]) <= 5  # if failures are not learned from: 14


def test_what_a_sampler_sees_of_trials_that_have_no_score() -> None:
    """A failed one has the worst score, a pruned one its last report, one under way the median."""
    config = SweepConfig(cost="env_steps")
    trials = [trial for _, trial in sweep(config, peak, 6)]
    for number, score in enumerate([5.0, 1.0, 3.0]):
        trials[number] = as_trial(trials[number], number, TrialState.COMPLETE, score, 10.0)
    trials[3] = as_trial(trials[3], 3, TrialState.FAIL, None, 4.0)
    trials[4] = as_trial(trials[4], 4, TrialState.PRUNED, None, 4.0)
    trials[4].intermediate_values = {1: 9.0, 7: 2.0}
    trials[4].user_attrs["share"] = 0.25
    trials[5] = as_trial(trials[5], 5, TrialState.RUNNING, None, 1.0)
    seen = as_seen(trials, config)
    assert [trial.value for trial in seen] == [5.0, 1.0, 3.0, 1.0, 2.0, 2.5]
    assert [trial.user_attrs.get("cost") for trial in seen] == [10.0, 10.0, 10.0, 4.0, 16.0, None]
    assert [trial.params for trial in seen] == [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "cost", "random"])
def test_suggestions_depend_on_the_trials_the_seed_and_the_number_alone(sampler: str) -> None:
    config = SweepConfig(sampler=sampler, cost="env_steps", startup=3)
    space = WITH_LENGTH if sampler == "cost" else SPACE
    trials = [trial for _, trial in sweep(config, peak, 8)]
    first, again = (suggest(space, config, trials, 8, {})[0] for _ in range(2))
    assert first == again
    assert suggest(space, SweepConfig(sampler=sampler, cost="env_steps", startup=3, seed=2), trials, 8, {})[0] != first
    assert suggest(space, config, trials, 9, {})[0] != first


def test_workers_at_once_do_not_try_the_same() -> None:
    config = SweepConfig(sampler="gp", startup=3)
    trials = [trial for _, trial in sweep(config, peak, 15)]
    chosen: list[np.ndarray[Any, Any]] = []
    for number in range(15, 19):
        settings, trial = suggest(SPACE, config, trials, number, {})
        trials.append(as_trial(trial, number, TrialState.RUNNING, None, 1.0))
        chosen.append(np.log10([settings["optimizer.lr"], settings["ppo.entropy_coef"]]))
    distances = [np.abs(a - b).max() for i, a in enumerate(chosen) for b in chosen[:i]]
    assert min(distances) > 0.01


def test_the_first_trials_are_spread_evenly() -> None:
    points = np.array(
        [
            [to_unit(trial.params[name], trial.distributions[name]) for name in ("optimizer.lr", "ppo.entropy_coef")]
            for _, trial in sweep(SweepConfig(startup=64), peak, 64)
        ]
    )
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=4, range=[[0, 1], [0, 1]])[0]
    assert counts.min() >= 2 and counts.max() <= 6  # of 64 over 16 cells; at random one in 50 is empty


def test_ranges_as_the_unit_interval_and_back() -> None:
    log, whole, choice = (
        FloatDistribution(1e-4, 1, log=True),
        IntDistribution(3, 6),
        CategoricalDistribution(["a", "b"]),
    )
    assert [from_unit(u, log) for u in (0.0, 0.5, 1.0)] == pytest.approx([1e-4, 1e-2, 1])
    assert [from_unit(u, whole) for u in (0.0, 0.24, 0.26, 0.99, 1.0)] == [3, 3, 4, 6, 6]
    assert [from_unit(u, choice) for u in (0.0, 0.49, 0.51, 1.0)] == ["a", "a", "b", "b"]
    for value, distribution in [(0.02, log), (4, whole), ("b", choice), (-0.5, FloatDistribution(-1, 1))]:
        assert from_unit(to_unit(value, distribution), distribution) == pytest.approx(value)


def test_pareto_front_as_by_definition() -> None:
    random = np.random.default_rng(1)
    costs, scores = random.integers(0, 12, 60).astype(float), random.integers(0, 12, 60).astype(float)
    front = pareto_front(costs, scores)
    beaten = [
        any(
            (costs[j] <= costs[i] and scores[j] >= scores[i]) and (costs[j], scores[j]) != (costs[i], scores[i])
            for j in range(60)
        )
        for i in range(60)
    ]
    assert {(costs[i], scores[i]) for i in front} == {(costs[i], scores[i]) for i in range(60) if not beaten[i]}
    assert sorted(costs[front]) == list(costs[front])
    steps = best_within(np.array([1.0, 2.0]), np.array([5.0, 7.0]), np.array([0.5, 1.0, 1.9, 2.0, 3.0]))
    assert list(steps) == [5, 5, 5, 7, 7]


def test_expected_improvement_as_by_sampling() -> None:
    random = np.random.default_rng(1)
    mean, deviation, best = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.1, 1.5]), np.array([0.5, 0.9, 0.0])
    draws = mean + deviation * random.standard_normal((400_000, 3))
    assert expected_improvement(mean, deviation, best) == pytest.approx(np.maximum(draws - best, 0).mean(0), abs=5e-3)


def test_gaussian_process_knows_what_it_has_seen_and_what_not() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(80, 2, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 1.0])  # one half is unseen

    def truth(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(6 * x[:, 0]) * 3 + 10  # the second dimension says nothing

    y = truth(x) + 0.1 * torch.randn(80, generator=generator, dtype=torch.float64)
    model = GaussianProcess(x, y)
    inside = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 1.0])
    mean, deviation = model.predict(inside)
    assert (mean - truth(inside)).square().mean().sqrt() < 0.1
    far = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    assert model.predict(far)[1].item() > 5 * deviation.mean().item()
    assert ((mean - truth(inside)).abs() < 3 * deviation + 0.1).double().mean() > 0.95

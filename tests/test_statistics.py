"""Statistics of benchmarks: against rliable's numbers (benchmarks/rliable_reference.py), closed forms, brute force."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dist_trainer import statistics
from dist_trainer.statistics import (
    Scores,
    Statistic,
    bootstrap_interval,
    kaplan_meier,
    median_time,
    performance_profile,
    probability_of_improvement,
    resampled,
    restricted_mean_time,
)

RLIABLE: dict[str, Any] = json.loads(Path(__file__).with_name("rliable.json").read_text())
SCORES = {name: np.array(rows) for name, rows in RLIABLE["scores"].items()}
AGGREGATES: dict[str, Statistic] = {
    name: getattr(statistics, name) for name in ("iqm", "mean", "median", "optimality_gap")
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("name", SCORES)
def test_aggregates_are_rliables(aggregate: str, name: str) -> None:
    """Intervals within what 2,000 instead of 50,000 replications allow: 7 % of their width, over 4 of its standard
    errors."""
    point, low, high = RLIABLE[aggregate][name]
    assert AGGREGATES[aggregate](SCORES[name]) == pytest.approx(point, rel=1e-12)
    ours = bootstrap_interval(AGGREGATES[aggregate], SCORES[name], replications=4000)
    assert ours == pytest.approx((low, high), abs=0.07 * (high - low))


@pytest.mark.parametrize("pair", RLIABLE["probability_of_improvement"])
def test_probability_of_improvement_is_rliables(pair: str) -> None:
    one, other = (SCORES[name] for name in pair.split(","))
    point, low, high = RLIABLE["probability_of_improvement"][pair]
    assert probability_of_improvement(one, other) == pytest.approx(point, rel=1e-12)
    ours = bootstrap_interval(probability_of_improvement, one, other, replications=2000)
    assert ours == pytest.approx((low, high), abs=0.12 * (high - low))


@pytest.mark.parametrize("name", SCORES)
def test_profiles_are_rliables(name: str) -> None:
    profile, low, high = (np.array(row) for row in RLIABLE["performance_profile"][name])
    thresholds = RLIABLE["thresholds"]
    assert np.allclose(performance_profile(SCORES[name], thresholds), profile, atol=1e-12)
    ours = bootstrap_interval(lambda scores: performance_profile(scores, thresholds), SCORES[name])
    assert np.allclose(ours[0], low, atol=0.04) and np.allclose(ours[1], high, atol=0.04)


def test_resampling_keeps_to_the_runs_of_each_task() -> None:
    scores = np.arange(15.0).reshape(5, 3)
    drawn = np.stack([resampled(scores, np.random.default_rng(seed)) for seed in range(400)])
    assert np.array_equal(drawn % 3, np.broadcast_to(np.arange(3.0), drawn.shape))
    assert np.allclose([(drawn == value).mean() for value in range(15)], 1 / 15, atol=0.01)
    together = (drawn[:, :, 0] // 3 == drawn[:, :, 1] // 3).mean()
    assert together == pytest.approx(1 / 5, abs=0.03), "each task draws for itself"


def test_bootstrap_of_a_mean_against_the_closed_form() -> None:
    scores = np.random.default_rng(3).normal(0, 1, (200, 1))
    low, high = bootstrap_interval(statistics.mean, scores, replications=4000)
    error = scores.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((scores.mean() - 1.96 * error, scores.mean() + 1.96 * error), abs=0.1 * error)


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Of the mean of 4 tasks, 20 runs each: of 300 experiments 90 % hold it, less what a bootstrap of 20 loses."""
    draw = np.random.default_rng(5)
    truth = np.array([0.1, 0.4, 0.7, 1.0])
    held = 0
    for seed in range(300):
        scores: Scores = truth + draw.normal(0, 0.3, (20, 4))
        low, high = bootstrap_interval(statistics.mean, scores, replications=300, confidence=0.9, seed=seed)
        held += bool(low <= truth.mean() <= high)
    assert 0.83 <= held / 300 <= 0.95


def test_times_without_censoring_are_plain_ones() -> None:
    took = [3.0, 1.0, 2.0, 5.0]
    assert median_time(took, took) == 2.0
    assert restricted_mean_time(took, took, 10) == pytest.approx(np.mean(took))
    assert restricted_mean_time(took, took, 4) == pytest.approx(np.mean(np.minimum(took, 4)))


def test_freireichs_remission_times() -> None:
    """Freireich et al., Blood 21 (1963): 21 patients on 6-mercaptopurine, the textbook case of Kaplan and Meier."""
    times = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    took = [float(t) if i < 9 else math.inf for i, t in enumerate(times)]
    x, share = kaplan_meier(took, [float(t) for t in times])
    assert x.tolist() == [0, 6, 7, 10, 13, 16, 22, 23]
    assert share == pytest.approx([1, 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    assert median_time(took, [float(t) for t in times]) == 23


def test_who_never_got_there_is_not_dropped() -> None:
    assert median_time([1.0, math.inf, math.inf], [9.0, 9.0, 9.0]) == math.inf
    assert median_time([1.0, 2.0, math.inf], [9.0, 9.0, 9.0]) == 2.0
    assert restricted_mean_time([1.0, math.inf], [8.0, 8.0], 8.0) == pytest.approx(4.5)
    for got in itertools.product([1.0, 4.0, math.inf], repeat=3):
        mean = restricted_mean_time(got, [6.0] * 3, 6.0)
        assert mean == pytest.approx(np.mean(np.minimum(got, 6.0))), "as long as all went equally far"

"""Intervals against tables, and against what they promise."""

import numpy as np
import pytest

from dist_trainer.interval import ratio_interval, student_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),  # 97.5 %: the table of any textbook
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (5, 2.57058), (10, 2.22814), (30, 2.04227), (99, 1.98422)],
)
def test_students_quantiles(degrees: int, quantile: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(quantile, rel=1e-5)


def test_with_one_episode_each_it_is_the_textbooks_interval() -> None:
    x = np.array([3.0, 5.0, 4.0, 8.0])
    mean, low, high = ratio_interval(x, np.ones(4))
    assert mean == 5 and mean - low == pytest.approx(high - mean)
    assert (high - low) / 2 == pytest.approx(3.18245 * x.std(ddof=1) / 2, rel=1e-5)


def test_agents_of_one_environment_do_not_count_as_many() -> None:
    """8 agents that get the same say no more than one."""
    x = np.array([3.0, 5.0, 4.0, 8.0])
    assert ratio_interval(8 * x, np.full(4, 8.0)) == pytest.approx(ratio_interval(x, np.ones(4)))


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    """Environments with different numbers of episodes, of which the larger are better on the whole."""
    random = np.random.default_rng(1)
    counts = random.integers(1, 6, (4000, 12)).astype(float)
    sums = counts * random.normal(counts, 2.0)
    truth = np.mean(np.arange(1, 6) ** 2.0) / 3  # E[sum] / E[count]
    hits = [low <= truth <= high for _, low, high in map(ratio_interval, sums, counts)]
    assert 0.91 < np.mean(hits) < 0.97


def test_one_environment_has_no_spread() -> None:
    mean, low, high = ratio_interval(np.array([4.0]), np.array([2.0]))
    assert mean == 2 and np.isnan(low) and np.isnan(high)

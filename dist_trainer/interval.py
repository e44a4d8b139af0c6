"""Confidence intervals of means over environments."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
GRID = 4000  # Simpson's rule, even


@cache
def student_quantile(probability: float, degrees: int) -> float:
    """Of Student's t distribution; `probability` from 0.5 to below 1."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)

    def distribution(x: float) -> float:
        # t = sqrt(n) tan(u) makes a finite range of it: the density is then a power of the cosine.
        end = math.atan(x / math.sqrt(degrees))
        u = np.linspace(0, end, GRID + 1)
        weights = np.ones(GRID + 1)
        weights[1:-1:2], weights[2:-1:2] = 4, 2
        values = np.cos(u) ** (degrees - 1)
        area = float((weights * values).sum()) * end / (3 * GRID)
        return 0.5 + math.exp(log_scale + 0.5 * math.log(degrees)) * area

    low, high = 0.0, 1.0
    while distribution(high) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < probability else (low, middle)
    return (low + high) / 2


def ratio_interval(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean over all episodes, sum(sums) / sum(counts), and its 95 % interval: mean, low, high.

    (E,) each, one entry for each environment, whose own episodes (of many agents) are not independent: only
    environments are. The variance is that of a ratio (Cochran, Sampling Techniques, 1977, section 6.5), the quantile
    Student's. With fewer than two environments the interval is nan.
    """
    mean = float(sums.sum() / counts.sum()) if counts.sum() > 0 else math.nan
    if len(sums) < 2:
        return mean, math.nan, math.nan
    residuals = sums - mean * counts
    error = math.sqrt(len(sums) / (len(sums) - 1) * float(np.square(residuals).sum())) / float(counts.sum())
    reach = student_quantile((1 + CONFIDENCE) / 2, len(sums) - 1) * error
    return mean, mean - reach, mean + reach

"""A parameter's range as the unit interval, and trials that are spread evenly over all ranges.

Additive recurrence with the generalized golden ratio (M. Roberts, "The unreasonable effectiveness of quasirandom
sequences", 2018), shifted by a random vector: trial n has (shift_j + n / phi_d^j) mod 1 in dimension j. It needs not
know the number of trials.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


def to_unit(value: Any, distribution: BaseDistribution) -> float:
    """From 0 to 1; of choices the middle of its share."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        low, high = low - 0.5, high + 0.5
    if distribution.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def from_unit(unit: float, distribution: BaseDistribution) -> Any:
    """The value at this point of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(unit * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        whole = round(low - 0.5 + unit * (high - low + 1))
        return min(int(high), max(int(low), whole))
    if distribution.log:
        return min(high, max(low, math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))))
    return min(high, max(low, low + unit * (high - low)))


class EvenSampler(BaseSampler):
    """Of one trial; `number` is its place in the sequence, `dimensions` how many parameters there can be."""

    def __init__(self, seed: int, number: int, dimensions: int):
        self._seed, self._number, self._dimensions = seed, number, dimensions
        self._dimension = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._dimension += 1
        shift = zlib.crc32(f"{self._seed} {param_name}".encode()) / 2**32
        return from_unit((shift + self._number * _step(self._dimension, self._dimensions)) % 1.0, param_distribution)


def _step(dimension: int, dimensions: int) -> float:
    phi = 2.0
    for _ in range(64):  # converges to the root of x^(d+1) = x + 1
        phi = (1 + phi) ** (1 / (dimensions + 1))
    return phi**-dimension % 1.0

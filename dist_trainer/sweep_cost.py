"""Which score each cost can buy: a sampler that looks for the Pareto front of score and cost.

The idea of CARBS (Fetterman et al., arXiv 2306.08055) and of PufferLib's Protein: candidates are Gaussian perturbations
of the trials that nothing both cheaper and better has beaten; Gaussian processes predict the score and the logarithm of
the cost of each; chosen is whoever promises most over the front at its own cost. How much is to be spent is drawn for
each trial, between the cheapest trial and somewhat more than the dearest of the front, so that dear trials start from
what cheap ones have shown, and the front grows to where more is of no use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial

from dist_trainer.sweep_even import from_unit, to_unit
from dist_trainer.sweep_gaussian import GaussianProcess

COST = "cost"  # the attribute that holds it
CANDIDATES = 2048
RADII = (0.05, 0.15, 0.4)  # standard deviations of the perturbations, in shares of a range
MOVED = 0.5  # of the dimensions of a candidate: the others stay as they were
ELSEWHERE = 0.1  # of the candidates: anywhere
RISE = 3.0  # what may be spent beyond the dearest trial of the front
LEAN = 0.5  # exponent of the uniform number that is drawn: below 1 dear trials are more frequent than cheap ones
WIDTH = 0.05  # of the preference for a cost, in the logarithm of the range of costs
LEAST_WIDTH = 0.05  # the same, in the logarithm


class CostAwareSampler(BaseSampler):
    """Of one trial. Trials without a cost are not learned from."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._elsewhere = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        known = [trial for trial in study.get_trials(deepcopy=False) if COST in trial.user_attrs]
        space = intersection_search_space(known)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        known = [trial for trial in study.get_trials(deepcopy=False) if COST in trial.user_attrs]
        if len(known) < 2 or not search_space:
            return {}
        x = np.array([[to_unit(t.params[name], d) for name, d in search_space.items()] for t in known])  # (N, D)
        scores = np.array([t.value for t in known])
        costs = np.log([t.user_attrs[COST] for t in known])
        best = self._propose(x, scores, costs)
        return {name: from_unit(float(u), d) for u, (name, d) in zip(best, search_space.items(), strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._elsewhere.sample_independent(study, trial, param_name, param_distribution)

    def _propose(
        self, x: NDArray[np.float64], scores: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The point (D,) of the unit cube to try. `costs`: logarithms (N,)."""
        points = torch.from_numpy(x)
        score_model = GaussianProcess(points, torch.from_numpy(scores))
        cost_model = GaussianProcess(points, torch.from_numpy(costs))
        smooth = score_model.predict(points)[0].numpy()  # one lucky trial is no front
        front = pareto_front(costs, smooth)
        candidates = self._candidates(x[front])
        mean, deviation = (part.numpy() for part in score_model.predict(torch.from_numpy(candidates)))
        cost = cost_model.predict(torch.from_numpy(candidates))[0].numpy()
        gain = expected_improvement(mean, deviation, best_within(costs[front], smooth[front], cost))
        low, high = costs.min(), costs[front].max() + math.log(RISE)
        wanted = low + (high - low) * self._random.random() ** LEAN
        width = max(WIDTH * (high - low), LEAST_WIDTH)
        return candidates[int(np.argmax(np.log(gain + 1e-300) - ((cost - wanted) / width) ** 2 / 2))]

    def _candidates(self, around: NDArray[np.float64]) -> NDArray[np.float64]:
        """(CANDIDATES, D)."""
        count, dimensions = CANDIDATES, around.shape[1]
        centres = around[self._random.integers(len(around), size=count)]
        radii = self._random.choice(RADII, size=(count, 1))
        moves = radii * self._random.standard_normal((count, dimensions))
        near = np.clip(centres + moves * (self._random.random((count, dimensions)) < MOVED), 0, 1)
        anywhere = self._random.random((count, dimensions))
        return np.where(self._random.random((count, 1)) < ELSEWHERE, anywhere, near)


def pareto_front(
    costs: Sequence[float] | NDArray[np.float64], scores: Sequence[float] | NDArray[np.float64]
) -> list[int]:
    """Indices of those that nothing both cheaper and better has beaten, from the cheapest on."""
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i])):
        if not front or scores[index] > scores[front[-1]]:
            front.append(index)
    return front


def best_within(
    front_costs: NDArray[np.float64], front_scores: NDArray[np.float64], costs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The front's score at each of the costs (M,); below its cheapest point that of the cheapest."""
    places = np.searchsorted(front_costs, costs, side="right") - 1
    return front_scores[np.maximum(places, 0)]


def expected_improvement(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], best: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of a normal variable over `best` (Jones et al. 1998)."""
    z = (mean - best) / deviation
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    return deviation * (z * below + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))

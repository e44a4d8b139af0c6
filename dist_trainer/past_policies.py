"""The past selves of a policy, as its opponents: which are kept, which of them plays, and how strong each is.

They are taken at the beginning of iterations, evenly from the run's beginning to now: when there are too many, every
second one is dropped, and from then on they are taken half as often. All learners take, draw and rate alike.

Ratings are Elo's (The Rating of Chessplayers, 1978): who is 400 points ahead is expected to win 10 games of 11. A past
policy keeps the rating that it had when it was taken; that of today's follows its results against them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dist_trainer.config import SelfPlayConfig
from dist_trainer.keyed import keyed_seed
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy

ELO_SCALE = 400.0
MEMORY = 256.0  # games after which half of the rating is of later ones


def elo_ahead(points: float, games: float) -> float:
    """By how much who won `points` of `games` is ahead; half a game is added to each side, so that it is finite."""
    return ELO_SCALE * math.log10((points + 0.5) / (games - points + 0.5))


@dataclass
class PastPolicy:
    iteration: int
    rating: float
    policy: dict[str, Tensor]
    normalizer: dict[str, Tensor]


class PastPolicies:
    """`policy` and `normalizer` are those that play for the past: copies of `live`'s, changed in place."""

    def __init__(self, config: SelfPlayConfig, seed: int, live: tuple[Policy, ObservationNormalizer]):
        self._config, self._seed, self._live = config, seed, live
        self.policy, self.normalizer = copy.deepcopy(live)
        self.rating = 0.0
        self.every = config.every
        self.kept: list[PastPolicy] = []
        self._playing: int | None = None  # iteration at which it was taken

    def begin_iteration(self, iteration: int) -> None:
        """Takes today's policy if it is time, and lets the one play whose turn it is."""
        if iteration % self.every == 0 and all(past.iteration != iteration for past in self.kept):
            self._take(iteration)
        plays = self.opponent(iteration)
        if plays.iteration != self._playing:
            self.policy.load_state_dict(plays.policy)
            self.normalizer.load_state_dict(plays.normalizer)
            self._playing = plays.iteration

    def opponent(self, iteration: int) -> PastPolicy:
        """Drawn evenly from those that were there when its turn began."""
        turn = iteration // self._config.hold
        there = [past for past in self.kept if past.iteration <= turn * self._config.hold] or self.kept[:1]
        return there[keyed_seed(self._seed, "opponent", turn) % len(there)]

    def rate(self, iteration: int, games: float, points: float) -> dict[str, float]:
        """After an iteration in which today's policy won `points` of `games` (a draw counts half). Returns what to
        report, by tag."""
        if games > 0:
            performance = self.opponent(iteration).rating + elo_ahead(points, games)
            self.rating += games / (games + MEMORY) * (performance - self.rating)
        facts = {"self_play/elo": self.rating, "self_play/opponents": float(len(self.kept)), "self_play/games": games}
        return facts | ({"self_play/points": points / games} if games > 0 else {})

    def state(self) -> dict[str, Any]:
        return {"rating": self.rating, "every": self.every, "kept": [asdict(past) for past in self.kept]}

    def load_state(self, state: dict[str, Any]) -> None:
        device = next(self.policy.parameters()).device
        self.rating, self.every, self._playing = state["rating"], state["every"], None
        self.kept = [
            PastPolicy(**past | {name: {key: x.to(device) for key, x in past[name].items()} for name in MODULES})
            for past in state["kept"]
        ]

    @torch.no_grad()
    def _take(self, iteration: int) -> None:
        self.kept.append(PastPolicy(iteration, self.rating, *(_copied(module) for module in self._live)))
        if len(self.kept) > self._config.keep:
            self.every *= 2
            self.kept = [past for past in self.kept if past.iteration % self.every == 0]


MODULES = ("policy", "normalizer")


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}

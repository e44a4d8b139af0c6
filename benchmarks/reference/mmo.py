"""The environment's script, which lives first and then brings up what is behind, for all agents of a world."""

from __future__ import annotations

from benchmarks.reference import play_through_pool, uniform_player

METRIC, EPISODES = "min_comb_prof", 32  # worlds, of 128 agents each


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("mmo", uniform_player, episodes, seed, metric=METRIC, params={"oracle": 1})

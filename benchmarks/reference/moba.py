"""The strongest of the environment's scripts, in games against itself.

So the script has half of the points, and who has as many plays as well as it.
"""

from __future__ import annotations

from benchmarks.reference import play_through_pool, uniform_player

METRIC, EPISODES = "points", 400
PARAMS = {"opponent": 3}


def play(episodes: int, seed: int) -> list[float]:
    params = PARAMS | {"oracle": 3}  # it acts, whatever is chosen
    return play_through_pool("moba", uniform_player, episodes, seed, metric=METRIC, params=params)

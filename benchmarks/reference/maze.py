"""Walks the shortest way, which breadth-first search over squares and keys held finds in the whole map.

The map is read from the pool's snapshot; agents do not see it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC = "success"
SIDE, MOST_DOORS = 35, 3  # of the map with its margin, as in cpp_envs/envs/parts/maze_level.h
WALL, EXIT, LOCKED = 1, 2, 4
MOVES = (-SIDE, 1, SIDE, -1)  # north, east, south, west


def read_map(row: NDArray[np.uint8]) -> tuple[list[int], dict[int, int], dict[int, int], int]:
    """Of an environment's snapshot: squares, the number of the key at each of some, of the door likewise, the start."""
    squares = row[: SIDE * SIDE].tolist()
    at = SIDE * SIDE + -SIDE * SIDE % 4  # the next members are int32
    keys, doors = row[at : at + 8 * MOST_DOORS].copy().view(np.int32).reshape(2, MOST_DOORS).tolist()
    _, number, start, _ = row[at + 8 * MOST_DOORS :][:16].copy().view(np.int32).tolist()
    return squares, {keys[i]: i for i in range(number)}, {doors[i]: i for i in range(number)}, start


def shortest_way(squares: list[int], keys: dict[int, int], doors: dict[int, int], start: int) -> list[int]:
    """The actions from the start to the exit."""
    came_from: dict[tuple[int, int], tuple[tuple[int, int], int] | None] = {(start, 0): None}
    layer = [(start, 0)]
    while layer:
        following = []
        for place, held in layer:
            for action, move in enumerate(MOVES):
                to = place + move
                if squares[to] == WALL or (squares[to] == LOCKED and not held >> doors[to] & 1):
                    continue
                state = to, held | (1 << keys[to] if to in keys else 0)
                if state in came_from:
                    continue
                came_from[state] = (place, held), action
                if squares[to] == EXIT:
                    actions: list[int] = []
                    while (step := came_from[state]) is not None:
                        state, taken = step
                        actions.append(taken)
                    return actions[::-1]
                following.append(state)
        layer = following
    raise ValueError("the exit cannot be reached")


def player(pool: EnvPool) -> Choose:
    ways = [shortest_way(*read_map(row)) for row in pool.snapshot()]
    taken = 0

    def choose(pool: EnvPool) -> NDArray[Any]:
        nonlocal taken
        taken += 1  # of the first episode; what is done after that does not count
        return np.array([[way[min(taken, len(way)) - 1]] for way in ways])

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("maze", player, episodes, seed, metric=METRIC)

"""Alpha-beta of depth 6, in games against the environment's alpha-beta of depth 4.

Written in Python from the definition; the same heuristic, but for the search's order and its way of breaking ties:
the first of equal columns, from the middle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC, EPISODES = "points", 50
PARAMS = {"opponent": 4}
DEPTH, WAIT = 6, 7
COLUMNS, ROWS, WIN = 7, 6, 1000
ORDER = (3, 2, 4, 1, 5, 0, 6)
LINES = [  # the 69 lines of four, as bits: 7 of each column, from the lowest
    sum(1 << ((x + i * dx) * 7 + y + i * dy) for i in range(4))
    for x in range(COLUMNS)
    for y in range(ROWS)
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1))
    if 0 <= x + 3 * dx < COLUMNS and 0 <= y + 3 * dy < ROWS
]
FULL = sum(0b111111 << (7 * column) for column in range(COLUMNS))
WEIGHTED = [(0b111111 << (7 * column), weight) for column, weight in zip(ORDER[:5], (3, 2, 2, 1, 1), strict=True)]


def has_four(own: int) -> bool:
    for along in (1, 6, 7, 8):
        pairs = own & own >> along
        if pairs & pairs >> 2 * along:
            return True
    return False


def side_value(own: int, other: int) -> int:
    """10 for each empty cell that would complete a line, and up to 3 for stones near the middle."""
    cells = 0
    for line in LINES:
        if not line & other and (line & own).bit_count() == 3:
            cells |= line & ~own
    return 10 * cells.bit_count() + sum(weight * (own & column).bit_count() for column, weight in WEIGHTED)


def search(own: int, other: int, depth: int, ply: int, low: int, high: int) -> int:
    taken = own | other
    if taken == FULL:
        return 0
    if depth == 0:
        return side_value(own, other) - side_value(other, own)
    for column in ORDER:
        stone = (taken + (1 << 7 * column)) & 0b111111 << 7 * column
        if not stone:
            continue
        after = own | stone
        value = WIN - ply if has_four(after) else -search(other, after, depth - 1, ply + 1, -high, -low)
        low = max(low, value)
        if low >= high:
            break
    return low


def best_column(own: int, other: int, depth: int) -> int:
    best, chosen = -WIN - 1, WAIT
    for column in ORDER:
        stone = (own | other) + (1 << 7 * column) & 0b111111 << 7 * column
        if not stone:
            continue
        after = own | stone
        value = WIN if has_four(after) else -search(other, after, depth - 1, 1, -WIN - 1, -best)
        if value > best:
            best, chosen = value, column
    return chosen


def bits(cells: NDArray[np.uint8]) -> int:
    """(42,) from the lowest row."""
    return sum(1 << (int(i) % COLUMNS * 7 + int(i) // COLUMNS) for i in np.flatnonzero(cells))


def player(_: EnvPool) -> Choose:
    def choose(pool: EnvPool) -> NDArray[Any]:
        chosen = np.full((pool.rows, 1), WAIT)
        for row in np.flatnonzero(~pool.legal[:, WAIT]):
            own, other = pool.observations[row, :84].reshape(2, 42)
            chosen[row] = best_column(bits(own), bits(other), DEPTH)
        return chosen

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("connect4", player, episodes, seed, metric=METRIC, params=PARAMS)

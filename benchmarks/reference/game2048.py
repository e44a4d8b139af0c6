"""Expectimax over three moves and two tiles, with the heuristic of Robert Xiao's 2048-ai.

github.com/nneonneo/2048-ai, which looks further ahead the fewer cells are empty.

Boards are 64-bit numbers, four bits a cell, as there and in the environment; here a whole array of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC, EPISODES = "max_tile", 40
Boards = NDArray[np.uint64]
LOST, EMPTY, MERGES, MONOTONICITY, SUM = 200_000.0, 270.0, 700.0, 47.0, 11.0  # as published


def slide(row: list[int]) -> list[int]:
    """Exponents, 0 for empty, moved towards the first."""
    tiles = [tile for tile in row if tile]
    out: list[int] = []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile and tile < 15:
            tiles.pop(0)
            tile += 1
        out.append(tile)
    return out + [0] * (4 - len(out))


def row_value(row: list[int]) -> float:
    """Many empty cells and pairs, few tiles, and large ones at one end."""
    pairs, run, before = 0, 0, 0
    for tile in filter(None, row):
        if tile == before:
            run += 1
        elif run:
            pairs, run = pairs + 1 + run, 0
        before = tile
    pairs += 1 + run if run else 0
    rises = [b**4 - a**4 for a, b in pairwise(row)]
    disorder = min(sum(max(0, rise) for rise in rises), sum(max(0, -rise) for rise in rises))
    return LOST + EMPTY * row.count(0) + MERGES * pairs - MONOTONICITY * disorder - SUM * sum(x**3.5 for x in row)


@cache
def tables() -> tuple[Boards, Boards, NDArray[np.float32]]:
    """(65536,) each: a row moved to its first cell, to its last, and its value."""
    rows = [[row >> shift & 15 for shift in (0, 4, 8, 12)] for row in range(1 << 16)]

    def packed(row: list[int]) -> int:
        return row[0] | row[1] << 4 | row[2] << 8 | row[3] << 12

    left = np.array([packed(slide(row)) for row in rows], np.uint64)
    right = np.array([packed(slide(row[::-1])[::-1]) for row in rows], np.uint64)
    return left, right, np.array([row_value(row) for row in rows], np.float32)


def look_up(boards: Boards, table: NDArray[Any]) -> NDArray[Any]:
    """(4, ...) the table's entries for the four rows."""
    return np.stack([table[(boards >> np.uint64(16 * row)) & np.uint64(0xFFFF)] for row in range(4)])


def join(rows: Boards) -> Boards:
    """(4, ...) -> (...)"""
    result: Boards = np.bitwise_or.reduce([rows[row] << np.uint64(16 * row) for row in range(4)])
    return result


def transposed(boards: Boards) -> Boards:
    result = np.zeros_like(boards)
    for cell in range(16):
        to = cell % 4 * 4 + cell // 4
        result |= ((boards >> np.uint64(4 * cell)) & np.uint64(15)) << np.uint64(4 * to)
    return result


def moved(boards: Boards) -> Boards:
    """(4, ...) the boards after left, right, up, down; as they are where nothing moves."""
    left, right, _ = tables()
    columns = transposed(boards)
    vertical = [transposed(join(look_up(columns, table))) for table in (left, right)]
    return np.stack([join(look_up(boards, left)), join(look_up(boards, right)), *vertical])


def values_of_best_moves(boards: Boards, moves: int) -> NDArray[np.float64]:
    """(K,) what so many moves ahead is the heuristic after the last; 0 where the game is over."""
    after = moved(boards)  # (4, K)
    legal = after != boards
    values = np.zeros(after.shape)
    values[legal] = heuristic(after[legal]) if moves == 1 else expected_values(after[legal], moves - 1)
    result: NDArray[np.float64] = values.max(0)
    return result


def heuristic(boards: Boards) -> NDArray[np.float64]:
    """(K,) the sum over rows and columns."""
    value = tables()[2]
    result: NDArray[np.float64] = look_up(boards, value).sum(0) + look_up(transposed(boards), value).sum(0)
    return result


def expected_values(boards: Boards, moves: int) -> NDArray[np.float64]:
    """(K,) after a move -> (K,) before `moves` others, expected over the tile that appears before the first."""
    boards, copies = np.unique(boards, return_inverse=True)
    taken = boards | boards >> np.uint64(2)
    taken |= taken >> np.uint64(1)
    cells = np.uint64(1) << (np.uint64(4) * np.arange(16, dtype=np.uint64))
    which, cell = np.nonzero((taken[:, None] & cells) == 0)
    values = 0.9 * values_of_best_moves(boards[which] | cells[cell], moves)
    values += 0.1 * values_of_best_moves(boards[which] | cells[cell] << np.uint64(1), moves)
    count = np.bincount(which, minlength=len(boards))
    means = np.bincount(which, values, len(boards)) / np.maximum(1, count)
    result: NDArray[np.float64] = means[copies]
    return result


def looking_ahead(moves: int) -> Callable[[EnvPool], Choose]:
    """A player who sees so many moves beyond the next."""

    def choose(pool: EnvPool) -> NDArray[Any]:
        exponents = pool.observations.reshape(-1, 16, 16).argmax(2).astype(np.uint64)  # (N, 16)
        boards = np.bitwise_or.reduce(exponents << (np.uint64(4) * np.arange(16, dtype=np.uint64)), axis=1)
        after = moved(boards)  # (4, N)
        values = np.full(after.shape, -np.inf)
        legal = after != boards
        values[legal] = expected_values(after[legal], moves)
        return values.argmax(0)[:, None]

    return lambda _: choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("game2048", looking_ahead(2), episodes, seed, metric=METRIC)

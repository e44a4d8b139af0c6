"""Pierre Dellacherie's controller: of all placements the best by six hand-made features of the board after it.

Features and weights (-1, 1, -1, -1, -4, -1) after Thiery and Scherrer, "Building controllers for Tetris" (ICGA Journal
32, 2009), tables 1 and 2, who measure 660,000 rows per game without a limit. Of equal placements it takes the first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import Choose, play_through_pool
from dist_trainer.envs import EnvPool

METRIC = "lines"
WIDTH, HEIGHT, TURNS = 10, 20, 4
Array = NDArray[np.int64]
Piece = tuple[str, ...]  # as drawn, the lowest row last
# I, O, T, S, Z, J, L.
PIECES: tuple[Piece, ...] = (
    ("####",),
    ("##", "##"),
    (".#.", "###"),
    (".##", "##."),
    ("##.", ".##"),
    ("#..", "###"),
    ("..#", "###"),
)


def turned(piece: Piece) -> Piece:
    """Clockwise."""
    return tuple("".join(column[::-1]) for column in zip(*piece, strict=True))


def cells(piece: Piece) -> list[tuple[int, int]]:
    """Columns and rows, from the left and from the lowest."""
    return [(x, y) for y, row in enumerate(reversed(piece)) for x, filled in enumerate(row) if filled == "#"]


@cache
def placements(kind: int) -> tuple[Array, Array, Array]:
    """Of a piece, wherever its width allows it: actions (P,), columns and rows of its cells above the lowest (P, 4)."""
    actions, columns, rows = [], [], []
    piece = PIECES[kind]
    for turn in range(TURNS):
        for left in range(WIDTH - len(piece[0]) + 1):
            actions.append(turn * WIDTH + left)
            columns.append([left + x for x, _ in cells(piece)])
            rows.append([y for _, y in cells(piece)])
        piece = turned(piece)
    return np.array(actions), np.array(columns), np.array(rows)


def values(boards: NDArray[np.bool_], kind: int) -> NDArray[np.float64]:
    """(K, HEIGHT, WIDTH), the lowest row first -> (K, P) of all placements of this piece."""
    _, columns, rows = placements(kind)
    count, options = len(boards), len(columns)
    heights = (boards * np.arange(1, HEIGHT + 1)[:, None]).max(1)  # (K, WIDTH)
    landing = (heights[:, columns] - rows).max(2)  # (K, P)
    after = np.zeros((count, options, HEIGHT + 4, WIDTH), np.bool_)
    after[:, :, :HEIGHT] = boards[:, None]
    game, option = np.ogrid[:count, :options]
    at = landing[:, :, None] + rows  # (K, P, 4)
    after[game[..., None], option[..., None], at, columns] = True
    full = np.logical_and.reduce(after, 3)  # (K, P, HEIGHT + 4)
    eroded = full.sum(2) * np.take_along_axis(full, at, 2).sum(2)
    order = np.argsort(full, axis=2, kind="stable")  # rows that stay come first
    after = np.take_along_axis(after & ~full[..., None], order[..., None], 2)[:, :, :HEIGHT]

    walled = np.pad(after, ((0, 0), (0, 0), (0, 0), (1, 1)), constant_values=True)
    row_transitions = (walled[..., 1:] != walled[..., :-1]).sum((2, 3))
    floored = np.pad(after, ((0, 0), (0, 0), (1, 0), (0, 0)), constant_values=True)
    column_transitions = (floored[:, :, 1:] != floored[:, :, :-1]).sum((2, 3))
    covered = np.logical_or.accumulate(after[:, :, ::-1], axis=2)[:, :, ::-1]
    holes = (covered & ~after).sum((2, 3))
    well = ~after & walled[..., :-2] & walled[..., 2:]
    depth, wells = np.zeros((count, options, WIDTH), np.int64), 0
    for row in range(HEIGHT):  # of a well's cell: the empty ones from it downwards
        depth = np.where(after[:, :, row], 0, depth + 1)
        wells = wells + (depth * well[:, :, row]).sum(2)
    landing_height = landing + rows.max(1) / 2
    result: NDArray[np.float64] = -landing_height + eroded - row_transitions - column_transitions - 4 * holes - wells
    return result


def player(_: EnvPool) -> Choose:
    def choose(pool: EnvPool) -> NDArray[Any]:
        boards = pool.observations[:, : HEIGHT * WIDTH].reshape(-1, HEIGHT, WIDTH) > 0
        kinds = pool.observations[:, -len(PIECES) :].argmax(1)
        chosen = np.zeros(len(boards), np.int64)
        for kind in range(len(PIECES)):
            games = np.flatnonzero(kinds == kind)
            actions = placements(kind)[0]
            allowed = pool.legal[games][:, actions]
            best = np.where(allowed, values(boards[games], kind), -np.inf).argmax(1)
            chosen[games] = actions[best]
        return chosen[:, None]

    return choose


def play(episodes: int, seed: int) -> list[float]:
    return play_through_pool("tetris", player, episodes, seed, metric=METRIC)

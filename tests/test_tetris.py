"""Tetris against its rules, written down a second time for sets of cells that fall one row at a time."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool
from benchmarks.reference import tetris as dellacherie
from tests.pools import Buffers, choose_actions, make_pool

WIDTH, HEIGHT, ENVS = 10, 20, 32
Cells = frozenset[tuple[int, int]]  # column, row from the lowest
# I, O, T, S, Z, J, L as they lie, the upper row first.
DRAWN = ("####", "## ##", ".#. ###", ".## ##.", "##. .##", "#.. ###", "..# ###")


def moved(cells: Cells, dx: int, dy: int) -> Cells:
    return frozenset((x + dx, y + dy) for x, y in cells)


def to_corner(cells: Cells) -> Cells:
    return moved(cells, -min(x for x, _ in cells), -min(y for _, y in cells))


def shapes(kind: int) -> list[Cells]:
    """After 0 to 3 turns clockwise."""
    rows = DRAWN[kind].split()[::-1]
    shape: Cells = frozenset((x, y) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark == "#")
    turns = []
    for _ in range(4):
        turns.append(to_corner(shape))
        shape = frozenset((y, -x) for x, y in shape)
    return turns


def fallen(board: Cells, shape: Cells) -> Cells:
    """From far above, until something is below."""
    shape = moved(shape, 0, HEIGHT + 4)
    while not (lower := moved(shape, 0, -1)) & board and min(y for _, y in lower) >= 0:
        shape = lower
    return shape


def legal_placements(board: Cells, kind: int) -> dict[int, Cells]:
    """The cells of the piece by action. Of turns that look alike the first counts."""
    result: dict[int, Cells] = {}
    turns = shapes(kind)
    for turn, shape in enumerate(turns):
        if shape in turns[:turn]:
            continue
        for left in range(WIDTH - max(x for x, _ in shape)):
            piece = fallen(board, moved(shape, left, 0))
            if max(y for _, y in piece) < HEIGHT:
                result[turn * WIDTH + left] = piece
    return result


def without_full_rows(board: Cells) -> tuple[Cells, int]:
    full = [y for y in range(HEIGHT) if all((x, y) in board for x in range(WIDTH))]
    return frozenset((x, y - sum(row < y for row in full)) for x, y in board if y not in full), len(full)


def holes(board: Cells) -> int:
    """Empty cells with a filled one above."""
    return sum(
        (x, y) not in board and any((x, above) in board for above in range(y, HEIGHT))
        for x in range(WIDTH)
        for y in range(HEIGHT)
    )


def read(observation: NDArray[np.float32]) -> tuple[Cells, int]:
    """The board and the piece; the heights must be those of the board."""
    board = frozenset((i % WIDTH, i // WIDTH) for i in np.flatnonzero(observation[:200]).tolist())
    heights = np.array([max((y + 1 for x, y in board if x == column), default=0) for column in range(WIDTH)])
    assert observation[200:210] == pytest.approx(heights / HEIGHT)
    assert observation[210:219] == pytest.approx(np.diff(heights) / HEIGHT, abs=1e-6)
    [kind] = np.flatnonzero(observation[219:])
    return board, int(kind)


def fills_well(buffers: Buffers) -> NDArray[np.float64]:
    """Dellacherie's choices for every other game, random ones for the rest: rows vanish, and games end."""
    observations, legal = buffers["observations"], buffers["legal"]
    actions = choose_actions("tetris", buffers)
    for i in range(0, ENVS, 2):
        kind = int(observations[i, 219:].argmax())
        options = dellacherie.placements(kind)[0]
        values = dellacherie.values(observations[i, :200].reshape(1, HEIGHT, WIDTH) > 0, kind)[0]
        actions[i, 0] = options[np.where(legal[i, options], values, -np.inf).argmax()]
    return actions


def test_every_step_is_that_of_cells_that_fall() -> None:
    pieces, hole_cost = 60, 0.5
    pool = make_pool("tetris", num_envs=ENVS, pieces=pieces, hole_cost=hole_cost)
    buffers = pool.buffers()
    lines, placed, dealt = [0] * ENVS, [0] * ENVS, Counter[int]()
    returns = [0.0] * ENVS
    finished, ends = np.zeros(5), Counter[str]()
    for _ in range(130):
        before = [read(observation) for observation in buffers["observations"]]
        options = [legal_placements(*state) for state in before]
        for legal, expected in zip(buffers["legal"], options, strict=True):
            assert np.flatnonzero(legal).tolist() == sorted(expected)
        actions = fills_well(buffers)
        buffers["actions"][:] = actions
        pool.send()
        pool.recv()
        for i, (board, _) in enumerate(before):
            expected_board, cleared = without_full_rows(board | options[i][int(actions[i, 0])])
            reward = cleared - hole_cost * (holes(expected_board) - holes(board))
            assert buffers["rewards"][i] == reward
            returns[i] += reward
            lines[i] += cleared
            placed[i] += 1
            ended, cut = bool(buffers["terminated"][i]), bool(buffers["truncated"][i])
            assert not cut or placed[i] == pieces
            shown = buffers["final_observations" if cut else "observations"][i]
            found, kind = read(shown)
            dealt[kind] += 1
            ends["lines"] += cleared
            ends["four at once"] += cleared == 4
            if ended:  # no piece shown: one that could not be placed was dealt, and a new game begins
                assert not found
                assert any(not legal_placements(expected_board, other) for other in range(7))
            else:
                assert found == expected_board
                assert cut == (placed[i] == pieces)
            if ended or cut:
                assert not read(buffers["observations"][i])[0]
                finished += [1, returns[i], placed[i], lines[i], placed[i]]
                ends["ended" if ended else "cut"] += 1
                lines[i] = placed[i] = 0
                returns[i] = 0
    assert pool.take_statistics() == pytest.approx(finished.tolist())
    assert ends["lines"] > 300 and ends["ended"] > 20 and ends["cut"] > 20
    expected_count = dealt.total() / 7
    assert sum((dealt[kind] - expected_count) ** 2 / expected_count for kind in range(7)) < 28  # p = 1e-4


def test_dellacheries_controller_never_loses_here_and_fills_all_rows() -> None:
    """As published: without a limit it makes 660,000 rows. 500 pieces are 2000 cells, of which few stay."""
    lines = play_through_pool("tetris", dellacherie.player, 6, 3, metric="lines")
    assert min(lines) >= 192 and max(lines) <= 200

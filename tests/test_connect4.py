"""Connect Four against its rules for lists of columns, and its alpha-beta against a search that prunes nothing."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool, uniform_player
from benchmarks.reference.connect4 import DEPTH
from benchmarks.reference.connect4 import player as alpha_beta
from dist_trainer import _cpp_envs
from tests.pools import choose_actions, make_pool

COLUMNS, ROWS, WAIT, WIN = 7, 6, 7, 1000
Grid = tuple[tuple[int, ...], ...]  # the stones of each column, from below; who has placed them, 1 or -1
EMPTY: Grid = ((),) * COLUMNS
LINES = [
    [(x + i * dx, y + i * dy) for i in range(4)]
    for x in range(COLUMNS)
    for y in range(ROWS)
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1))
    if x + 3 * dx < COLUMNS and 0 <= y + 3 * dy < ROWS
]


def at(grid: Grid, x: int, y: int) -> int:
    return grid[x][y] if y < len(grid[x]) else 0


@cache
def has_four(grid: Grid, side: int) -> bool:
    return any(all(at(grid, x, y) == side for x, y in line) for line in LINES)


def put(grid: Grid, column: int, side: int) -> Grid:
    return (*grid[:column], (*grid[column], side), *grid[column + 1 :])


def open_columns(grid: Grid) -> list[int]:
    return [x for x in range(COLUMNS) if len(grid[x]) < ROWS]


def heuristic(grid: Grid, side: int) -> int:
    """As connect4.h says: 10 for cells that would complete a line, and what the columns weigh."""
    total = 0
    for sign in (1, -1):
        cells = set()
        for line in LINES:
            stones = [at(grid, x, y) for x, y in line]
            if stones.count(sign * side) == 3 and 0 in stones:
                cells.add(line[stones.index(0)])
        weights = sum((0, 1, 2, 3, 2, 1, 0)[x] * grid[x].count(sign * side) for x in range(COLUMNS))
        total += sign * (10 * len(cells) + weights)
    return total


def value_of(grid: Grid, side: int, depth: int, ply: int) -> int:
    """Minimax of everything, for who moves."""
    columns = open_columns(grid)
    if not columns:
        return 0
    if depth == 0:
        return heuristic(grid, side)
    return max(value_after(grid, column, side, depth, ply) for column in columns)


def value_after(grid: Grid, column: int, side: int, depth: int, ply: int) -> int:
    after = put(grid, column, side)
    return WIN - ply if has_four(after, side) else -value_of(after, -side, depth - 1, ply + 1)


def best_columns(grid: Grid, side: int, depth: int) -> set[int]:
    values = {column: value_after(grid, column, side, depth, 0) for column in open_columns(grid)}
    return {column for column, value in values.items() if value == max(values.values())}


def read(observation: NDArray[np.uint8]) -> Grid:
    """1: own stones. Nothing may hang in the air."""
    own, other = observation[:84].reshape(2, ROWS, COLUMNS).astype(int) // 255
    stones = own - other
    assert not (own & other).any() and not ((stones[:-1] == 0) & (stones[1:] != 0)).any()
    return tuple(tuple(side for side in stones[:, x].tolist() if side) for x in range(COLUMNS))


def test_self_play_keeps_the_rules_and_the_loser_is_told() -> None:
    envs = 50
    pool = make_pool("connect4", num_envs=envs)
    buffers = pool.buffers()
    grids, begins = [EMPTY] * envs, Counter[bool]()
    results, finished = Counter[str](), np.zeros(5)
    for _ in range(200):
        actions = choose_actions("connect4", buffers)
        buffers["actions"][:] = actions
        on_turn = buffers["observations"][:, 84].reshape(envs, 2) == 255
        legal = buffers["legal"].reshape(envs, 2, 8).copy()
        for i in range(envs):
            own, other = (read(observation) for observation in buffers["observations"][2 * i : 2 * i + 2])
            assert own == grids[i] == tuple(tuple(-side for side in column) for column in other)
            assert on_turn[i].sum() == 1
            if own == EMPTY:
                begins[bool(on_turn[i, 0])] += 1
        pool.send()
        pool.recv()
        for i in range(envs):
            mover = int(on_turn[i, 1])
            side = 1 - 2 * mover  # as agent 0 sees it
            assert np.flatnonzero(legal[i, mover]).tolist() == open_columns(grids[i])
            assert np.flatnonzero(legal[i, 1 - mover]).tolist() == [WAIT]
            grids[i] = put(grids[i], int(actions[2 * i + mover, 0]), side)
            won, full = has_four(grids[i], side), not open_columns(grids[i])
            both = slice(2 * i, 2 * i + 2)
            expected = [0, 0] if not won else [1, -1] if mover == 0 else [-1, 1]
            assert buffers["rewards"][both].tolist() == expected
            assert buffers["terminated"][both].tolist() == [won or full] * 2
            if won or full:
                results["won" if won else "drawn"] += 1
                length = sum(map(len, grids[i]))
                finished += [2, 0, 2 * length, 1, 2 * (not won)]
                grids[i] = EMPTY
    assert results["won"] > 300 and pool.take_statistics() == pytest.approx(finished.tolist())
    games = begins.total()
    assert begins[True] / games == pytest.approx(0.5, abs=2.5 / games**0.5)


def moves_of_the_search(depth: int, envs: int, steps: int) -> list[tuple[Grid, int]]:
    """Positions before its moves (its own stones 1), in games against chance, and the columns it chose."""
    pool = make_pool("connect4", num_envs=envs, seed=depth, opponent=depth)
    buffers = pool.buffers()
    found = []
    for _ in range(steps):
        before = [read(observation) for observation in buffers["observations"]]
        waits = buffers["legal"][:, WAIT].copy()
        buffers["actions"][:] = choose_actions("connect4", buffers)
        pool.send()
        pool.recv()
        for i in np.flatnonzero(waits):
            mirrored = tuple(tuple(-side for side in column) for column in before[i])
            if buffers["terminated"][i]:
                won = buffers["rewards"][i] == -1
                wins = [x for x in open_columns(mirrored) if has_four(put(mirrored, x, 1), 1)]
                assert bool(wins) == won
                continue
            after = read(buffers["observations"][i])
            [column] = [x for x in range(COLUMNS) if after[x] != before[i][x]]
            assert after == put(before[i], column, -1)
            found.append((mirrored, column))
    return found


@pytest.mark.parametrize(("depth", "envs"), [(1, 60), (2, 30), (3, 8)])
def test_the_search_finds_what_a_search_without_pruning_finds(depth: int, envs: int) -> None:
    found = moves_of_the_search(depth, envs, 14)
    assert len(found) > 3 * envs
    for grid, column in found:
        assert column in best_columns(grid, 1, depth)


def choices_of_the_search(grids: list[Grid], depth: int) -> list[int]:
    """Of each position, in which it is to move (its stones 1), the column it chooses."""
    pool = make_pool("connect4", num_envs=len(grids), opponent=depth)
    rows = pool.snapshot()
    for row, grid in zip(rows, grids, strict=True):  # the members of connect4.h: stones, played, first, winner, last
        stones = [
            sum(1 << (7 * x + y) for x, column in enumerate(grid) for y, side in enumerate(column) if side == player)
            for player in (-1, 1)
        ]
        played = sum(map(len, grid))
        row[:16] = np.array(stones, np.uint64).view(rows.dtype)
        row[16:32] = np.array([played, (1 + played) % 2, -1, -1], np.int32).view(rows.dtype)
    pool.restore(rows)
    buffers = pool.buffers()
    for grid, observation in zip(grids, buffers["observations"], strict=True):
        assert read(observation) == tuple(tuple(-side for side in column) for column in grid)
    buffers["actions"][:] = WAIT
    pool.send()
    pool.recv()
    last = pool.snapshot()[:, 28:32].copy().view(np.int32)[:, 0]
    over = buffers["terminated"]
    assert (last[over] == -1).all()
    # A game that is over shows the next one: its move is known by its reward alone.
    return [
        WAIT + int(reward) if ended else int(x) for x, ended, reward in zip(last, over, buffers["rewards"], strict=True)
    ]


def endgames(count: int, empty: int) -> list[Grid]:
    """Random positions without a line, so many cells short of a full board."""
    rng = np.random.default_rng(1)
    found: list[Grid] = []
    while len(found) < count:
        grid, side = EMPTY, 1 if empty % 2 == 0 else -1
        while sum(map(len, grid)) < 42 - empty:
            quiet = [x for x in open_columns(grid) if not has_four(put(grid, x, side), side)]
            if not quiet:
                break
            grid, side = put(grid, int(rng.choice(quiet)), side), -side
        else:
            found.append(grid)
    return found


@pytest.mark.parametrize("empty", [4, 8])
def test_endgames_are_solved_as_by_brute_force(empty: int) -> None:
    """To the last cell: so all values are exact, those of the heuristic do not count."""
    positions = endgames(60, empty)
    outcomes = Counter[str]()
    for grid, column in zip(positions, choices_of_the_search(positions, 10), strict=True):
        best = best_columns(grid, 1, 10)
        wins = {x for x in open_columns(grid) if has_four(put(grid, x, 1), 1)}
        outcomes["wins at once" if wins else "goes on"] += 1
        if wins:
            assert column == WAIT - 1 and best == wins
        else:
            assert column in best
            outcomes["choice matters"] += len(best) < len(open_columns(grid))
    assert min(outcomes["wins at once"], outcomes["goes on"], outcomes["choice matters"]) > 4


def test_equal_columns_are_equally_likely() -> None:
    grid: Grid = ((), (), (), (-1, 1, -1, 1, -1, 1), (), (), ())
    assert best_columns(grid, 1, 1) == {2, 4}
    chosen = Counter(choices_of_the_search([grid] * 1000, 1))
    assert set(chosen) == {2, 4} and abs(chosen[2] - 500) < 80
    assert set(choices_of_the_search([EMPTY] * 10, 1)) == {3}


def test_who_begins_wins_more_often_at_random() -> None:
    """55.6 % of random games, 0.3 % are drawn: widely published."""
    pool = make_pool("connect4", num_envs=500)
    buffers = pool.buffers()
    results: Counter[str] = Counter()
    begun = buffers["observations"][::2, 84] == 255
    for _ in range(400):
        buffers["actions"][:] = choose_actions("connect4", buffers)
        pool.send()
        pool.recv()
        over = buffers["terminated"][::2]
        rewards = buffers["rewards"][::2]
        results["won"] += int(((rewards == 1) == begun)[over & (rewards != 0)].sum())
        results["all"] += int(over.sum())
        results["drawn"] += int((over & (rewards == 0)).sum())
        begun = np.where(over, buffers["observations"][::2, 84] == 255, begun)
    assert results["all"] > 5000
    assert results["won"] / results["all"] == pytest.approx(0.556, abs=4 * 0.5 / results["all"] ** 0.5)
    assert results["drawn"] / results["all"] < 0.006


def test_deeper_searches_are_stronger() -> None:
    """One in Python, of depth 6, against the environment's; nobody wins by chance against depth 2."""
    assert (
        np.mean(play_through_pool("connect4", uniform_player, 200, 1, metric="points", params={"opponent": 2})) < 0.05
    )
    points = play_through_pool("connect4", alpha_beta, 8, 1, metric="points", params={"opponent": 1})
    assert DEPTH == 6 and np.mean(points) > 0.8
    assert _cpp_envs.spec("connect4", {"opponent": 1}).num_agents == 1

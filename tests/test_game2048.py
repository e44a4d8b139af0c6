"""2048 against its rules, written down a second time for lists of numbers."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool, uniform_player
from benchmarks.reference.game2048 import looking_ahead
from tests.pools import choose_actions, make_pool

Grid = list[list[int]]  # tiles as they are written; 0: empty
ENVS = 64


def grids(observations: NDArray[np.uint8]) -> list[Grid]:
    cells = observations.reshape(-1, 4, 4, 16)
    assert set(np.unique(cells)) == {0, 255} and (cells.sum(3, dtype=int) == 255).all()
    return [[[2**e if e else 0 for e in row] for row in cells_of_one] for cells_of_one in cells.argmax(3).tolist()]


def slid(row: list[int]) -> tuple[list[int], list[int]]:
    """To the left; and what merging has made."""
    rest, out, made = [tile for tile in row if tile], [], []
    while rest:
        tile = rest.pop(0)
        if rest and rest[0] == tile:
            tile += rest.pop(0)
            made.append(tile)
        out.append(tile)
    return out + [0] * (4 - len(out)), made


def turned(grid: Grid, quarters: int) -> Grid:
    """Counterclockwise."""
    for _ in range(quarters):
        grid = [list(row) for row in zip(*grid, strict=True)][::-1]
    return grid


def moved(grid: Grid, action: int) -> tuple[Grid, list[int]]:
    quarters = (0, 2, 1, 3)[action]  # left, right, up, down
    rows = [slid(row) for row in turned(grid, quarters)]
    return turned([row for row, _ in rows], 4 - quarters), [tile for _, made in rows for tile in made]


@pytest.fixture(scope="module")
def seen() -> Counter[tuple[str, int]]:
    """Plays random games and checks each step; counts the tiles that appear, by number and by cell."""
    pool = make_pool("game2048", num_envs=ENVS)
    buffers = pool.buffers()
    counts: Counter[tuple[str, int]] = Counter()
    before, points, lengths = grids(buffers["observations"]), [0] * ENVS, [0] * ENVS
    finished = np.zeros(6)
    for _ in range(500):
        for grid, legal in zip(before, buffers["legal"].tolist(), strict=True):
            assert legal == [moved(grid, action)[0] != grid for action in range(4)]
        actions = choose_actions("game2048", buffers)
        buffers["actions"][:] = actions
        pool.send()
        pool.recv()
        after = grids(buffers["observations"])
        for i in range(ENVS):
            grid, made = moved(before[i], int(actions[i, 0]))
            points[i] += sum(made)
            lengths[i] += 1
            assert buffers["rewards"][i] == pytest.approx(0.1 * np.log2(made).sum(), abs=1e-6)
            old, new = np.ravel(grid), np.ravel(after[i])
            if buffers["terminated"][i]:  # a last tile in the only gap left nothing to move; a new game begins
                assert (old == 0).sum() == 1 and (new > 0).sum() == 2
                finished += [1, 0, lengths[i], old.max(), 0, points[i]]
                points[i] = lengths[i] = 0
                counts["game", 0] += 1
                continue
            [cell] = np.flatnonzero(old != new)
            assert old[cell] == 0
            counts["tile", int(new[cell])] += 1
            counts["rank", int((old[:cell] == 0).sum() * 8 // (old == 0).sum())] += (old == 0).sum() == 8
        before = after
    statistics = np.array(pool.take_statistics())
    statistics[1] = 0  # returns: each reward was checked
    assert statistics == pytest.approx(finished)
    return counts


def test_a_two_appears_nine_times_of_ten_and_anywhere(seen: Counter[tuple[str, int]]) -> None:
    assert seen["game", 0] > 2 * ENVS
    twos, fours = seen["tile", 2], seen["tile", 4]
    assert twos + fours == 500 * ENVS - seen["game", 0]
    assert fours / (twos + fours) == pytest.approx(0.1, abs=5 * 0.3 / (twos + fours) ** 0.5)
    ranks = [seen["rank", rank] for rank in range(8)]  # of the 8 empty cells, the one it is in
    expected = sum(ranks) / 8
    assert expected > 100
    assert sum((count - expected) ** 2 / expected for count in ranks) < 30  # chi-square of 7 degrees: p = 1e-4


def test_who_looks_ahead_reaches_the_goal_and_chance_does_not() -> None:
    assert max(play_through_pool("game2048", uniform_player, 100, 1, metric="max_tile")) <= 512
    assert set(play_through_pool("game2048", uniform_player, 100, 1, metric="reached_2048")) == {0}
    assert set(play_through_pool("game2048", looking_ahead(1), 6, 1, metric="reached_2048")) == {0, 1}

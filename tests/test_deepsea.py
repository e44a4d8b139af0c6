"""DeepSea against bsuite's rules, read off what random players see, and backward induction over its cells."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import deepsea
from tests.pools import make_pool, step

# (row, column, action) -> (column in the next row, reward)
Table = dict[tuple[int, int, int], tuple[int, float]]


def explore(size: int, mapping: int, *, seed: int = 1, envs: int = 2000) -> Table:
    """What 10 random episodes in each environment see; fails where two of them differ."""
    pool = make_pool("deepsea", num_envs=envs, seed=seed, threads=2, size=size, mapping=mapping)
    buffers = pool.buffers()
    table: Table = {}
    column = np.zeros(envs, int)
    for index in range(10 * size):
        row = index % size
        shown = buffers["observations"].reshape(envs, size, size)
        assert (shown.sum((1, 2)) == 1).all() and (shown[np.arange(envs), row, column] == 1).all()
        step("deepsea", pool)
        assert (buffers["terminated"] == (row == size - 1)).all() and not buffers["truncated"].any()
        after = buffers["observations"].reshape(envs, size, size)
        # Of a new episode after the last row: what became of the column there is not shown.
        next_column = after[:, row + 1].argmax(1) if row < size - 1 else np.zeros(envs, int)
        seen = zip(column, buffers["actions"][:, 0], next_column, buffers["rewards"], strict=True)
        for before, action, new, reward in {tuple(float(x) for x in each) for each in seen}:
            result = (int(new), reward)
            assert table.setdefault((row, int(before), int(action)), result) == result
        column = next_column
    return table


def right_actions(table: Table) -> dict[tuple[int, int], int]:
    """The action that costs something or brings the treasure, of each cell."""
    return {(row, column): action for (row, column, action), (_, reward) in table.items() if reward != 0}


@pytest.mark.parametrize("mapping", [0, 1, 7])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_rules_are_bsuites(size: int, mapping: int) -> None:
    table = explore(size, mapping)
    right = right_actions(table)
    cells = [(row, column) for row in range(size) for column in range(row + 1)]
    assert {(row, column) for row, column, _ in table} == set(right) == set(cells)
    for row, column in cells:
        for action in (0, 1):
            new, reward = table[row, column, action]
            steers_right = action == right[row, column]
            treasure = steers_right and column == size - 1
            assert reward == pytest.approx(treasure - 0.01 / size * steers_right, abs=1e-7)
            if row < size - 1:
                assert new == (column + 1 if steers_right else max(column - 1, 0))


def test_the_mapping_is_the_same_everywhere_and_drawn_for_each_cell() -> None:
    one, other = right_actions(explore(8, 5)), right_actions(explore(8, 5, seed=2))
    assert one == other
    assert set(right_actions(explore(8, 0)).values()) == {1}
    kinds = [tuple(right_actions(explore(5, mapping, envs=300)).values()) for mapping in range(1, 31)]
    assert len(set(kinds)) == 30
    assert np.mean(kinds) == pytest.approx(0.5, abs=0.095)  # of 450 bits: four standard deviations


def value(table: Table, size: int, choose: str) -> float:
    """Of the first cell, by backward induction: of the best player, or of the uniform one."""
    values: NDArray[np.float64] = np.zeros(size + 1)
    for row in reversed(range(size)):
        of_actions = np.array(
            [[table[row, column, a][1] + values[table[row, column, a][0]] for a in (0, 1)] for column in range(row + 1)]
        )
        values = np.append(of_actions.max(1) if choose == "best" else of_actions.mean(1), 0)
    return float(values[0])


def test_the_optimal_return_is_that_of_the_treasure_and_all_its_moves() -> None:
    table = explore(6, 3)
    assert value(table, 6, "best") == pytest.approx(0.99, abs=1e-6)
    pool = make_pool("deepsea", num_envs=4000, size=6, mapping=3)
    for _ in range(60):
        step("deepsea", pool)
    episodes, total = pool.take_statistics()[:2]
    error = (2**-6) ** 0.5 / episodes**0.5  # of the mean: nearly all of it comes from the treasure
    assert total / episodes == pytest.approx(value(table, 6, "uniform"), abs=4 * error)
    assert value(table, 6, "uniform") == pytest.approx(2**-6 - 0.005, abs=1e-6)


def test_the_reference_finds_the_treasure() -> None:
    assert deepsea.play(3, 7) == pytest.approx([0.99] * 3, abs=1e-6)
    for size in (10, 30, 64):
        assert deepsea.play(2, 7, size=size) == pytest.approx([0.99] * 2, abs=1e-6)

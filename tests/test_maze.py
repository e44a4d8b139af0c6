"""Maze: levels can be solved, and are functions of their number; the shortest way is the breadth-first one."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool, uniform_player
from benchmarks.reference.maze import EXIT, LOCKED, MOVES, SIDE, WALL, player, read_map, shortest_way
from dist_trainer import _cpp_envs
from tests.pools import make_pool

FREE, KEY, OPENABLE, MARGIN, REACH = 0, 3, 5, 5, 5


def reachable(squares: list[int], start: int, closed: set[int]) -> set[int]:
    """Squares that can be walked to without entering a wall or what is closed."""
    seen, queue = {start}, deque([start])
    while queue:
        place = queue.popleft()
        for move in MOVES:
            to = place + move
            if squares[to] != WALL and to not in closed and to not in seen:
                seen.add(to)
                queue.append(to)
    return seen


def step(pool: _cpp_envs.Pool, actions: list[int] | int) -> None:
    pool.buffers()["actions"][:, 0] = actions
    pool.send()
    pool.recv()


@pytest.mark.parametrize("cells", [4, 7, 12])
@pytest.mark.parametrize("doors", [0, 2, 3])
def test_levels_are_mazes_with_doors_that_must_be_opened(cells: int, doors: int) -> None:
    envs, whole = 100, range(MARGIN, MARGIN + 2 * cells + 1)
    perfect, counts = 0, []
    for loops in (0.0, 0.1):
        pool = make_pool("maze", num_envs=envs, cells=cells, doors=doors, loops=loops)
        for row in pool.snapshot():
            squares, keys, door_at, start = read_map(row)
            inside = [r * SIDE + c for r in whole for c in whole]
            border = [s for s in inside if s // SIDE in (whole[0], whole[-1]) or s % SIDE in (whole[0], whole[-1])]
            assert all(squares[s] == WALL for s in {*range(SIDE * SIDE)} - {*inside} | {*border})
            cell_at = [r * SIDE + c for r in whole[1::2] for c in whole[1::2]]
            assert all(squares[s] != WALL for s in cell_at) and start in cell_at
            assert reachable(squares, start, set()) == {s for s in inside if squares[s] != WALL}
            passages = sum(squares[s] != WALL for s in inside) - cells**2
            perfect += passages == cells**2 - 1  # a spanning tree
            assert passages >= cells**2 - 1 and (loops > 0 or passages == cells**2 - 1)
            counts.append(len(keys))
            assert len(door_at) == len(keys) == squares.count(KEY) == squares.count(LOCKED) <= doors
            for door, i in door_at.items():  # its key lies before it, and the exit behind it
                before = reachable(squares, start, {other for other in door_at if door_at[other] >= i})
                assert {place for place in keys if keys[place] == i} <= before
                assert squares.index(EXIT) not in reachable(squares, start, {door})
            assert squares.count(EXIT) == 1
    assert perfect < 2 * envs and np.mean(counts) == pytest.approx(doors, abs=0.05)


def test_a_level_is_a_function_of_its_number() -> None:
    map_bytes = SIDE * SIDE + -SIDE * SIDE % 4 + 4 * (2 * 3 + 4)

    def levels(first: int, number: int, envs: int, seed: int) -> dict[int, bytes]:
        """From the snapshots of several episodes: the map by the level's number, which lies behind map and agent."""
        pool = make_pool("maze", num_envs=envs, seed=seed, start_level=first, num_levels=number, max_steps=1)
        found: dict[int, bytes] = {}
        for _ in range(4):
            for row in pool.snapshot():
                key = int(row[map_bytes + 4 : map_bytes + 8].copy().view(np.int32)[0])
                assert found.setdefault(key, row[:map_bytes].tobytes()) == row[:map_bytes].tobytes()
            step(pool, 0)
        return found

    few, same, others = levels(5, 3, 20, 1), levels(0, 8, 40, 2), levels(1_000_000_000, 50, 40, 1)
    assert set(few) == {5, 6, 7} and set(same) == set(range(8))
    assert all(few[number] == same[number] for number in few)
    assert len(set(same.values())) == 8
    assert min(others) >= 1_000_000_000 and not set(others.values()) & set(same.values())


def view(squares: NDArray[np.uint8], agent: int, found: NDArray[np.bool_]) -> list[int]:
    row, column = divmod(agent, SIDE)
    seen = squares.reshape(SIDE, SIDE)[row - REACH : row + REACH + 1, column - REACH : column + REACH + 1]
    planes = [seen == kind for kind in (WALL, EXIT, KEY, LOCKED, OPENABLE)]
    return [*(255 * np.array(planes).reshape(-1)), *(255 * found)]


def test_the_shortest_way_is_the_breadth_first_one_and_is_walked_as_the_rules_say() -> None:
    envs = 60
    pool = make_pool("maze", num_envs=envs)
    buffers = pool.buffers()
    maps = [read_map(row) for row in pool.snapshot()]
    ways = [shortest_way(*one) for one in maps]
    squares = [np.array(one[0], np.uint8) for one in maps]
    agents, held, finished = [one[3] for one in maps], np.zeros((envs, 3), bool), np.zeros(envs, bool)
    returns = np.zeros(envs)
    for index in range(max(map(len, ways))):
        step(pool, [way[min(index, len(way) - 1)] for way in ways])
        for env in np.flatnonzero(~finished):
            (_, keys, doors, _), action = maps[env], ways[env][index]
            agents[env] += MOVES[action]
            entered, square = agents[env], squares[env][agents[env]]
            assert square not in (WALL, LOCKED)
            if square == KEY:
                held[env, keys[entered]] = True
                squares[env][[door for door, n in doors.items() if n == keys[entered]]] = OPENABLE
            returns[env] += buffers["rewards"][env]
            assert buffers["rewards"][env] == (square != FREE)
            assert buffers["terminated"][env] == (square == EXIT) == (index + 1 == len(ways[env]))
            finished[env] = square == EXIT
            if finished[env]:
                continue
            squares[env][entered] = FREE
            assert buffers["observations"][env].tolist() == view(squares[env], entered, held[env])
    assert finished.all() and (returns == [1 + 2 * len(one[1]) for one in maps]).all()


def test_the_metrics_of_the_best_player_and_of_chance() -> None:
    for metric in ("success", "spl", "path_ratio", "keys", "doors"):
        assert play_through_pool("maze", player, 100, 1, metric=metric) == [1.0] * 100
    success = np.mean(play_through_pool("maze", uniform_player, 200, 1, metric="success"))
    ratio = np.mean(play_through_pool("maze", uniform_player, 200, 1, metric="path_ratio"))
    assert success < 0.2 and ratio > 3


def test_walls_and_locked_doors_stop_the_agent() -> None:
    """A walk at random through squares that the twin knows."""
    pool, rng = make_pool("maze", num_envs=1, cells=4, doors=2, max_steps=1000), np.random.default_rng(0)
    squares, keys, doors, place = read_map(pool.snapshot()[0])
    stopped = {WALL: 0, LOCKED: 0}
    for _ in range(4000):
        action = int(rng.integers(4))
        ahead = squares[place + MOVES[action]]
        step(pool, action)
        buffers = pool.buffers()
        if ahead in stopped:
            stopped[ahead] += 1
            assert buffers["rewards"][0] == 0
        else:
            place += MOVES[action]
            assert buffers["rewards"][0] == (ahead != FREE)
        if buffers["terminated"][0] or buffers["truncated"][0]:
            squares, keys, doors, place = read_map(pool.snapshot()[0])
            continue
        if ahead == KEY:
            squares[next(door for door, n in doors.items() if n == keys[place])] = OPENABLE
        if ahead in (KEY, OPENABLE):
            squares[place] = FREE
        held = np.array([any(squares[door] != LOCKED for door, m in doors.items() if m == n) for n in range(3)])
        assert buffers["observations"][0].tolist() == view(np.array(squares, np.uint8), place, held)
    assert stopped[WALL] > 100 and stopped[LOCKED] > 0

"""Snake: every step is what a slow twin in Python computes from the rules; snakes die, rest and come back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool, uniform_player
from benchmarks.reference.snake import player
from dist_trainer import _cpp_envs
from tests.pools import make_pool

AHEAD, LEFT, RIGHT = 0, 1, 2
SIDE, MARGIN, REACH = 128, 5, 5  # of the board in memory, its wall, the view
FOOD, BODY, HEAD = 1, 3, 7
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (row, column) by heading: north, east, south, west
Place = tuple[int, int]


@dataclass
class Snake:
    body: list[Place]  # from the tail to the head
    heading: int
    length: int
    rest: int


@dataclass
class Board:
    size: int
    food: set[Place]
    snakes: list[Snake]


def read(row: NDArray[np.uint8], size: int, agents: int) -> Board:
    """From an environment's snapshot: four boards, of which the first is enough, then the snakes."""
    squares = row[: SIDE * SIDE].reshape(SIDE, SIDE)[MARGIN : MARGIN + size, MARGIN : MARGIN + size]
    food = {(int(r), int(c)) for r, c in np.argwhere(squares == FOOD)}
    snakes = []
    for i in range(agents):
        at = 4 * SIDE * SIDE + 24 * i
        head, tail, length, heading, rest = row[at : at + 20].copy().view(np.int32).tolist()
        body = []
        if rest == 0:
            place = tail // SIDE - MARGIN, tail % SIDE - MARGIN
            body.append(place)
            while squares[place] != HEAD:
                down, right = MOVES[squares[place] - BODY]
                place = place[0] + down, place[1] + right
                body.append(place)
            assert place == (head // SIDE - MARGIN, head % SIDE - MARGIN) and len(body) == length
        snakes.append(Snake(body, heading, length, rest))
    return Board(size, food, snakes)


def play(board: Board, actions: list[int]) -> tuple[set[int], set[int]]:
    """Moves the snakes of `board`; returns who died and who ate. Food that is eaten goes; nobody comes back."""
    size, alive = board.size, [i for i, snake in enumerate(board.snakes) if snake.rest == 0]
    entered, hungry = {}, set()
    for i in alive:
        snake = board.snakes[i]
        snake.heading = (snake.heading + {AHEAD: 0, LEFT: 3, RIGHT: 1}[actions[i]]) % 4
        (row, column), (down, right) = snake.body[-1], MOVES[snake.heading]
        entered[i] = row + down, column + right
        if entered[i] not in board.food:
            hungry.add(i)
            del snake.body[0]
    blocked = {place for i in alive for place in board.snakes[i].body}
    heads = Counter(entered.values())
    inside = {(row, column) for row in range(size) for column in range(size)}
    dead = {i for i in alive if entered[i] in blocked or heads[entered[i]] > 1 or entered[i] not in inside}
    ate = set(alive) - hungry - dead
    board.food -= {place for place in entered.values() if place not in blocked}
    for i in alive:
        board.snakes[i].body.append(entered[i])
        board.snakes[i].length += i in ate
    for i in dead:
        board.snakes[i].body = []
    return dead, ate


def view(board: Board, snake: Snake) -> NDArray[np.uint8]:
    """(3, 11, 11) of food, what kills and heads, ahead up."""
    if snake.rest > 0:
        return np.zeros((3, 11, 11), np.uint8)
    kills = {place for other in board.snakes for place in other.body}
    heads = {other.body[-1] for other in board.snakes if other.body}
    shown = np.zeros((3, 11, 11), np.uint8)
    (row, column), (down, right) = snake.body[-1], MOVES[snake.heading]
    for ahead in range(-REACH, REACH + 1):
        for aside in range(-REACH, REACH + 1):  # to the right
            place = row + ahead * down + aside * right, column + ahead * right - aside * down
            outside = not (0 <= place[0] < board.size and 0 <= place[1] < board.size)
            shown[:, REACH - ahead, REACH + aside] = (place in board.food, outside or place in kills, place in heads)
    return 255 * shown


def careful(buffers: dict[str, NDArray[np.float32]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Mostly avoids what kills, so that snakes grow; else at random."""
    kills = buffers["observations"].reshape(-1, 3, 11, 11)[:, 1]
    cost = rng.random((len(kills), 3)) + 0.9 * (kills[:, [4, 5, 5], [5, 4, 6]] > 0)
    return cost.argmin(1)


def test_every_step_is_the_twins() -> None:
    size, agents, rest, steps = 16, 14, 3, 400
    pool = make_pool("snake", num_envs=1, size=size, agents=agents, food=20, rest=rest, max_steps=steps)
    buffers, rng, seen = pool.buffers(), np.random.default_rng(0), Counter[str]()
    board = read(pool.snapshot()[0], size, agents)
    for _ in range(1, steps):
        actions = careful(buffers, rng)
        resting = buffers["resting"].copy()
        assert resting.tolist() == [snake.rest > 0 for snake in board.snakes]
        buffers["actions"][:, 0] = actions
        pool.send()
        pool.recv()
        dead, ate = play(board, actions.tolist())
        after = read(pool.snapshot()[0], size, agents)
        # Rewards and ends; who comes back begins an episode, and so the one of its rest ends.
        assert buffers["rewards"].tolist() == [float(i in ate) - float(i in dead) for i in range(agents)]
        back = {i for i in range(agents) if resting[i] and after.snakes[i].rest == 0}
        assert set(np.flatnonzero(buffers["terminated"])) == dead | back and not buffers["truncated"].any()
        for i, (twin, snake) in enumerate(zip(board.snakes, after.snakes, strict=True)):
            if i in dead:
                assert snake.rest == rest + 1 and snake.length == twin.length
            elif i in back:
                free_ahead = [tuple(np.add(snake.body[-1], np.multiply(k, MOVES[snake.heading]))) for k in (1, 2)]
                taken = {place for other in board.snakes for place in other.body} | board.food
                assert twin.rest == 2 or twin.rest == 1  # 1: there was no room before
                assert snake.length == 3 and not taken & {*snake.body, *free_ahead}
                board.snakes[i] = snake
            elif resting[i]:
                assert snake.rest == max(twin.rest - 1, 1)
            else:
                assert (snake.body, snake.heading, snake.length) == (twin.body, twin.heading, twin.length)
        bodies = {place for snake in after.snakes for place in snake.body}
        assert after.food >= board.food and not after.food & bodies and len(after.food) <= 20
        expected = [view(after, snake) for snake in after.snakes]
        assert (buffers["observations"].reshape(agents, 3, 11, 11) == expected).all()
        seen.update(deaths=len(dead), meals=len(ate), back=len(back))
        seen["longest"] = max(seen["longest"], *(snake.length for snake in after.snakes))
        board = after
    assert seen["deaths"] > 100 and seen["meals"] > 100 and seen["back"] > 100 and seen["longest"] > 8
    pool.send()
    pool.recv()
    assert (buffers["truncated"] | buffers["terminated"]).all()


def place_two(pool: _cpp_envs.Pool, first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    """Two snakes of three segments, each (row, column, heading) of the head, alone on a board of 8 x 8."""
    state = pool.snapshot()
    boards, wanted = state[0, : 4 * SIDE * SIDE].reshape(4, SIDE, SIDE), np.full((SIDE, SIDE), 2, np.uint8)
    wanted[MARGIN : MARGIN + 8, MARGIN : MARGIN + 8] = 0
    for i, (row, column, heading) in enumerate((first, second)):
        squares = [(row - k * MOVES[heading][0] + MARGIN, column - k * MOVES[heading][1] + MARGIN) for k in range(3)]
        for k, square in enumerate(squares):
            wanted[square] = BODY + heading if k else HEAD
        at = 4 * SIDE * SIDE + 24 * i
        values = np.array([squares[0][0] * SIDE + squares[0][1], squares[2][0] * SIDE + squares[2][1], 3, heading, 0])
        state[0, at : at + 20] = values.astype(np.int32).view(np.uint8)
    for heading in range(4):
        boards[heading] = np.rot90(wanted, heading)
    pool.restore(state)


def test_who_meets_head_on_dies_and_a_tail_that_moves_on_leaves_room() -> None:
    for first, second, actions, dead in (
        ((4, 3, 1), (4, 5, 3), (AHEAD, AHEAD), {0, 1}),  # into the same square
        ((4, 3, 1), (4, 4, 3), (AHEAD, AHEAD), {0, 1}),  # each into the other's head
        ((2, 4, 0), (5, 4, 0), (AHEAD, AHEAD), set()),  # behind one another
        ((4, 3, 1), (2, 4, 0), (AHEAD, AHEAD), set()),  # into the square that a tail leaves: (4, 4)
        ((4, 3, 1), (3, 4, 0), (AHEAD, AHEAD), {0}),  # into a body
        ((0, 3, 0), (7, 3, 2), (AHEAD, LEFT), {0}),  # into the wall
        ((4, 3, 1), (4, 5, 3), (LEFT, AHEAD), set()),
    ):
        pool = make_pool("snake", num_envs=1, size=8, agents=2, food=1)
        place_two(pool, first, second)
        buffers = pool.buffers()
        buffers["actions"][:, 0] = actions
        pool.send()
        pool.recv()
        assert set(np.flatnonzero(buffers["terminated"])) == dead, (first, second, actions)
        assert buffers["rewards"].tolist() == [-1.0 if i in dead else 0.0 for i in range(2)]


def test_the_greedy_bot_outgrows_chance() -> None:
    params = {"agents": 64, "size": 56, "food": 64}
    mean = {
        who: np.mean(play_through_pool("snake", who, 2, 1, metric="length", params=params))
        for who in (player, uniform_player)
    }
    assert 3 <= mean[uniform_player] < 4 and mean[player] > 8

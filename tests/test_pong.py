"""Pong: every frame is what a slow twin in Python computes, points are counted, and a good player wins by 20."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reference import play_through_pool, uniform_player
from benchmarks.reference.pong import player
from dist_trainer import _cpp_envs
from tests.pools import make_pool

STAY, UP, DOWN = 0, 1, 2
WIDTH, HEIGHT, HALF, RADIUS, SPEED, RIVAL_SPEED = 160.0, 120.0, 12.0, 1.0, 2.5, 0.9


@dataclass
class Field:
    """The first members of the C++ struct."""

    paddle: float
    rival: float
    rival_offset: float
    x: float
    y: float
    vx: float
    vy: float
    won: int
    lost: int
    hits: int


def fields(pool: _cpp_envs.Pool) -> list[Field]:
    floats, whole = np.dtype(np.float32).itemsize * 7, np.dtype(np.int32).itemsize * 3
    return [
        Field(*row[:floats].view(np.float32).tolist(), *row[floats : floats + whole].view(np.int32).tolist())
        for row in pool.snapshot().copy()
    ]


def clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def ball_speed(hits: int) -> float:
    return min(2 + hits / 8, 3)


def bounce(offset: float, hits: int) -> tuple[float, float]:
    """The ball's speed away from the paddle and downwards, having met it so far below its middle."""
    down = clamp(offset / HALF, -1, 1) * 0.8 * ball_speed(hits)
    return (ball_speed(hits) ** 2 - down**2) ** 0.5, down


def next_frame(now: Field, action: int) -> Field | None:
    """What follows, or None where too close to the edge of a paddle to tell. After a point x is nan: a serve follows.

    The rival's next aim is chance: nan, where it changes.
    """
    field = replace(now)
    field.paddle = clamp(now.paddle + {STAY: 0, UP: -SPEED, DOWN: SPEED}[action], HALF, HEIGHT - HALF)
    target = now.y - now.rival_offset if now.vx < 0 else HEIGHT / 2
    field.rival = clamp(now.rival + clamp(target - now.rival, -RIVAL_SPEED, RIVAL_SPEED), HALF, HEIGHT - HALF)
    field.x, field.y = now.x + now.vx, now.y + now.vy
    if not 0 <= field.y <= HEIGHT:
        field.y = -field.y if field.y < 0 else 2 * HEIGHT - field.y
        field.vy = -now.vy
    if 0 < field.x < WIDTH:
        return field
    at_agent = now.vx > 0
    offset = field.y - (field.paddle if at_agent else field.rival)
    if abs(abs(offset) - HALF - RADIUS) < 1e-3:
        return None
    if abs(offset) > HALF + RADIUS:
        field.won, field.lost = now.won + (not at_agent), now.lost + at_agent
        field.hits, field.x = 0, np.nan
        return field
    field.hits += 1
    away, field.vy = bounce(offset, field.hits)
    field.x, field.vx = (WIDTH, -away) if at_agent else (0.0, away)
    if at_agent:
        field.rival_offset = np.nan
    return field


def choose(now: Field, rng: np.random.Generator) -> int:
    """Follows the ball, off its middle, and not always."""
    away = now.y + rng.uniform(-8, 8) - now.paddle
    if rng.random() < 0.2:
        return int(rng.integers(3))
    return DOWN if away > SPEED / 2 else UP if away < -SPEED / 2 else STAY


def test_every_frame_is_the_twins() -> None:
    envs = 16
    pool, rng = make_pool("pong", num_envs=envs, frame_skip=1, points=3, max_steps=100_000), np.random.default_rng(0)
    buffers, seen, served_to = pool.buffers(), {"serve": 0, "hit": 0, "game": 0}, set()
    before = fields(pool)
    for _ in range(3000):
        actions = [choose(field, rng) for field in before]
        buffers["actions"][:, 0] = actions
        pool.send()
        pool.recv()
        after = fields(pool)
        for env, (was, action, field) in enumerate(zip(before, actions, after, strict=True)):
            expected = next_frame(was, action)
            if expected is None:
                continue
            gained = expected.won - was.won - (expected.lost - was.lost)
            assert buffers["rewards"][env] == gained
            ended = max(expected.won, expected.lost) == 3
            assert buffers["terminated"][env] == ended and not buffers["truncated"][env]
            if ended:
                expected = Field(HEIGHT / 2, HEIGHT / 2, np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0, 0)
                seen["game"] += 1
            if np.isnan(expected.x):
                assert field.x == WIDTH / 2 and HEIGHT / 3 < field.y < HEIGHT * 2 / 3
                assert np.hypot(field.vx, field.vy) == pytest.approx(2) and abs(field.vy) <= 0.8
                expected = replace(expected, x=field.x, y=field.y, vx=field.vx, vy=field.vy, rival_offset=np.nan)
                served_to.add(field.vx > 0)
                seen["serve"] += 1
            if np.isnan(expected.rival_offset):
                assert abs(field.rival_offset) <= 10.8
                expected.rival_offset = field.rival_offset
            seen["hit"] += expected.hits > was.hits
            assert max(abs(a - b) for a, b in zip(astuple(field), astuple(expected), strict=True)) < 1e-3
        before = after
    assert seen["serve"] > 50 and seen["hit"] > 300 and seen["game"] > 8 and served_to == {False, True}


def test_observations_show_the_field() -> None:
    pool = make_pool("pong", num_envs=8)
    buffers, rng = pool.buffers(), np.random.default_rng(1)
    for _ in range(500):
        buffers["actions"][:, 0] = rng.integers(0, 3, 8)
        pool.send()
        pool.recv()
        shown: NDArray[np.float32] = buffers["observations"]
        for row, field in zip(shown, fields(pool), strict=True):
            places = [2 * field.paddle / HEIGHT - 1, 2 * field.rival / HEIGHT - 1]
            places += [2 * field.x / WIDTH - 1, 2 * field.y / HEIGHT - 1, field.vx / 3, field.vy / 3]
            finer = clamp((field.y - field.paddle) / 24, -1, 1)
            counts = [(ball_speed(field.hits) - 2) / 1, field.won / 21, field.lost / 21]
            assert row.tolist() == pytest.approx([*places, finer, *counts], abs=1e-5)


def test_who_plays_well_wins_by_20_and_chance_loses() -> None:
    assert np.mean(play_through_pool("pong", player, 100, 1)) >= 20
    assert np.mean(play_through_pool("pong", uniform_player, 100, 1)) <= -19


def test_a_rival_that_stands_still_loses_and_one_as_fast_as_the_ball_does_not() -> None:
    assert np.mean(play_through_pool("pong", player, 20, 1, params={"rival_speed": 0})) >= 20.5
    slow, fast = (
        np.mean(play_through_pool("pong", player, 20, 1, metric="hits_per_point", params={"rival_speed": speed}))
        for speed in (0.5, 2.5)
    )
    assert fast > slow + 1


def test_a_long_game_is_cut_off() -> None:
    pool = make_pool("pong", num_envs=4, max_steps=7)
    buffers = pool.buffers()
    buffers["actions"][:] = STAY
    for step in range(1, 22):
        pool.send()
        pool.recv()
        assert (buffers["truncated"] == (step % 7 == 0)).all() and not buffers["terminated"].any()

"""Breakout: the points there are, the lives, and a ball that neither leaves the field nor passes through bricks."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from dist_trainer import _cpp_envs

STAY, LEFT, RIGHT = 0, 1, 2
ROWS, COLUMNS, BRICKS = 6, 18, 108
VALUES = np.repeat([7, 7, 4, 4, 1, 1], COLUMNS)
WIDTH, HEIGHT, WALL_TOP, BRICK_WIDTH, BRICK_HEIGHT = 144, 120, 20, 8, 4
PADDLE_HALF, FASTEST = 12, 3.5


@dataclass
class View:
    """An observation, back in the units of the field."""

    paddle: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    vx: NDArray[np.float64]
    vy: NDArray[np.float64]
    lives: NDArray[np.float64]  # share of the lives at the start
    bricks_left: NDArray[np.int64]
    walls: NDArray[np.int64]
    bricks: NDArray[np.int64]  # (N, 108), from the top left


class Game:
    def __init__(self, num_envs: int, seed: int = 0, **params: float):
        self.pool = _cpp_envs.Pool(name="breakout", params=params, num_envs=num_envs, first_env=0, seed=seed, threads=1)
        self.pool.reset()
        self.buffers = self.pool.buffers()

    def view(self) -> View:
        observation = self.buffers["observations"].astype(np.float64)
        x, y = (observation[:, 1] + 1) * WIDTH / 2, (observation[:, 2] + 1) * HEIGHT / 2
        vx, vy = observation[:, 3] * FASTEST, observation[:, 4] * FASTEST
        bricks_left = np.rint(observation[:, 7] * BRICKS).astype(np.int64)
        walls = np.rint(observation[:, 8] * 2).astype(np.int64)
        bricks = observation[:, 11:].astype(np.int64)
        return View((observation[:, 0] + 1) * WIDTH / 2, x, y, vx, vy, observation[:, 6], bricks_left, walls, bricks)

    def step(self, actions: NDArray[np.int64] | int) -> NDArray[np.bool_]:
        """Returns which episodes ended."""
        self.buffers["actions"][:, 0] = actions
        self.pool.send()
        self.pool.recv()
        return self.buffers["terminated"] | self.buffers["truncated"]


class Tracker:
    """Keeps under where the ball will be after the step, and meets it off-centre, anew at each return."""

    def __init__(self, num_envs: int):
        self.rng = np.random.default_rng(0)
        self.offset, self.rising = np.zeros(num_envs), np.zeros(num_envs, bool)

    def act(self, view: View) -> NDArray[np.int64]:
        turned = self.rising & (view.vy > 0)
        self.offset[turned] = self.rng.uniform(-6, 6, turned.sum())
        self.rising = view.vy < 0
        gap = view.x + 4 * view.vx + self.offset - view.paddle
        return np.where(gap > 6, RIGHT, np.where(gap < -6, LEFT, STAY))


def test_a_tracker_clears_both_walls_for_864_points() -> None:
    envs = 16
    game, tracker = Game(envs), Tracker(envs)
    score, wins, episodes = np.zeros(envs), 0, 0
    for _ in range(7000):
        done = game.step(tracker.act(game.view()))
        score += game.buffers["rewards"]
        assert score.max() <= 864
        # The rules end an episode that is won; and one that is lost, which has fewer points.
        assert (game.buffers["terminated"] | (score < 864)).all()
        wins += (score[done] == 864).sum()
        episodes += done.sum()
        score[done] = 0
    assert episodes >= envs
    assert wins / episodes >= 0.9
    count, returns, _, scores, walls = game.pool.take_statistics()
    assert count == episodes and scores == returns and walls >= 2 * wins


def test_rewards_are_the_values_of_the_bricks_that_vanish() -> None:
    envs = 16
    game, tracker = Game(envs, seed=1), Tracker(envs)
    before, refills = game.view(), 0
    assert (before.bricks == 1).all() and (before.walls == 0).all()
    for _ in range(4000):
        done = game.step(tracker.act(before))
        after, rewards = game.view(), game.buffers["rewards"]
        refilled = ~done & (before.bricks_left == 0)  # cleared: nothing left to hit until the wall is back
        refilled &= after.bricks_left == BRICKS
        playing = ~done & ~refilled
        vanished = before.bricks - after.bricks
        assert (vanished[playing] >= 0).all()
        assert (vanished[playing] @ VALUES == rewards[playing]).all()
        assert (rewards[refilled] == 0).all() and (after.walls[refilled] == 1).all()
        assert (after.bricks.sum(axis=1) == after.bricks_left).all()
        last = done & (before.walls == 1) & (rewards > 0)  # won: the reward is what was left of the second wall
        assert (before.bricks[last] @ VALUES == rewards[last]).all()
        refills += refilled.sum()
        before = after
    assert refills >= envs


def in_a_brick(bricks: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    row = np.floor((y - WALL_TOP) / BRICK_HEIGHT).astype(np.int64)
    column = np.minimum(x // BRICK_WIDTH, COLUMNS - 1).astype(np.int64)
    there = bricks[np.arange(len(bricks)), np.clip(row, 0, ROWS - 1) * COLUMNS + column]
    return (there == 1) & (row >= 0) & (row < ROWS)


def test_the_ball_stays_in_the_field_and_out_of_the_bricks() -> None:
    """Frame by frame: it is never in a brick, and a brick that goes was next to it, so that none is passed through."""
    envs = 32
    game, tracker = Game(envs, seed=2, frame_skip=1), Tracker(envs)
    rng = np.random.default_rng(1)
    before, vanished = game.view(), 0
    for _ in range(5000):
        actions = np.where(rng.random(envs) < 0.95, tracker.act(before), rng.integers(0, 3, envs))
        done = game.step(actions)
        after = game.view()
        assert (np.abs(after.x - WIDTH / 2) <= WIDTH / 2).all()
        assert ((after.y >= 0) & (after.y <= HEIGHT + 1e-4)).all()
        assert (np.abs(after.paddle - WIDTH / 2) <= WIDTH / 2 - PADDLE_HALF + 1e-4).all()
        speed = np.hypot(after.vx, after.vy)
        assert ((speed > 1.999) & (speed < FASTEST + 1e-3)).all()
        assert (np.abs(after.vx) <= 0.801 * speed).all()  # never flat: it comes back to the paddle

        assert not in_a_brick(after.bricks, after.x, after.y).any()
        assert not in_a_brick(after.bricks, after.x, before.y)[~done].any()  # the corner: sideways first, then up
        env, brick = np.nonzero((before.bricks > after.bricks) & ~done[:, None])
        gap_x = np.abs(before.x[env] - (brick % COLUMNS + 0.5) * BRICK_WIDTH) - BRICK_WIDTH / 2
        gap_y = np.abs(before.y[env] - WALL_TOP - (brick // COLUMNS + 0.5) * BRICK_HEIGHT) - BRICK_HEIGHT / 2
        assert (np.maximum(gap_x, gap_y) <= FASTEST + 1e-4).all()
        vanished += len(env)
        before = after
    assert vanished > 1000


@pytest.mark.parametrize("lives", [1, 5])
def test_a_player_who_hides_loses_a_life_per_ball(lives: int) -> None:
    envs = 32
    game = Game(envs, seed=3, lives=lives)
    left = np.full(envs, lives)
    finished = 0
    for _ in range(60 * lives):
        before = game.view()
        hide = np.where(before.x < WIDTH / 2, RIGHT, LEFT)  # in the corner away from the ball
        done = game.step(hide)
        after = game.view()
        now = np.rint(after.lives * lives).astype(np.int64)
        lost = ~done & (now < left)
        assert (now[lost] == left[lost] - 1).all() and (left[done] == 1).all() and (now[done] == lives).all()
        assert (after.vy[lost] > 0).all() and (after.y[lost] < HEIGHT / 2).all()  # served at once
        left = now
        assert not game.buffers["truncated"].any()
        finished += done.sum()
    assert finished >= envs


def test_max_steps_truncates_with_the_final_observation() -> None:
    envs = 8
    game, tracker = Game(envs, seed=4, max_steps=100), Tracker(envs)
    for step in range(1, 301):
        done = game.step(tracker.act(game.view()))
        assert (game.buffers["truncated"] == (step % 100 == 0)).all()
        assert (done == game.buffers["truncated"]).all()
        if step % 100 == 0:
            final, fresh = game.buffers["final_observations"], game.buffers["observations"]
            assert (final[:, 11:].sum(axis=1) < BRICKS).all() and (fresh[:, 11:] == 1).all()


def test_where_the_ball_meets_the_paddle_sets_its_direction() -> None:
    envs = 64
    game, tracker = Game(envs, seed=5, frame_skip=1), Tracker(envs)
    offsets, directions = [], []
    before = game.view()
    for _ in range(1500):
        done = game.step(tracker.act(before))
        after = game.view()
        returned = ~done & (before.vy > 0) & (after.vy < 0) & (after.y > HEIGHT / 2)
        offsets += list((after.x - after.paddle)[returned] / PADDLE_HALF)
        directions += list((after.vx / np.hypot(after.vx, after.vy))[returned] / 0.8)
        before = after
    assert len(offsets) > 500
    errors = np.clip(offsets, -1, 1) - np.array(directions)
    assert np.abs(errors).max() <= 0.1001
    assert errors.std() > 0.03  # and it varies, so that no cycle lasts


def test_the_ball_speeds_up() -> None:
    game, tracker = Game(16, seed=6), Tracker(16)
    speeds = set()
    for _ in range(600):
        view = game.view()
        speeds |= set(np.hypot(view.vx, view.vy).round(3).tolist())
        game.step(tracker.act(view))
    assert speeds == {2.0, 2.5, 3.0, 3.5}

"""The MOBA through the pool: both teams see the same, what the page of rules says, scripts, legal choices."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import world_rules
from benchmarks.reference import play_through_pool, uniform_player
from dist_trainer import _cpp_envs
from tests.pools import make_pool, step

HEROES, OWN = 10, 257  # where the bytes of oneself begin
ROLE, RESPAWN, LEVEL, GOLD, ITEMS, CAN_BUY, HEALTH, X, Y = (OWN + k for k in (0, 5, 7, 9, 10, 14, 18, 30, 31))
ATTACK, DRINK, BUY = 1, 5, 6
ELIXIR = 3
MOVES = ((0, 0), (0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))
Bytes = NDArray[np.uint8]


def advance(pool: _cpp_envs.Pool, actions: Any) -> Bytes:
    """Actions of all rows, or of each (rows, 3) -> (rows, 299)."""
    pool.buffers()["actions"][:] = actions
    pool.send()
    pool.recv()
    return pool.buffers()["observations"].copy()


def one_game() -> _cpp_envs.Pool:
    """Of ten agents."""
    return make_pool("moba", num_envs=1, opponent=0)


def test_the_page_says_what_is_played_by() -> None:
    assert world_rules.rewritten("moba") == world_rules.page_of("moba").read_text()


def test_both_teams_see_the_same_game() -> None:
    """The map is the same after half a turn, and each team sees itself in the south-west: as long as nobody meets,
    heroes who do the same see the same."""
    pool = one_game()
    rng = np.random.default_rng(3)
    seen = pool.buffers()["observations"].copy()
    for _ in range(16):  # until the creeps meet
        assert (seen[:5] == seen[5:]).all()
        half = np.stack([rng.integers(9, size=5), rng.integers(2, size=5), np.zeros(5)], 1)
        legal = pool.buffers()["legal"][:5]
        half[~legal[np.arange(5), half[:, 0].astype(int)], 0] = 0
        half[~legal[np.arange(5), 9 + half[:, 1].astype(int)], 1] = 0
        seen = advance(pool, np.concatenate([half, half]))
    assert len({row.tobytes() for row in seen}) == 5


def test_heroes_go_where_they_are_sent() -> None:
    """Before the first wave nobody is in the way of who moves alone."""
    rng = np.random.default_rng(4)
    moved = 0
    for seed in range(30):
        pool = make_pool("moba", num_envs=1, seed=seed, opponent=0)
        seen = pool.buffers()["observations"].copy()
        for _ in range(3):
            hero = rng.integers(HEROES)
            actions = np.zeros((HEROES, 3), np.int64)
            actions[hero, 0] = rng.choice(np.flatnonzero(pool.buffers()["legal"][hero, :9]))
            places = np.rint(seen[:, [X, Y]] / 255.0 * 39)
            seen = advance(pool, actions)
            walked = np.rint(seen[:, [X, Y]] / 255.0 * 39) - places
            assert tuple(walked[hero]) == MOVES[actions[hero, 0]]
            assert (walked.any(1) == (np.arange(HEROES) == hero) & (actions[hero, 0] > 0)).all()
            moved += actions[hero, 0] > 0
    assert moved > 50


def test_buying_costs_what_the_page_says() -> None:
    pool = one_game()
    seen = pool.buffers()["observations"].copy()
    assert (seen[:5, ROLE : ROLE + 5] == 255 * np.eye(5)).all() and (seen[:, LEVEL] == 25).all()
    assert (seen[:, GOLD] == 60 // 2).all()
    assert (seen[:, CAN_BUY : CAN_BUY + 4] == [0, 0, 0, 255]).all()  # an elixir for 40, nothing else
    actions = np.zeros((HEROES, 3), np.int64)
    actions[0] = (0, BUY, ELIXIR)
    actions[1] = (0, BUY, 0)  # a blade, which it cannot pay
    seen = advance(pool, actions)
    assert seen[0, GOLD] == 20 // 2 and (seen[0, ITEMS : ITEMS + 4] == [0, 0, 0, 85]).all()
    assert (seen[1:, GOLD] == 60 // 2).all() and (seen[1:, ITEMS : ITEMS + 4] == 0).all()
    for _ in range(79):  # a piece of gold every second step
        seen = advance(pool, 0)
    assert (seen[1:, GOLD] == 100 // 2).all() and (seen[1:, CAN_BUY] == 255).all() and seen[0, CAN_BUY] == 0
    actions[0] = (0, DRINK, 0)
    seen = advance(pool, actions)
    assert (seen[0, ITEMS : ITEMS + 4] == 0).all() and seen[1, ITEMS] == 85 and seen[1, GOLD] == 0


def test_who_is_dead_has_one_choice_and_comes_back() -> None:
    pool = make_pool("moba", num_envs=4, opponent=3)
    died = back = 0
    for _ in range(400):
        before = pool.buffers()["observations"].copy()
        buffers = step("moba", pool)
        dead, was_dead = buffers["observations"][:, RESPAWN] > 0, before[:, RESPAWN] > 0
        assert (buffers["legal"][dead].sum(1) == 3).all()
        assert (buffers["observations"][dead][:, HEALTH] == 0).all()
        assert "resting" not in buffers
        died += (dead & ~was_dead).sum()
        back += (~dead & was_dead).sum()
    assert died > 5 and back > 5


def points(opponent: int, oracle: int, games: int, lineup: int = 0) -> float:
    params = {"opponent": opponent, "oracle": oracle, "lineup": lineup}
    return float(np.mean(play_through_pool("moba", uniform_player, games, 5, metric="points", params=params)))


@pytest.mark.parametrize("lineup", [0, 1, 2])
def test_scripts_are_as_strong_as_their_number(lineup: int) -> None:
    assert points(1, 0, 24, lineup) <= 0.05  # at random
    assert points(1, 2, 24, lineup) >= 0.95
    assert points(2, 3, 60, lineup) > 0.6
    assert 0.2 < points(3, 3, 60, lineup) < 0.8


def test_rewards_of_a_game_sum_up_to_its_end() -> None:
    """Without dense rewards there are only those of the end: what one team gets the other one loses."""
    pool = make_pool("moba", num_envs=6, opponent=0, dense=0.0, max_steps=400)
    for _ in range(399):
        assert not step("moba", pool)["rewards"].any()
    rewards = step("moba", pool)["rewards"].reshape(6, 2, 5)
    assert set(np.abs(rewards).flat) <= {0.0, 2.5} and rewards.any()  # 0: as much is left of both
    assert (rewards[:, 0] == -rewards[:, 1]).all() and pool.buffers()["terminated"].all()

"""The MMO through the pool: its page of rules, needs, trade, lives, the script. For invariants see test_worlds.py."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import world_rules
from benchmarks.reference import play_through_pool, uniform_player
from dist_trainer import _cpp_envs
from tests.pools import make_pool, step

MARKET, OWN = 205, 213  # where the bytes of the market and of oneself begin
FOOD, WATER, COMBAT, PROFESSION, RATIONS, GOLD, X, Y, SHORE = (OWN + k for k in (2, 3, 4, 5, 14, 35, 37, 38, 40))
EAT, SELL, BUY = 5, 10, 11
STEPS = ((0, 0), (0, -1), (1, 0), (0, 1), (-1, 0))
Bytes = NDArray[np.uint8]


def advance(pool: _cpp_envs.Pool, actions: Any) -> Bytes:
    """(agents, 4) -> (agents, 273)"""
    pool.buffers()["actions"][:] = actions
    pool.send()
    pool.recv()
    return pool.buffers()["observations"].copy()


def one_world(agents: int, max_steps: int = 1024) -> _cpp_envs.Pool:
    return make_pool("mmo", num_envs=1, agents=agents, max_steps=max_steps)


def test_the_page_says_what_is_played_by() -> None:
    assert world_rules.rewritten("mmo") == world_rules.page_of("mmo").read_text()


def test_agents_go_where_they_are_sent_and_never_into_water() -> None:
    pool = one_world(1)
    seen = pool.buffers()["observations"].copy()
    rng = np.random.default_rng(1)
    blocked = walked = 0
    for _ in range(400):
        before = np.rint(seen[0, [X, Y]] / 255.0 * 63)
        move = int(rng.integers(5))
        open_ways = seen[0, OWN + 41 : OWN + 45] > 0  # north, east, south, west
        seen = advance(pool, [[move, 0, 0, 0]])
        if pool.buffers()["terminated"][0]:
            continue
        assert seen[0, 40] < 200  # the ground below: neither water (220) nor a cliff (255)
        moved = tuple(np.rint(seen[0, [X, Y]] / 255.0 * 63) - before)
        free = move == 0 or open_ways[move - 1]
        assert moved == STEPS[move] if free else moved == (0, 0)
        walked, blocked = walked + (free and move > 0), blocked + (not free)
    assert walked > 100 and blocked > 5


def test_food_and_water_fall_every_third_step() -> None:
    pool = one_world(1)
    seen = pool.buffers()["observations"].copy()
    food = water = 100
    for time in range(1, 120):
        seen = advance(pool, 0)
        food, water = food - (time % 3 == 0), water - (time % 3 == 0)
        if seen[0, SHORE]:
            water = min(100, water + 20)
        assert seen[0, FOOD] == 255 * food // 100 and seen[0, WATER] == 255 * water // 100
    seen = advance(pool, [[0, EAT, 0, 0]])
    assert seen[0, FOOD] == 255 * (min(100, food + 50) - 1) // 100 and seen[0, RATIONS] == 0


def test_who_buys_pays_the_cheapest_price_to_who_offered_it() -> None:
    pool = one_world(3)
    seen = advance(pool, [[0, SELL, 0, 4], [0, SELL, 0, 2], [0, 0, 0, 0]])  # rations for 5 and for 3
    assert (seen[:, MARKET] == 30 * 3).all() and (seen[:, MARKET + 1] == 2 * 2).all()
    assert (seen[:2, RATIONS] == 0).all() and (seen[:, GOLD] == 10).all()
    seen = advance(pool, [[0, 0, 0, 0], [0, 0, 0, 0], [0, BUY, 0, 1]])  # no more than 2: nothing
    assert (seen[:, GOLD] == 10).all() and seen[2, RATIONS] == 255 // 20
    seen = advance(pool, [[0, 0, 0, 0], [0, 0, 0, 0], [0, BUY, 0, 7]])
    assert seen[:, GOLD].tolist() == [10, 13, 7] and seen[2, RATIONS] == 255 * 2 // 20
    assert (seen[:, MARKET] == 30 * 5).all()
    seen = advance(pool, [[0, 0, 0, 0], [0, 0, 0, 0], [0, BUY, 0, 7]])
    assert seen[:, GOLD].tolist() == [15, 13, 2] and (seen[:, MARKET] == 0).all()
    seen = advance(pool, [[0, BUY, 0, 7]] * 3)  # there is none
    assert seen[:, GOLD].tolist() == [15, 13, 2]


def test_who_does_nothing_dies_of_hunger_or_thirst_and_begins_anew() -> None:
    pool = one_world(40, max_steps=2000)
    deaths = np.zeros(3)  # hunger, thirst, all
    for _ in range(700):
        advance(pool, 0)
        ended = pool.buffers()["terminated"]
        newborn = pool.buffers()["observations"][ended]
        assert (newborn[:, GOLD] == 10).all() and (newborn[:, FOOD] == 255).all()
        assert (newborn[:, [COMBAT, PROFESSION]] == 12).all()
        assert (pool.buffers()["rewards"][ended] == -0.5).all()
    statistics = np.array(pool.take_statistics())
    deaths = statistics[3 + 6 : 3 + 10]  # sums over lives: hunger, thirst, by creature, by agent
    assert statistics[0] >= 40 and deaths[:2].sum() > 0.8 * statistics[0] and deaths[3] == 0
    assert deaths.sum() == statistics[0]


def test_the_script_lives_and_learns() -> None:
    scores = {
        oracle: np.mean(
            play_through_pool("mmo", uniform_player, 3, 5, metric="min_comb_prof", params={"oracle": oracle})
        )
        for oracle in (0, 1)
    }
    assert scores[0] < 1.5 and scores[1] > 3


def test_worlds_differ_and_truncation_ends_all_lives() -> None:
    pool = make_pool("mmo", num_envs=3, agents=5, max_steps=16)
    assert len({pool.render(env).tobytes() for env in range(3)}) == 3
    for index in range(1, 33):
        buffers = step("mmo", pool)
        assert buffers["truncated"].all() == buffers["truncated"].any() == (index % 16 == 0)

"""Random and reference scores: the players, and that every environment has them (benchmarks/env_scores.py)."""

from collections import Counter
from importlib import import_module

import numpy as np
import pytest

from benchmarks.reference import EpisodesTooLong, play_through_pool, uniform_player
from dist_trainer.config import EnvConfig
from dist_trainer.config_files import group_choices
from dist_trainer.envs import EnvPool
from dist_trainer.scores import EnvScore, load_scores

NOT_SCORED = ("probe_", "gymnasium", "envpool")  # what tests are made of, and other people's environments
SCORED = [name for name in group_choices("env") if not name.startswith(NOT_SCORED)]


@pytest.mark.parametrize("name", SCORED)
def test_every_environment_has_scores_that_differ(name: str) -> None:
    score = load_scores()[name]
    spread = score.random_error + score.reference_error
    assert abs(score.reference - score.random) > 10 * spread > 0 or spread == 0 != score.reference - score.random
    module = import_module(f"benchmarks.reference.{name}")
    assert score.metric == getattr(module, "METRIC", "episode_return") and score.player


@pytest.mark.parametrize("name", ["cartpole", "tmaze"])
def test_the_scores_on_file_are_those_that_are_played(name: str) -> None:
    score = load_scores()[name]
    at_random = play_through_pool(name, uniform_player, 300, 1, metric=score.metric)
    assert abs(np.mean(at_random) - score.random) < 5 * np.std(at_random) / 300**0.5 + 5 * score.random_error
    assert np.mean(import_module(f"benchmarks.reference.{name}").play(20, 1)) == pytest.approx(score.reference)


def test_a_random_walker_scores_what_arithmetic_says() -> None:
    """Each of 20 moves fails twice as often as not and then costs 0.1; at the end two of three choices turn."""
    returns = play_through_pool("tmaze", uniform_player, 2000, 3)
    waits = 20 * 2 + 0.5
    expected = -0.1 * waits + (4 - 0.1) / 2
    assert np.mean(returns) == pytest.approx(expected, abs=5 * np.std(returns) / 2000**0.5)
    assert len(returns) == 2000


def test_episodes_that_do_not_end_are_told() -> None:
    with pytest.raises(EpisodesTooLong, match="of 20 environments of tmaze took more than 30 steps"):
        play_through_pool("tmaze", uniform_player, 20, 3, max_steps=30)


def test_the_uniform_player_takes_every_legal_choice_equally_often() -> None:
    pool = EnvPool(EnvConfig("probe_masks"), num_envs=500, first_env=0, seed=4, threads=1)
    pool.reset()
    choose = uniform_player(pool)
    seen: dict[bytes, Counter[int]] = {}
    for _ in range(40):
        pool.actions[:] = choose(pool)
        for legal, action in zip(pool.legal, pool.actions, strict=True):
            seen.setdefault(legal[:5].tobytes(), Counter())[int(action[0])] += 1
        pool.send()
        pool.recv()
    assert len(seen) > 3
    for mask, counts in seen.items():
        allowed = np.flatnonzero(np.frombuffer(mask, np.bool_))
        assert set(counts) <= set(allowed)
        expected = counts.total() / len(allowed)
        assert all(abs(counts[int(choice)] - expected) < 5 * expected**0.5 for choice in allowed)


def test_the_uniform_player_fills_a_box() -> None:
    pool = EnvPool(EnvConfig("probe_continuous"), num_envs=2000, first_env=0, seed=4, threads=1)
    pool.reset()
    actions = uniform_player(pool)(pool)
    assert actions.shape == pool.actions.shape and -2 < actions.min() < -1.98 and 1.98 < actions.max() < 2
    assert abs(actions.mean()) < 0.1


def test_normalized_scores() -> None:
    score = EnvScore("episode_return", random=10, random_error=1, reference=-10, reference_error=1, player="x")
    assert [score.normalized(x) for x in (10, -10, 0)] == [0, 1, 0.5]

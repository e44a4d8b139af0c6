"""Who acts in a session: the policy, a person, the policy again."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dist_trainer.cli import compose_train
from dist_trainer.config import EnvConfig
from dist_trainer.distributed import connect
from dist_trainer.envs import EnvPool
from dist_trainer.learner import Learner, make_learner
from dist_trainer.player import Player
from dist_trainer.session import Session

TINY = ["total_envs=2", "horizon=2", "ppo.minibatches=2", "policy.hidden_size=16", "device=cpu", "torch_threads=1"]


def learner_of(*settings: str) -> Learner:
    learner = make_learner(compose_train([*TINY, "env_threads=1", "policy=lstm", *settings])[0], connect("cpu", 60))
    torch.manual_seed(1)
    for parameter in learner.policy.parameters():  # opinions, that differ with what was seen
        parameter.data.copy_(0.4 * torch.randn_like(parameter))
    return learner


def players(learner: Learner) -> Callable[[EnvPool], Player]:
    return lambda pool: Player(learner.policy, learner.observations, pool)


def remembered(learner: Learner, seen: list[Tensor]) -> Tensor:
    """The state (L, A, H) of who has seen these observations (A, ...) of one episode."""
    state = learner.policy.initial_state(len(seen[0]))
    with torch.no_grad():
        for observations in seen:
            state = learner.policy.act(learner.observations(observations), state)[2]
    return state


def test_a_person_decides_while_he_holds_the_agent_and_it_forgets_nothing() -> None:
    learner = learner_of("env=pong")
    session = Session(learner.config.env, players(learner), seed=3)
    session.set_greedy(True)
    seen = [torch.from_numpy(session.pool.observations.copy())]

    def step(*held: str) -> int:
        session.step(held)
        done = int(session.pool.actions[0, 0])
        seen.append(torch.from_numpy(session.pool.observations.copy()))
        return done

    for _ in range(4):
        wanted = int(session.actions()[0, 0])
        assert not session.deciding and step("down") == wanted  # keys say nothing yet
    session.taken = True
    assert session.deciding
    assert [step("up"), step("down"), step(), step("up", "down")] == [1, 2, 0, 2]
    session.taken = False
    assert session.player is not None and session.choice is not None
    state = remembered(learner, seen)
    torch.testing.assert_close(session.player.state, state, rtol=0, atol=0)
    other = remembered(learner, [*seen[:4], seen[-1]])  # of who had looked away meanwhile
    assert not torch.allclose(session.player.state, other, atol=1e-4)
    wanted = int(session.actions()[0, 0])
    assert step("up") == wanted


def test_the_other_agents_go_on_and_the_hold_moves_along() -> None:
    learner = learner_of("env=quadrotors", "env.params.agents=3")
    session = Session(learner.config.env, players(learner), seed=3)
    session.taken = True
    session.select(1)
    own = session.actions()
    session.step(["up"])
    assert session.pool.actions[1].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(session.pool.actions[[0, 2]], np.clip(own[[0, 2]], -1, 1), rtol=1e-6)
    session.select(3)
    assert session.selected == 0
    own = session.actions()
    session.step(["up", "left"])
    np.testing.assert_allclose(session.pool.actions[0], [0.46, 0.54], rtol=1e-6)
    np.testing.assert_allclose(session.pool.actions[1:], np.clip(own[1:], -1, 1), rtol=1e-6)


def test_in_turn_the_session_waits_and_refuses_what_is_not_legal() -> None:
    learner = learner_of("env=connect4")
    session = Session(learner.config.env, players(learner), seed=1, always=True)
    for stone in range(6):
        while not session.waits:
            assert session.forced and session.step()
        assert not session.step() and not session.message  # no key, no step
        assert session.step(["3"]), stone
        if session.ended or (not session.pool.legal[0, 2] and not session.forced):
            break
    rows = session.pool.observations[0, :84].reshape(2, 6, 7)
    full = rows[:, :, 2].any(0).all()
    if full and session.waits:
        assert not session.step(["3"]) and session.message == "that is not legal now"
    assert session.ended is not None or full or rows[0].any()


def test_a_full_column_is_refused() -> None:
    config = compose_train(["env=connect4"])[0].env
    session = Session(config, None, seed=1, always=True)  # two players who are one person, by turns
    for _ in range(6):
        session.select(int(session.pool.legal[1].sum() > 1))
        assert session.waits and session.step(["1"])
    session.select(int(session.pool.legal[1].sum() > 1))
    assert not session.step(["1"]) and session.message == "that is not legal now"
    assert session.steps == 6 and session.step(["2"]) and session.message == ""


def test_the_end_of_an_episode_is_seen() -> None:
    """Four in a column: the picture has the fourth stone, though the next game has begun."""
    config = compose_train(["env=connect4"])[0].env
    session = Session(config, None, seed=1, always=True)
    for column in "1212121":
        session.select(int(session.pool.legal[1].sum() > 1))
        before = session.picture()
        assert session.step([column])
    assert session.ended is not None and session.ended["points"] == 0.5 and session.ended["episode_length"] == 7
    assert sorted(x for x in session.last_return if x is not None) == [-1, 1]
    changed = np.argwhere((session.picture() != before).any(2))
    board = changed[changed[:, 0] > 30]  # below the header
    assert board[:, 1].max() < 100  # two columns of seven: not a new, empty board
    session.ended = None
    assert (session.picture() == session.pool.render(0)).all()
    assert not session.pool.observations[:, :84].any()


def test_returns_and_values_are_those_of_each_agent() -> None:
    learner = learner_of("env=snake", "env.params.agents=5", "env.params.size=8", "env.params.max_steps=30")
    session = Session(learner.config.env, players(learner), seed=2)
    pool = EnvPool(session.config, num_envs=1, first_env=0, seed=2, threads=1)
    pool.reset()
    player = players(learner)(pool)
    returns, last = np.zeros(5), [None] * 5
    for _ in range(30):
        assert session.choice is not None
        torch.testing.assert_close(session.choice.values, player.step().values, rtol=0, atol=0)
        session.step()
        returns += pool.rewards
        for agent in np.flatnonzero(pool.terminated | pool.truncated):
            last[agent], returns[agent] = returns[agent], 0
        assert session.returns.tolist() == returns.tolist() and session.last_return == last
        assert session.resting(2) == pool.resting[2]
    assert session.ended is not None and session.episodes == 1 and session.steps == 0
    assert session.ended["episode_return"] == pytest.approx(pool.statistics[0, 1] / pool.statistics[0, 0])


def test_a_click_selects_the_nearest_agent() -> None:
    config = compose_train(["env=quadrotors", "env.params.agents=6"])[0].env
    session = Session(config, None, seed=4)
    places = session.pool.places(0)
    assert places is not None
    for agent in (3, 0, 5):
        session.select_at(*(places[agent] + [1.5, -1]))
        assert session.selected == agent
    session = Session(EnvConfig(name="connect4"), None, seed=4)
    session.select_at(10, 10)
    assert session.selected == 0 and "tab" in session.message


def test_another_environment_begins_differently_and_the_same_one_alike() -> None:
    learner = learner_of("env=cartpole")
    session = Session(learner.config.env, players(learner), seed=3)
    first = session.pool.observations.copy()
    for _ in range(5):
        session.step()
    session.begin(session.show + 1)
    assert session.player is not None and session.steps == 0 and not (session.pool.observations == first).any()
    fresh = remembered(learner, [torch.from_numpy(session.pool.observations.copy())])
    torch.testing.assert_close(session.player.state, fresh, rtol=0, atol=0)
    session.begin(0)
    assert (session.pool.observations == first).all()


def test_alone_the_idle_action_or_any_legal_one_is_what_the_others_do() -> None:
    config = compose_train(["env=snake", "env.params.agents=4"])[0].env
    session = Session(config, None, seed=1, always=True)
    session.step(["left"])
    assert session.pool.actions[:, 0].tolist() == [1, 0, 0, 0]
    config = compose_train(["env=game2048"])[0].env
    session = Session(config, None, seed=1, always=False)  # nobody decides: any legal move
    for _ in range(50):
        assert session.step()
    assert session.rewards.shape == (1,)

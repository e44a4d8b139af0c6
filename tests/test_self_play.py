"""Past policies as opponents: who plays where, who is learned from and counted, ratings, and exactness of all of it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dist_trainer.checkpoint import load_file
from dist_trainer.cli import compose_train
from dist_trainer.collector import Collector
from dist_trainer.config import SelfPlayConfig, TrainConfig
from dist_trainer.distributed import World
from dist_trainer.env_groups import EnvGroups
from dist_trainer.errors import ConfigError
from dist_trainer.evaluate import run as run_evaluation
from dist_trainer.learner import Learner, make_learner, make_observation_normalizer, make_policy, replicated_tensors
from dist_trainer.past_policies import PastPolicies
from dist_trainer.plan import plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.player import Player
from dist_trainer.pools import env_spec, make_pool
from dist_trainer.report import add_up
from dist_trainer.teams import in_turn, past_envs
from dist_trainer.train import run
from dist_trainer.update import learn
from tests.learners import Learners, learners_of_sizes

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
SMALL = [
    *("env=connect4", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=32", "horizon=16"),
    *("ppo.minibatches=4", "policy.hidden_size=16", "replay_minutes=0"),
]
PAST = ["self_play.past=0.5", "self_play.every=1", "self_play.keep=3", "self_play.hold=2"]
EXACT = ["dtype=float64", "optimizer.storage_dtype=float64"]


def make_config(*settings: str) -> TrainConfig:
    return compose_train([*SMALL, *settings])[0]


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([1, 2, 4]) as by_size:
        yield by_size


# --- Who plays where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])
def test_the_share_holds_for_every_beginning_and_does_not_depend_on_how_environments_are_cut(share: float) -> None:
    whole = past_envs(share, 0, 120)
    for count in (10, 30, 60, 120):
        assert abs(whole[:count].sum() - share * count) < 1
    assert np.array_equal(np.concatenate([past_envs(share, 30 * part, 30) for part in range(4)]), whole)
    spec = env_spec(make_config().env)
    rows = np.concatenate([in_turn(share, 30 * part, 30, spec) for part in range(4)]).reshape(120, 2)
    assert np.array_equal(rows.sum(1), whole.astype(int)), "a whole team there, nobody elsewhere"
    assert abs(int(rows[:, 0].sum()) - int(rows[:, 1].sum())) <= 1, "each team equally often"


def test_a_rollout_is_that_of_two_players(tmp_path: Path) -> None:
    """By two Players, who know nothing of each other, on a pool of the same seed: each decides for its own rows."""
    config = make_config("seed=3")
    now, before = (make_policy(make_config(f"seed={seed}"), env_spec(config.env), CPU) for seed in (3, 4))
    spec = env_spec(config.env)
    normalizer = make_observation_normalizer(config, spec, CPU)
    rows = in_turn(0.5, 0, 32, spec)
    pool = EnvGroups(config.env, num_envs=32, first_env=0, seed=3, threads=1, groups=2)
    pool.reset()
    collector = Collector(pool, now, normalizer, 40, CPU, past=(before, normalizer), past_rows=rows)
    twin = make_pool(config.env, num_envs=32, first_env=0, seed=3, threads=1)
    twin.reset()
    players = Player(now, normalizer, twin), Player(before, normalizer, twin)
    for _ in range(2):  # the recurrent states of both go on
        rollout = collector.collect()
        for t in range(40):
            chosen = [player.choose().actions for player in players]
            expected = torch.where(torch.from_numpy(rows)[:, None], chosen[1], chosen[0])
            assert torch.equal(rollout.actions[t], expected), f"step {t}"
            torch.from_numpy(twin.actions).copy_(expected)
            twin.send()
            twin.recv()
        assert rollout.acts is not None and torch.equal(rollout.acts, torch.from_numpy(~rows).expand(40, -1))
    episodes = twin.statistics[:, 0]
    counted = pool.take_statistics()[:, 0]
    assert np.array_equal(counted, np.where(past_envs(0.5, 0, 32), episodes / 2, episodes)) and counted.all()


def test_past_samples_do_not_move_the_weights() -> None:
    """Whatever rewards and values they have: the update is the same to the bit."""
    updates = []
    for disturb in (0.0, 100.0):
        learner = make_learner(make_config(*PAST), ALONE)
        assert learner.past
        learner.past.begin_iteration(0)
        rollout = learner.collector.collect()
        assert rollout.acts is not None
        rollout.rewards += disturb * ~rollout.acts
        rollout.values -= disturb * ~rollout.acts
        learn(learner, rollout)
        updates.append(replicated_tensors(learner))
    for name, tensor in updates[0].items():
        assert torch.equal(tensor, updates[1][name]), name


# --- Who is kept, and how strong -------------------------------------------------------------------------------------


def past_of(*, every: int, keep: int, hold: int) -> PastPolicies:
    learner = make_learner(make_config(), ALONE)
    return PastPolicies(SelfPlayConfig(0.5, every, keep, hold), 1, (learner.policy, learner.observations))


def test_those_kept_are_spread_over_the_run() -> None:
    past = past_of(every=2, keep=4, hold=3)
    for iteration in range(200):
        past.begin_iteration(iteration)
        taken = [one.iteration for one in past.kept]
        assert taken[0] == 0 and len(taken) <= 4
        assert {b - a for a, b in itertools.pairwise(taken)} <= {past.every}
        assert iteration - taken[-1] < past.every
        assert past.opponent(iteration).iteration <= iteration
    assert past.every == 64
    drawn = [past.opponent(turn * 3).iteration for turn in range(64, 2000)]
    shares = np.array([drawn.count(one.iteration) for one in past.kept]) / len(drawn)
    assert np.allclose(shares, 1 / len(past.kept), atol=0.05), "evenly"
    assert all(past.opponent(turn * 3) == past.opponent(turn * 3 + 2) for turn in range(60, 90)), "held"


def test_the_weights_that_play_are_those_that_were_taken() -> None:
    past = past_of(every=1, keep=50, hold=1)
    weight = next(past._live[0].parameters())
    for iteration in range(30):
        with torch.no_grad():
            weight.fill_(iteration)
        past.begin_iteration(iteration)
        assert bool((next(past.policy.parameters()) == past.opponent(iteration).iteration).all())


@pytest.mark.parametrize("ahead", [-300.0, 0.0, 150.0])
def test_ratings_find_the_strength_that_games_are_drawn_from(ahead: float) -> None:
    """Elo's own expectation: 1 / (1 + 10 ** (-ahead / 400)) points of a game."""
    past = past_of(every=10**6, keep=4, hold=1)
    past.begin_iteration(0)
    random = np.random.default_rng(0)
    expected = 1 / (1 + 10 ** (-ahead / 400))
    ratings = []
    for iteration in range(600):
        games = int(random.integers(0, 80))
        facts = past.rate(iteration, games, float(random.binomial(games, expected)))
        ratings.append(facts["self_play/elo"])
        assert math.isfinite(ratings[-1])
    assert np.mean(ratings[-300:]) == pytest.approx(ahead, abs=15)


# --- The laws --------------------------------------------------------------------------------------------------------


def train(world: World, config: TrainConfig, iterations: int) -> tuple[dict[str, Tensor], list[object]]:
    learner = make_learner(config, world)
    facts: list[object] = []
    for _ in range(iterations):
        facts.append(one_iteration(learner))
    return {name: tensor.clone() for name, tensor in replicated_tensors(learner).items()}, facts


def one_iteration(learner: Learner) -> object:
    assert learner.past
    learner.past.begin_iteration(learner.iteration)
    update = learn(learner, learner.collector.collect())
    learner.iteration += 1
    totals = add_up(learner, update, [], 0.0)
    return totals.episodes, learner.past.rate(learner.iteration - 1, *totals.against_past)


def test_any_number_of_learners_is_the_same_run(worlds: dict[int, Learners]) -> None:
    config = make_config(*PAST, *EXACT, "total_env_steps=1e5")
    (alone, facts), *_ = worlds[1].run(train, config, 8)
    assert len({str(fact) for fact in facts}) == 8
    for size in (2, 4):
        for weights, others in worlds[size].run(train, config, 8):
            assert others == facts, "games, points and ratings"
            for name, tensor in alone.items():
                torch.testing.assert_close(weights[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    settings = [*SMALL, *PAST, "checkpoint_every=3", "keep_checkpoints=100"]
    steps = 32 * 16
    assert run(plan_train([*settings, f"total_env_steps={10 * steps}", f"run_dir={tmp_path / 'whole'}"], 1)) == 0
    cut = plan_train([*settings, f"total_env_steps={10 * steps}", f"run_dir={tmp_path / 'cut'}"], 1)
    assert run(cut) == 0
    for late in sorted((tmp_path / "cut" / "checkpoints").glob("*.ckpt"))[-2:]:
        late.rename(late.with_suffix(".gone"))
    assert run(plan_train([f"resume={tmp_path / 'cut'}"], 1)) == 0
    whole, again = (content(tmp_path / name) for name in ("whole", "cut"))
    assert len(whole["past"]["kept"]) >= 2
    assert str(whole["past"]) == str(again["past"]) and str(whole["policy"]) == str(again["policy"])
    assert whole["past"]["rating"] == again["past"]["rating"] != 0


def content(run_dir: Path) -> dict[str, Any]:
    torch.set_printoptions(precision=17, threshold=10**9)
    return load_file(max((run_dir / "checkpoints").glob("*.ckpt")))


# --- evaluate against= -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        plan = plan_train([*SMALL, f"seed={seed}", "total_env_steps=2e4", f"run_dir={folder / str(seed)}"], 1)
        assert run(plan) == 0
    return folder / "1", folder / "2"


def test_two_runs_play_each_other(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """What one wins the other loses, whoever asks; and by a loop over two Players that plays the same games."""
    points = []
    for one, other in (two_runs, two_runs[::-1]):
        file = tmp_path / "score.json"
        settings = [f"checkpoint={one}", f"against=[{other}]", "episodes=200", "opponents=false", f"json={file}"]
        assert run_evaluation(plan_evaluate(settings)) == 0
        found = json.loads(file.read_text())["opponents"][str(other)]
        assert found["episodes"] == 200, "one agent of each environment"
        points.append(found["means"]["points"])
    assert points[0] + points[1] == pytest.approx(1, abs=0.25), "other games, of the same two"
    assert 0.02 < points[0] < 0.98


def test_mistakes_are_told(two_runs: tuple[Path, Path]) -> None:
    for settings, field in (
        (["env=cartpole", "self_play.past=0.5"], "self_play.past"),
        (["env=connect4", "env.params.opponent=2", "self_play.past=0.5"], "self_play.past"),
        (["env=connect4", "self_play.past=1.5"], "self_play.past"),
        (["env=connect4", "self_play.past=0.5", "self_play.keep=1"], "self_play.keep"),
        (["env=connect4", "self_play.every=7"], "self_play.every"),
        (["env=connect4", "self_play.past=0.5", "overlap=true"], "self_play.past"),
    ):
        with pytest.raises(ConfigError, match=f"^{field}="):
            plan_train([*settings, "device=cpu"], 1)
    for settings, message in (
        (["against=[nowhere]"], "no such run folder"),
        (["env.params.opponent=2", f"against=[{two_runs[1]}]"], "do not play in teams"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_evaluate([f"checkpoint={two_runs[0]}", *settings])

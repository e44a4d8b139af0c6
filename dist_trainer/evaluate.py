"""The verb `evaluate`: plays the first episode of each of N environments with a trained policy."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from dist_trainer.config import EnvConfig
from dist_trainer.distributed import share_of_cores
from dist_trainer.envs import statistics_names
from dist_trainer.errors import ConfigError
from dist_trainer.interval import ratio_interval
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.plan_evaluate import EvaluatePlan
from dist_trainer.plan_trained import opponents
from dist_trainer.player import Player
from dist_trainer.policies import Policy
from dist_trainer.pools import Pool, env_spec, make_pool
from dist_trainer.teams import in_turn
from dist_trainer.trained import choose_device, load_policy


@dataclass
class Score:
    """Over the first episode of every environment, so that short episodes do not count more often than long ones."""

    episodes: int  # finished; with many agents, each agent's episode counts
    unfinished: int  # environments that did not finish within max_steps
    means: dict[str, float]  # episode_return, episode_length and the environment's metrics
    intervals: dict[str, tuple[float, float] | None]  # of each, 95 %, from the spread over environments; None: of one


class Match:
    """Two policies on one pool whose agents play in teams: one of the teams is the first one's, in the next environment
    the next team; all others are the second one's. The statistics are the first one's alone."""

    def __init__(self, one: Player, other: Player):
        pool = one.pool
        self.players, self.pool = (one, other), pool
        self._own = in_turn(1.0, 0, pool.num_envs, pool.spec)  # (N,)
        pool.silent[:] = ~self._own

    def step(self) -> None:
        one, other = (player.choose().actions for player in self.players)  # (N, C)
        own = torch.from_numpy(self._own)[:, None]
        torch.from_numpy(self.pool.actions).copy_(torch.where(own, one, other))
        self.pool.send()
        self.pool.recv()


def first_episodes(player: Player | Match, pool: Pool, max_steps: int) -> NDArray[np.float64]:
    """(E, 3 + metrics): each environment's statistics when the first episode of all its agents had ended, or of those
    who are in the statistics; 0 if it has not within so many steps."""
    first = np.zeros_like(pool.statistics)
    agents = pool.spec.num_agents // (pool.spec.teams if isinstance(player, Match) else 1)
    for _ in range(max_steps):
        player.step()
        just_finished = (first[:, 0] == 0) & (pool.statistics[:, 0] >= agents)
        first[just_finished] = pool.statistics[just_finished]
        if first[:, 0].all():
            break
    return first


def score_of(first: NDArray[np.float64], names: tuple[str, ...]) -> Score:
    finished = first[first[:, 0] > 0]
    results = {name: ratio_interval(finished[:, 1 + i], finished[:, 0]) for i, name in enumerate(names)}
    return Score(
        episodes=int(finished[:, 0].sum()),
        unfinished=len(first) - len(finished),
        means={name: mean for name, (mean, _, _) in results.items()},
        intervals={name: None if math.isnan(low) else (low, high) for name, (_, low, high) in results.items()},
    )


def evaluate(plan: EvaluatePlan) -> tuple[Score, dict[str, Score]]:
    """As the environment is, and against each opponent. One environment for each episode asked for. Raises ConfigError
    if a checkpoint is damaged."""
    config = plan.config
    torch.set_num_threads(config.torch_threads or share_of_cores(1))
    threads = config.env_threads or share_of_cores(1)
    trained, spec, device = plan.trained, env_spec(plan.trained.env), choose_device(config.device)
    learned = load_policy(trained, spec, plan.checkpoint, device)

    def play(env: EnvConfig, other: tuple[Policy, ObservationNormalizer] | None = None) -> Score:
        pool = make_pool(env, num_envs=config.episodes, first_env=0, seed=config.seed, threads=threads)
        pool.reset()
        own = Player(*learned, pool, greedy=config.greedy)
        player = Match(own, Player(*other, pool, greedy=config.greedy)) if other else own
        first = first_episodes(player, pool, config.max_steps)
        for fault in pool.take_faults():
            print(fault, file=sys.stderr)
        return score_of(first, statistics_names(pool.spec))

    scripts = opponents(trained.env) if config.opponents else {}
    against = {name: play(env) for name, env in scripts.items()}
    for name, rival in plan.rivals.items():
        against[name] = play(trained.env, load_policy(rival.trained, spec, rival.checkpoint, device))
    return play(trained.env), against


def with_interval(score: Score, name: str) -> str:
    interval = score.intervals[name]
    return f"{score.means[name]:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")


def table_of(against: dict[str, Score]) -> Table:
    """A column for each opponent: there are more metrics than opponents."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("against")
    for opponent in against:
        made.add_column(opponent, justify="right", overflow="fold")
    for name in next(iter(against.values())).means:
        made.add_row(name, *(plus_minus(score, name) for score in against.values()))
    return made


def plus_minus(score: Score, name: str) -> str:
    interval = score.intervals[name]
    reach = f" +- {(interval[1] - interval[0]) / 2:.2g}" if interval else ""
    return f"{score.means[name]:.3g}{reach}"


def _without_nan(content: Any) -> Any:
    """JSON has null for a mean of nothing."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and math.isnan(content) else content


def run(plan: EvaluatePlan) -> int:
    """Prints the score. Exit status 1 if it is below what is required, or if there is none. Raises ConfigError."""
    config, trained, checkpoint = plan.config, plan.trained, plan.checkpoint
    score, against = evaluate(plan)
    if config.json:
        content = asdict(score) | {"opponents": {name: asdict(other) for name, other in against.items()}}
        try:
            Path(config.json).write_text(json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigError("json", config.json, f"cannot be written: {error.strerror}") from None
    mean = score.means["episode_return"]
    how = "most likely actions" if config.greedy else "sampled actions"
    print(f"{trained.env.name}: {score.episodes} episodes of {checkpoint}, {how}; means and 95 % intervals")
    for name in score.means:
        print(f"  {name} {with_interval(score, name)}")
    if score.unfinished:
        print(f"  {score.unfinished} environments did not finish within max_steps={config.max_steps} and are left out")
    if against:
        Console().print(table_of(against))
    if not score.episodes:
        print(f"  not one environment finished within max_steps={config.max_steps}")
    required = config.require_mean_return
    if required is not None and score.unfinished:
        print(f"  the required mean return of {required:g} counts only if every environment finishes")
        return 1
    if required is not None and not mean >= required:
        print(f"  below the required mean return of {required:g}")
        return 1
    return 0 if score.episodes else 1

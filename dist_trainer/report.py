"""Turns what the learners measured into TensorBoard points and the progress line. Only the first learner writes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from dist_trainer import replay, stopwatch, tensorboard_page
from dist_trainer.config import TrainConfig
from dist_trainer.console import Progress
from dist_trainer.envs import statistics_names
from dist_trainer.keyed import keyed_seed
from dist_trainer.learner import Learner
from dist_trainer.metrics import EpisodeWindow, EventWriter
from dist_trainer.phase_times import PhaseTimes, own_rows
from dist_trainer.ppo import LOSS_SUMS, RETURN_SUMS, explained_variance
from dist_trainer.run_folder import TENSORBOARD_FOLDER
from dist_trainer.system_facts import system_facts
from dist_trainer.teams import past_envs
from dist_trainer.update import Update

MOST_FAULTS_SHOWN = 5  # of an iteration, by each learner
LEAST_BEFORE_LAST_S = 10.0  # since the last replay, or the start: then there is one at the end


@dataclass(frozen=True)
class Totals:
    """Of all learners, for one iteration."""

    losses: list[float]  # LOSS_SUMS
    returns: list[float]  # return_sums
    episodes: list[float]  # statistics of the pools
    restarts: float  # of worker processes
    against_past: tuple[float, float]  # games that ended, and points in them; see past_policies.py
    times: PhaseTimes
    wishes: list[float]


def add_up(learner: Learner, update: Update, wishes: list[float], iteration_seconds: float) -> Totals:
    """One all-reduce. `iteration_seconds`: since the last one."""
    world, faults = learner.world, learner.pool.take_faults()
    each = learner.pool.take_statistics()  # (E/W, 3 + metrics)
    statistics = np.add.accumulate(each)[-1].tolist()  # one after another: however the environments are cut over pools
    against_past = games_against_past(learner, each)
    times = own_rows(stopwatch.take(), iteration_seconds, world.rank, world.size)
    numbers = [*statistics, len(faults), *against_past, *wishes, *times]
    own = torch.tensor(numbers, dtype=torch.float64, device=world.device)
    total = iter(world.sum_(torch.cat([update.sums, own])).tolist())
    losses, returns, episodes = ([*islice(total, n)] for n in (len(LOSS_SUMS), RETURN_SUMS, len(statistics)))
    if restarts := next(total):  # of all: all take part in the gathering
        show_faults(world.gather_values(faults) or [])
    return Totals(
        *(losses, returns, episodes, restarts, (next(total), next(total))),
        wishes=[*islice(total, len(wishes))],
        times=PhaseTimes.of([*total]),
    )


def games_against_past(learner: Learner, each: NDArray[np.float64]) -> tuple[float, float]:
    """Of this learner's environments (E/W, 3 + metrics): games that ended where a past policy plays, and the points in
    them, which are the environment's first metric. As an agent's: of a team of five each has its own."""
    if not learner.past:
        return 0.0, 0.0
    first = learner.world.rank * learner.pool.num_envs
    its = each[past_envs(learner.config.self_play.past, first, learner.pool.num_envs)]
    return float(its[:, 0].sum()), float(its[:, 3].sum())


def show_faults(of_learners: list[list[str]]) -> None:
    """Warnings with all that it takes to find a fault again. The first learner tells them all: on a terminal it draws,
    and what others write there would be drawn over."""
    for rank, faults in enumerate(of_learners):
        more = len(faults) - MOST_FAULTS_SHOWN
        rest = [f"{more} more worker processes were lost in this iteration"] if more > 0 else []
        for line in faults[:MOST_FAULTS_SHOWN] + rest:
            print(f"learner {rank}: {line}", file=sys.stderr, flush=True)


def title_of(learner: Learner, run_dir: Path) -> str:
    config = learner.config
    names = [str(group["_target_"]).rpartition(".")[2] for group in (config.policy, config.optimizer)]
    return "  ".join([config.env.name, *names, f"{learner.world.size} on {learner.world.device.type}", str(run_dir)])


class Report:
    """Use as a context. `saved`: what state() returned when the checkpoint that is resumed was written."""

    def __init__(self, learner: Learner, run_dir: Path, saved: dict[str, Any] | None):
        config, self.run_dir = learner.config, run_dir
        self.names = statistics_names(learner.pool.spec)
        self.window = EpisodeWindow()
        self.window.sums.extend(saved["window"] if saved else [])
        self.seconds_before: float = saved["seconds"] if saved else 0.0
        self.started = self.iteration_started = time.perf_counter()
        self.progress = Progress(learner.world.is_first, title_of(learner, run_dir), config.total_env_steps)
        self.events: EventWriter | None = None
        self.in_trouble = False  # events wait for a disk that is full
        self.replayed_at = self.started
        self.can_replay = learner.pool.spec.picture is not None
        if learner.world.is_first:
            self.events = EventWriter(run_dir / TENSORBOARD_FOLDER, saved["event_sizes"] if saved else None)
            if saved is None:
                yaml = OmegaConf.to_yaml(OmegaConf.structured(config))
                self.events.text("config", "```yaml\n" + yaml + "```")
                self.events.add(tensorboard_page.layout(self.names, learner.world.size), 0)
                results = [*(f"env/{name}" for name in self.names), "perf/env_steps_per_second", "charts/seconds"]
                for summary in tensorboard_page.session_start(config, learner.world.size, results):
                    self.events.add(summary, 0)
            how = "resumes" if saved else "starts"
            self.progress.say(
                f"{config.env.name} {how} at {learner.env_steps:,} of {config.total_env_steps:,.0f} steps; "
                f"{learner.world.size} learner(s) on {learner.world.device.type}; {run_dir}"
            )

    def __enter__(self) -> Report:
        self.progress.__enter__()
        self.iteration_started = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.__exit__(*exception)
        if self.events:
            self.events.close()

    @property
    def seconds(self) -> float:
        """Time spent training, over all resumes."""
        return self.seconds_before + time.perf_counter() - self.started

    def lap(self) -> float:
        """Seconds since the last one: of an iteration."""
        now = time.perf_counter()
        elapsed, self.iteration_started = now - self.iteration_started, now
        return elapsed

    def iteration(self, learner: Learner, update: Update, totals: Totals, facts: Mapping[str, float]) -> None:
        """Reports one iteration; `facts`, by tag, are from elsewhere."""
        losses, episodes = totals.losses, totals.episodes
        self.window.add(episodes)
        if not self.events:
            return
        samples = losses[-1]
        config, means = learner.config, self.window.means(self.names)
        values = {f"env/{name}": value for name, value in means.items()}
        values["env/episodes"] = episodes[0]
        if learner.config.env.workers == "processes":
            values["env/worker_restarts"] = totals.restarts
        values |= {f"losses/{name}": total / samples for name, total in zip(LOSS_SUMS[:-1], losses, strict=False)}
        values["losses/explained_variance"] = explained_variance(totals.returns)
        values["optimizer/learning_rate"] = update.lr
        values["optimizer/grad_norm"] = update.grad_norm
        values["optimizer/clipped_steps"] = update.clipped_steps
        values["optimizer/undone_updates"] = float(update.undone)
        if config.adaptive_rate.target_kl is not None:
            values["optimizer/rate_factor"] = update.rate_factor
        if update.estimated_d is not None:
            values["optimizer/estimated_d"] = update.estimated_d
        values["perf/env_steps_per_second"] = update.env_steps / totals.times.iteration
        values |= totals.times.facts()
        values |= facts
        values["charts/iteration"] = learner.iteration
        values["charts/seconds"] = self.seconds
        if config.env.view.seconds_per_step:
            years = tensorboard_page.years_of_play(learner.env_steps, config.env.view.seconds_per_step)
            values["charts/years_of_play"] = years
        values |= system_facts(learner.world.device)
        last = learner.finished
        points = values if learner.iteration % config.log_every == 0 or last else {}
        points = points | {f"diagnostics/{name}": value for name, value in update.diagnostics.items()}
        if points:
            self.events.write(points, learner.env_steps)
            self._tell_trouble(self.events)
        if config.histograms_every and (last or learner.iteration % config.histograms_every == 0):
            for summary in tensorboard_page.histograms(learner.policy):
                self.events.add(summary, learner.env_steps)
        if self._replay_is_due(config, last):
            self._replay(learner, self.events)
        if last:
            self.events.add(tensorboard_page.session_end(), learner.env_steps)
        if update.undone:
            self.progress.say(f"iteration {learner.iteration}: an update was undone: not finite, or too large a weight")
        self.progress.update(learner.env_steps, self.seconds, values, totals.times, last)

    def _replay_is_due(self, config: TrainConfig, last: bool) -> bool:
        since = time.perf_counter() - self.replayed_at
        wait = min(60 * config.replay_minutes, LEAST_BEFORE_LAST_S) if last else 60 * config.replay_minutes
        return self.can_replay and config.replay_minutes > 0 and since >= wait

    def _replay(self, learner: Learner, events: EventWriter) -> None:
        """A game of the present policy, which no training depends on."""
        config = learner.config
        try:
            pictures = replay.play(
                config.env,
                *(learner.policy, learner.observations),
                seed=keyed_seed(config.seed, "replay", learner.iteration),
                steps=config.replay_steps,
            )
        except (RuntimeError, ValueError) as error:
            self.can_replay = False
            self.progress.say(f"WARNING: no replays any more: {error}; the run goes on")
            return
        speed = config.env.view.steps_per_second
        events.add(tensorboard_page.moving_picture("replay", pictures, speed), learner.env_steps)
        self.replayed_at = time.perf_counter()

    def _tell_trouble(self, events: EventWriter) -> None:
        """That TensorBoard's files cannot be written, and that they can be again; once each."""
        if events.trouble and not self.in_trouble:
            self.progress.say(f"WARNING: TensorBoard events wait: {events.trouble}; the run goes on")
        elif self.in_trouble and not events.trouble:
            self.progress.say(f"TensorBoard events are written again; {events.lost} points were lost")
            events.lost = 0
        self.in_trouble = events.trouble is not None

    @property
    def score(self) -> float | None:
        """The run's: mean return of recent episodes. None before any has ended, or if it is not finite."""
        score = self.window.means(self.names).get("episode_return")
        return score if score is not None and math.isfinite(score) else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs so that the curves go on where they were."""
        return {
            "event_sizes": self.events.flush() if self.events else {},
            "window": [list(entry) for entry in self.window.sums],
            "seconds": self.seconds,
        }

    def finish(self, learner: Learner) -> None:
        """The last words on the terminal."""
        means = "  ".join(f"{name} {value:.4g}" for name, value in self.window.means(self.names).items())
        what = "done" if learner.finished else f"stopped; continue with resume={self.run_dir}"
        self.progress.say(f"{what}: {learner.env_steps:,} steps in {self.seconds:.0f} s  {means}")

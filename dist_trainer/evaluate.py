"""The verb `evaluate`: plays the first episode of each of N environments with a trained policy."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from dist_trainer.config import EvaluateConfig, TrainConfig
from dist_trainer.distributed import share_of_cores
from dist_trainer.envs import statistics_names
from dist_trainer.player import Player
from dist_trainer.pools import make_pool
from dist_trainer.trained import choose_device, load_policy


@dataclass
class Score:
    """Over the first episode of every environment, so that short episodes do not count more often than long ones."""

    episodes: int  # finished; with many agents, each agent's episode counts
    unfinished: int  # environments that did not finish within max_steps
    means: dict[str, float]  # episode_return, episode_length and the environment's metrics
    return_standard_error: float  # from the spread over environments


def evaluate(config: EvaluateConfig, trained: TrainConfig, checkpoint: Path) -> Score:
    """One environment for each episode asked for. Raises ConfigError if the checkpoint is damaged."""
    torch.set_num_threads(config.torch_threads or share_of_cores(1))
    threads = config.env_threads or share_of_cores(1)
    pool = make_pool(trained.env, num_envs=config.episodes, first_env=0, seed=config.seed, threads=threads)
    pool.reset()
    device = choose_device(config.device)
    player = Player(*load_policy(trained, pool.spec, checkpoint, device), pool, greedy=config.greedy)

    first = np.zeros_like(pool.statistics)  # (episodes, 3 + metrics): each environment's, when its first episode ended
    for _ in range(config.max_steps):
        player.step()
        just_finished = (first[:, 0] == 0) & (pool.statistics[:, 0] >= pool.spec.num_agents)
        first[just_finished] = pool.statistics[just_finished]
        if first[:, 0].all():
            break
    for fault in pool.take_faults():
        print(fault, file=sys.stderr)
    finished = first[first[:, 0] > 0]
    means = finished[:, 1:].sum(0) / max(1.0, finished[:, 0].sum())
    returns = finished[:, 1] / np.maximum(1, finished[:, 0])
    spread = float(returns.std(ddof=1)) if len(returns) > 1 else math.nan
    return Score(
        episodes=int(finished[:, 0].sum()),
        unfinished=config.episodes - len(finished),
        means=dict(zip(statistics_names(pool.spec), means.tolist(), strict=True)),
        return_standard_error=spread / math.sqrt(max(1, len(returns))),
    )


def run(config: EvaluateConfig, trained: TrainConfig, checkpoint: Path) -> int:
    """Prints the score. Exit status 1 if it is below what is required."""
    score = evaluate(config, trained, checkpoint)
    mean = score.means["episode_return"]
    how = "most likely actions" if config.greedy else "sampled actions"
    print(f"{trained.env.name}: {score.episodes} episodes of {checkpoint}, {how}")
    print(f"  episode_return {mean:.4g} +- {1.96 * score.return_standard_error:.2g} (95 %)")
    for name, value in list(score.means.items())[1:]:
        print(f"  {name} {value:.4g}")
    if score.unfinished:
        print(f"  {score.unfinished} environments did not finish within max_steps={config.max_steps} and are left out")
    if config.json:
        Path(config.json).write_text(json.dumps(asdict(score), indent=2) + "\n")
    required = config.require_mean_return
    if required is not None and score.unfinished:
        print(f"  the required mean return of {required:g} counts only if every environment finishes")
        return 1
    if required is not None and not mean >= required:
        print(f"  below the required mean return of {required:g}")
        return 1
    return 0

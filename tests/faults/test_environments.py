"""Training while environments crash, hang and show no number: it reaches its score, and says what was lost.

`python -m tests.faults.environments` measures the speed as well.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.cli import compose_train
from dist_trainer.config import EnvConfig, TrainConfig
from dist_trainer.distributed import World
from dist_trainer.trainer import train as train_here
from tests.faults.environments import SOLVED, train
from tests.test_update import differences

ALONE = World(0, 1, 0, 1, torch.device("cpu"))
SIZES = ["total_envs=32", "horizon=16", "ppo.minibatches=4", "policy.hidden_size=16", "torch_threads=1"]
SIZE = 32 * 16


def test_the_score_is_reached(tmp_path: Path) -> None:
    faults = {"segfault": 2e-5, "hang": 1e-6, "exception": 1e-5, "nan": 1e-5}
    settings = [f"env.params.{name}={rate}" for name, rate in faults.items()]
    sizes = ["total_env_steps=5e5", "total_envs=512", "horizon=64", "ppo.minibatches=8"]
    result = train(tmp_path / "run", "env.step_timeout_s=0.2", "env_threads=2", "torch_threads=1", *sizes, *settings)
    assert result.mean_return >= SOLVED
    assert 5 <= len(result.complaints) == result.restarts  # never more than five in an iteration of 32,768 steps
    where = r"\(seed 1, step \d+, step \d+ of its episode\)"
    for complaint in result.complaints:
        assert re.fullmatch(rf"learner 0: environment \d+ of probe_faults: .+ {where}", complaint)


def config_of(env: EnvConfig, iterations: int, *settings: str) -> TrainConfig:
    steps = [f"total_env_steps={iterations * SIZE}", "schedule.kind=constant", "device=cpu"]
    config, _ = compose_train(["env=cartpole", *SIZES, *steps, *settings])
    return dataclasses.replace(config, env=env)


@pytest.mark.parametrize("params", [{}, {"segfault": 2e-3, "nan": 2e-3}], ids=["sound", "faulty"])
def test_threads_and_processes_train_and_resume_to_the_same_bits(tmp_path: Path, params: dict[str, float]) -> None:
    """Sound environments train alike in threads and processes; faulty ones in any number of processes. Resumed with the
    other kind or number, too, and with two groups of environments."""
    env = EnvConfig("probe_faults", params=dict(params), workers="processes")
    other = env if params else dataclasses.replace(env, workers="threads")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_here(config_of(other, 4, "env_threads=3"), ALONE, whole, None)
    train_here(config_of(env, 2, "env_threads=1"), ALONE, cut, None)
    resumed = config_of(env, 4, "env_threads=2", "env_groups=2")
    train_here(resumed, ALONE, cut, checkpoint_path(cut, 2))
    one, two = (load_file(checkpoint_path(folder, 4)) for folder in (whole, cut))
    kept = [key for key in one if key != "extra"]
    assert not differences({key: one[key] for key in kept}, {key: two[key] for key in kept})
    assert one["extra"]["window"] == two["extra"]["window"]

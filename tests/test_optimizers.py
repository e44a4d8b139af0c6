"""Every file of configs/optimizer on 2 and 4 learners: the same bits everywhere at every step, and after a resume."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.config_files import config_dir
from dist_trainer.distributed import World
from dist_trainer.trainer import train
from tests.learners import Learners, learners_of_sizes

FILES = sorted((config_dir() / "optimizer").glob("*.yaml"))
MINIBATCHES, ITERATIONS, RESUMED_AFTER = 5, 10, 5
STEPS = MINIBATCHES * ITERATIONS
SETTINGS = [
    *("device=cpu", "torch_threads=1", "env_threads=1", "env=cartpole", "env.params.max_steps=20"),
    *("policy=lstm", "policy.hidden_size=8", "total_envs=20", "horizon=8", f"ppo.minibatches={MINIBATCHES}"),
    *("normalize.warmup_steps=4", f"total_env_steps={ITERATIONS * 20 * 8}", "log_every=100"),
    *(f"checkpoint_every={RESUMED_AFTER}", "keep_checkpoints=100", "check_every=1", "diagnostics_every=3"),
]
# Whatever else is remembered from step to step; bfloat16 is rounded at random.
EVERYTHING_ON = {
    "storage_dtype": "bfloat16",
    "q_dtype": "bfloat16",
    "mars": "true",
    "caution": "true",
    "rate_estimate": "prodigy",
    "precond_grad_accum": "true",
    "preconditioner_update_probability.initial": "0.7",
    "newton_every": "3",
}


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes([2, 4]) as by_size:
        yield by_size


def settings_of(path: Path, everything_on: bool) -> list[str]:
    known = yaml.safe_load(path.read_text())
    on = {key: value for key, value in EVERYTHING_ON.items() if key.split(".")[0] in known}
    if path.stem in ("psgd_pro", "qsgd"):
        del on["precond_grad_accum"]  # refused with moments in bfloat16
    return [f"optimizer={path.stem}", *(f"optimizer.{key}={value}" for key, value in on.items() if everything_on)]


def digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digests_of_run(world: World, config: TrainConfig, run_dir: Path, resume_from: Path | None) -> list[str]:
    """Trains; one digest of all weights and optimizer states after every optimizer step of this learner's."""
    digests: list[str] = []
    step = optimizers.step

    def watched_step(optimizer: optimizers.Optimizer, *args: Any, **kwargs: Any) -> None:
        step(optimizer, *args, **kwargs)
        weights = {f"{unit.name}/{i}": w for unit in optimizer.units for i, w in enumerate(unit.weights)}
        digests.append(digest(optimizers.named_tensors(optimizer) | weights))

    with mock.patch.object(optimizers, "step", watched_step):
        train(config, world, run_dir, resume_from)
    return digests


@pytest.mark.parametrize("everything_on", [False, True], ids=["defaults", "bfloat16-and-all-on"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_learners_agree_at_every_step_and_resume_exactly(
    worlds: dict[int, Learners], tmp_path: Path, path: Path, size: int, everything_on: bool
) -> None:
    """50 steps of the real trainer on learners whose generators differ; then its second half once more."""
    config = compose_train([*SETTINGS, *settings_of(path, everything_on), f"run_dir={tmp_path / 'whole'}"])[0]
    first, *others = worlds[size].run(digests_of_run, config, tmp_path / "whole", None)
    assert len(first) == STEPS
    assert len(set(first)) == STEPS
    assert all(other == first for other in others)

    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    checkpoint = checkpoint_path(tmp_path / "resumed", RESUMED_AFTER)
    assert checkpoint.is_dir()
    resumed = worlds[size].run(digests_of_run, config, tmp_path / "resumed", checkpoint)
    assert all(digests == first[RESUMED_AFTER * MINIBATCHES :] for digests in resumed)


def test_files_are_found() -> None:
    assert {"adamw", "muon", "psgd_kron", "newton_psgd", "soap", "sf_adamw"} <= {path.stem for path in FILES}

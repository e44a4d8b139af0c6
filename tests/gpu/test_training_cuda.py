"""Training on GPUs. On the CPU: tests/test_resume.py, test_precision.py, test_world_size.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dist_trainer import update
from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import checkpoint_path
from tests.gpu.device import CARTPOLE, DEVICE, SIZES, learner_for, needs_gpu, relative_error
from tests.test_resume import assert_same_bits, state

pytestmark = needs_gpu
ITERATIONS = 6
ENVIRONMENTS = {
    "cartpole": CARTPOLE,
    "breakout": ("env=breakout",),
    "tmaze": ("env=tmaze", "env.params.corridor=5"),
    "probe_image": ("env=probe_image",),
    "probe_continuous": ("env=probe_continuous",),
}
# cuBLAS gives the same bits in every run if its workspace is fixed; cuDNN's LSTM uses cuBLAS.
REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def train(*settings: str, learners: int = 1) -> None:
    """A `train` command to its end."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={learners}"] if learners > 1 else []
    command = [sys.executable, *launcher, "-m", "dist_trainer", "train", *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | REPEATABLE)
    assert done.returncode == 0, done.stdout + done.stderr


def train_anew(run_dir: Path, *settings: str, learners: int = 1) -> dict[str, Any]:
    """Its last checkpoint."""
    steps = f"total_env_steps={ITERATIONS * 24 * 64}"
    often = [f"device={DEVICE.type}", f"run_dir={run_dir}", "checkpoint_every=1", "keep_checkpoints=99", steps]
    train(*SIZES, *CARTPOLE, *often, *settings, learners=learners)
    return final(run_dir)


def final(run_dir: Path) -> dict[str, Any]:
    return load_file(checkpoint_path(run_dir, ITERATIONS))


def assert_near(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    for name, weight in theirs["policy"].items():
        assert weight.isfinite().all(), name
        assert relative_error(ours["policy"][name], weight) < tolerance, name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(optimizer: str, tmp_path: Path) -> None:
    """Bit for bit, if two uninterrupted runs do: some kernels may add up in an order of their own."""
    whole, again = (train_anew(tmp_path / name, f"optimizer={optimizer}") for name in ("whole", "again"))
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    train(f"resume={checkpoint_path(cut, ITERATIONS // 2)}")
    resumed = final(cut)
    assert_near(resumed, whole, 0.05)
    try:
        assert_same_bits(state(again), state(whole))
    except AssertionError as difference:
        pytest.skip(f"two uninterrupted runs differ: {difference}")
    assert_same_bits(state(resumed), state(whole))


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_weight_is_trained(env: str, precision: str) -> None:
    """For three iterations, from episodes of every kind; and stays finite."""
    learner = learner_for(f"precision={precision}", env=ENVIRONMENTS[env])
    before = {name: weight.clone() for name, weight in learner.policy.named_parameters()}
    for _ in range(3):
        assert not update.learn(learner, learner.collector.collect()).undone
        learner.iteration += 1
    for name, weight in learner.policy.named_parameters():
        assert weight.is_cuda
        assert weight.isfinite().all(), name
        assert not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap"])
def test_matrix_optimizers_train(optimizer: str) -> None:
    learner = learner_for(f"optimizer={optimizer}")
    for _ in range(3):
        assert not update.learn(learner, learner.collector.collect()).undone
        learner.iteration += 1


@pytest.mark.parametrize("learners", [2, 4, 8])
def test_learners_on_several_gpus_train_the_run_of_one(learners: int, tmp_path: Path) -> None:
    """Over NCCL; the trainer itself compares the learners' weights, bit for bit, before each checkpoint."""
    if learners > torch.cuda.device_count():
        pytest.skip(f"there are not {learners} GPUs")
    settings = ["optimizer=adamw", "check_every=1"]
    alone = train_anew(tmp_path / "alone", *settings)
    assert_near(train_anew(tmp_path / "together", *settings, learners=learners), alone, 0.05)
    sharded = ["optimizer=psgd_kron", "optimizer.sync=sharded", "check_every=1"]
    train_anew(tmp_path / "sharded", *sharded, learners=learners)


def test_one_learner_under_torchrun(tmp_path: Path) -> None:
    """As the launcher's environment variables say: on the first GPU."""
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "dist_trainer", "train"]
    settings = [*SIZES, *CARTPOLE, f"device={DEVICE.type}", f"run_dir={tmp_path / 'run'}", "total_env_steps=3072"]
    done = subprocess.run([sys.executable, *launched, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkpoint_path(tmp_path / "run", 2).exists()

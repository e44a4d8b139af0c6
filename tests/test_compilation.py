"""Compiled optimizers: the same on every learner, close to the ones that are not compiled, off where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from heavyball import utils
from torch import Tensor

from dist_trainer import learner as learner_module
from dist_trainer import optimizers
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.learner import make_learner
from dist_trainer.optimizers.compilation import missing_for_compilation, set_compilation
from tests.learners import Learners

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
SIZES = ["total_envs=8", "horizon=8", "ppo.minibatches=4", "policy.hidden_size=8", "policy=mlp"]


def config_for(*settings: str) -> TrainConfig:
    return compose_train(["device=cpu", "torch_threads=1", "env_threads=1", "optimizer=adamw", *SIZES, *settings])[0]


def steps(world: World, config: TrainConfig, cache: str) -> tuple[Tensor, bool]:
    """The flat weights after three steps on made-up gradients, and whether they were compiled."""
    torch.manual_seed(world.rank)
    with mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        learner = make_learner(config, world)
        compiled = utils.compile_mode is not None
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            gradient = torch.randn(learner.gradients.flat.shape, generator=generator)
            optimizers.step(learner.optimizer, gradient, lr=0.01, seed=1, optimizer_step=step)
    weights = torch.cat([p.detach().flatten() for p in learner.policy.parameters()])
    set_compilation(False)
    return weights, compiled


def test_compiled_steps_are_the_same_on_all_learners(tmp_path: Path) -> None:
    """Bit for bit, and those of the eager optimizer to rounding. The learners share what was compiled."""
    if missing := missing_for_compilation(CPU):
        pytest.skip(missing)
    eager, compiled = steps(ALONE, config_for(), str(tmp_path))
    assert not compiled
    learners = Learners(2)
    try:
        results = learners.run_within(300, steps, config_for("compile_optimizer=true"), str(tmp_path))
    finally:
        learners.close()
    assert [compiled for _, compiled in results] == [True, True]
    assert list(tmp_path.rglob("*.so"))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][0], eager, rtol=1e-5, atol=1e-6)


def test_no_mode_that_times_kernels() -> None:
    set_compilation(True)
    assert utils.compile_mode == "default"
    set_compilation(False)
    assert utils.compile_mode is None


def test_without_a_compiler_it_is_off_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler g++" in (missing_for_compilation(CPU) or "")
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    assert "no C++ compiler /nonexistent/g++" in (missing_for_compilation(CPU) or "")
    with pytest.warns(UserWarning, match=r"compile_optimizer is off: there is no C\+\+ compiler .*learner 0"):
        make_learner(config_for("compile_optimizer=true"), ALONE)
    assert utils.compile_mode is None


def one_cannot(world: World, config: TrainConfig) -> bool:
    missing = "there is no C++ compiler" if world.rank == 1 else None
    with mock.patch.object(learner_module, "missing_for_compilation", return_value=missing):
        make_learner(config, world)
    return utils.compile_mode is not None


def test_if_one_learner_cannot_compile_none_does() -> None:
    learners = Learners(2)
    try:
        assert learners.run(one_cannot, config_for("compile_optimizer=true")) == [False, False]
    finally:
        learners.close()

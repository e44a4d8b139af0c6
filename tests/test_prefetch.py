"""Observations kept in main memory: minibatches and whole updates are the same bits. With a GPU:
tests/gpu/test_prefetch_cuda.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dist_trainer import prefetch
from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer
from dist_trainer.prefetch import Prefetcher
from dist_trainer.update import learn
from dist_trainer.validation import validate_train

CPU = torch.device("cpu")
SETTINGS = [
    *("total_envs=12", "horizon=9", "ppo.minibatches=3", "policy.hidden_size=16", "normalize.warmup_steps=5"),
    *("torch_threads=1", "env_threads=1", "device=cpu", "diagnostics_every=0"),
]
ENVS = {"cartpole": "env.params.max_steps=7", "probe_image": "env.params.episode_steps=4"}


def make_observations(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return (256 * torch.rand(shape, generator=torch.Generator().manual_seed(1))).to(dtype)


def parts_of(sizes: list[int], rows: int) -> Iterator[Tensor]:
    for seed, size in enumerate(sizes):
        yield torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:size]


@pytest.mark.parametrize(("shape", "dtype"), [((5, 20, 3, 2), torch.uint8), ((7, 20, 4), torch.float32)], ids=str)
@pytest.mark.parametrize("sizes", [[4], [4, 4, 4, 4, 4], [3, 7, 20, 1, 6, 5]])
def test_announced_rows_are_those_asked_for(shape: tuple[int, ...], dtype: torch.dtype, sizes: list[int]) -> None:
    observations, read = make_observations(shape, dtype), Prefetcher(CPU)
    for _ in range(2):
        parts = list(parts_of(sizes, 20))
        read.expect(observations, parts)
        for part in parts:
            assert torch.equal(read(observations, part), observations[:, part])


def test_rows_that_were_not_announced_are_read_too() -> None:
    """And those that were are still there afterwards."""
    observations, other = (make_observations((5, 20, 3), dtype) for dtype in (torch.float32, torch.uint8))
    first, second, third = parts_of([4, 4, 6], 20)
    read = Prefetcher(CPU)
    assert torch.equal(read(observations, first), observations[:, first])
    read.expect(observations, [first, second])
    assert torch.equal(read(observations, third), observations[:, third])
    assert torch.equal(read(other, first), other[:, first])
    assert torch.equal(read(observations, first), observations[:, first])
    assert torch.equal(read(observations, third), observations[:, third])
    assert torch.equal(read(observations, second), observations[:, second])
    assert torch.equal(read(observations, second), observations[:, second])


def test_the_next_rows_are_read_while_the_present_ones_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    observations, read = make_observations((5, 20, 3), torch.float32), Prefetcher(CPU)
    parts = list(parts_of([4, 4, 4], 20))
    begun = [threading.Event() for _ in parts]
    room = prefetch.Staging.room
    calls = iter(begun)

    def noted(staging: prefetch.Staging, shape: tuple[int, ...], dtype: torch.dtype, page_locked: bool) -> Tensor:
        assert threading.current_thread() is not threading.main_thread()
        next(calls).set()
        return room(staging, shape, dtype, page_locked)

    monkeypatch.setattr(prefetch.Staging, "room", noted)
    read.expect(observations, parts)
    for index, part in enumerate(parts):
        present = read(observations, part)
        for event in begun[: index + 2]:
            assert event.wait(timeout=10)
        assert torch.equal(present, observations[:, part])
        assert not any(event.is_set() for event in begun[index + 2 :])


def learned(env: str, memory: str, *overrides: str) -> dict[str, Tensor]:
    """Weights and statistics after two updates."""
    settings = [*SETTINGS, f"env={env}", ENVS[env], f"rollout_memory={memory}", *overrides]
    learner: Learner = make_learner(compose_train(settings)[0], connect("cpu", 60))
    warm_up_normalizer(learner)
    for _ in range(2):
        assert not learn(learner, learner.collector.collect()).undone
        learner.iteration += 1
    return {**learner.policy.state_dict(), **learner.observations.state_dict()}


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize(
    "overrides",
    [
        ["ppo.micro_batches=2", "ppo.update_epochs=2"],
        ["ppo.advantage=vtrace", "ppo.update_epochs=2"],
        ["optimizer=newton_psgd", "optimizer.newton_every=1", "optimizer.newton_sub_batch=2"],
    ],
    ids=str,
)
def test_an_update_is_the_same_to_the_bit(env: str, overrides: list[str]) -> None:
    on_device, on_host = (learned(env, memory, *overrides) for memory in ("device", "host"))
    for name, tensor in on_device.items():
        assert torch.equal(on_host[name], tensor), name


def test_other_places_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout_memory=disk: valid: device, host"):
        validate_train(compose_train([*SETTINGS, "env=cartpole", "rollout_memory=disk"])[0], 1)

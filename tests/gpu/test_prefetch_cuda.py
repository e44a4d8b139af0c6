"""Observations kept in main memory, learned on a GPU: what is learned is the same, and nothing waits. On
the CPU: tests/test_prefetch.py."""

from __future__ import annotations

import pytest
import torch

from dist_trainer.prefetch import Prefetcher
from dist_trainer.update import learn
from tests.gpu.device import CARTPOLE, DEVICE, learner_for, needs_gpu

pytestmark = needs_gpu
IMAGE = ("env=probe_image", "env.params.episode_steps=5")


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_announced_rows_arrive(dtype: torch.dtype) -> None:
    """Many more than there are buffers, while the device is busy: none is overwritten before it has been read."""
    generator = torch.Generator().manual_seed(1)
    observations = (256 * torch.rand((32, 256, 500), generator=generator)).to(dtype)
    parts = list(torch.stack([torch.randperm(256, generator=generator) for _ in range(8)]).flatten().split(64))
    read, busy = Prefetcher(DEVICE), torch.randn(2000, 2000, device=DEVICE)
    kept = []
    read.expect(observations, parts)
    for part in parts:
        taken = read(observations, part)
        assert taken.is_cuda
        for _ in range(5):
            busy = busy @ busy / busy.norm()
        kept.append(taken.clone())
    for part, taken in zip(parts, kept, strict=True):
        assert torch.equal(taken.cpu(), observations[:, part])


@pytest.mark.parametrize("env", [CARTPOLE, IMAGE], ids=str)
def test_an_update_is_the_same(env: tuple[str, ...]) -> None:
    settings = ["ppo.micro_batches=2", "ppo.update_epochs=2"]
    on_device, on_host = (learner_for(*settings, f"rollout_memory={memory}", env=env) for memory in ("device", "host"))
    for _ in range(2):
        rollouts = [learner.collector.collect() for learner in (on_device, on_host)]
        assert rollouts[0].observations.is_cuda and not rollouts[1].observations.is_cuda
        assert torch.equal(rollouts[0].observations.cpu(), rollouts[1].observations)
        for learner, rollout in zip((on_device, on_host), rollouts, strict=True):
            assert not learn(learner, rollout).undone
            learner.iteration += 1
        for name, tensor in on_device.policy.state_dict().items():
            torch.testing.assert_close(on_host.policy.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_collecting_into_main_memory_waits_for_nothing_but_actions() -> None:
    learner = learner_for("rollout_memory=host", env=IMAGE)
    learner.collector.collect()
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.collector.collect()  # the wait for an event is none of those that torch counts
    finally:
        torch.cuda.set_sync_debug_mode("default")

"""Acting on a GPU: recorded steps are the plain ones, nothing waits but for the actions, and a rollout is that of the
CPU. On the CPU: tests/test_acting.py, test_env_groups.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from dist_trainer import device_link
from dist_trainer.cli import compose_train
from dist_trainer.device_link import DeviceLink
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner
from dist_trainer.rollout import Rollout
from tests.gpu.device import CARTPOLE, SIZES, learner_for, needs_gpu, relative_error

pytestmark = needs_gpu
IMAGE = ("env=probe_image", "env.params.episode_steps=5")
CONTINUOUS = ("env=probe_continuous", "env.params.episode_steps=5")
TENSORS = (
    *("observations", "actions", "log_probs", "values", "rewards", "terminated", "done", "final_values"),
    *("last_values", "initial_state"),
)


def assert_same_bits(one: Rollout, other: Rollout) -> None:
    for name in TENSORS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.done_counts.tolist() == other.done_counts.tolist()


def new_weights(learner: Learner, seed: int) -> None:
    """In place, as optimizers and checkpoints change them; and new statistics."""
    generator = torch.Generator(learner.world.device).manual_seed(seed)
    with torch.no_grad():
        for weight in learner.policy.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=weight.device))
    if learner.observations.moments:
        learner.observations.moments.mean.add_(0.1 * seed)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("policy", ["lstm", "mlp"])
@pytest.mark.parametrize("env", [CARTPOLE, IMAGE, CONTINUOUS], ids=str)
def test_recorded_steps_act_like_plain_ones(env: tuple[str, ...], policy: str, precision: str) -> None:
    """Over rollouts with truncated and terminated episodes, new weights between them."""
    settings = [f"policy={policy}", f"precision={precision}"]
    plain = learner_for(*settings, "cuda_graphs=false", env=env)
    recorded = learner_for(*settings, "cuda_graphs=true", env=env)
    assert len(recorded.collector.groups) == 2
    ended = truncated = 0
    for iteration in range(3):
        rollout = plain.collector.collect()
        assert_same_bits(recorded.collector.collect(), rollout)
        assert torch.equal(recorded.collector.state, plain.collector.state)
        ended += int(rollout.done.sum())
        truncated += int((rollout.done & ~rollout.terminated).sum())
        for learner in (plain, recorded):
            new_weights(learner, iteration)
    assert ended and truncated


@contextmanager
def waiting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """But for the one wait in each step, for the actions."""
    wait = DeviceLink.wait

    def allowed(self: DeviceLink) -> None:
        torch.cuda.set_sync_debug_mode("default")
        wait(self)
        torch.cuda.set_sync_debug_mode("error")

    with monkeypatch.context() as patch:
        patch.setattr(DeviceLink, "wait", allowed)
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graphs", ["true", "false"])
@pytest.mark.parametrize("env", [CARTPOLE, IMAGE, CONTINUOUS], ids=str)
def test_collecting_waits_for_nothing_but_actions(
    env: tuple[str, ...], graphs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_for(f"cuda_graphs={graphs}", env=env)
    learner.collector.collect()  # records
    with waiting_is_an_error(monkeypatch):
        rollout = learner.collector.collect()
    assert rollout.final_values.any()
    with pytest.raises(RuntimeError, match="synchron"), waiting_is_an_error(monkeypatch):
        rollout.final_values.any().item()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("env", [CARTPOLE, IMAGE, CONTINUOUS], ids=str)
def test_a_rollout_is_that_of_the_cpu(env: tuple[str, ...], groups: int) -> None:
    settings = ["dtype=float64", "optimizer.storage_dtype=float64"]
    on_gpu = learner_for(*settings, f"env_groups={groups}", env=env)
    config = compose_train([*SIZES, *env, *settings, "device=cpu"])[0]
    on_cpu = make_learner(config, connect("cpu", 60))
    on_cpu.observations.load_state_dict(on_gpu.observations.state_dict())
    for _ in range(2):
        rollout, expected = on_gpu.collector.collect(), on_cpu.collector.collect()
        for name in TENSORS:
            assert relative_error(getattr(rollout, name), getattr(expected, name)) < 1e-9, name
        assert rollout.done_counts.tolist() == expected.done_counts.tolist()
        assert expected.final_values.any()


def test_pages_are_locked_in_place_or_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rollout where the system refuses to lock the pool's pages, and no error is left behind."""
    in_place = learner_for()
    for pool in in_place.pool.pools:
        assert torch.from_numpy(pool.incoming).is_pinned()
        assert torch.from_numpy(pool.actions).is_pinned()
    lock = device_link._lock

    def refused(buffer: NDArray[Any], device: torch.device) -> bool:
        return lock(buffer[:0], device)  # CUDA takes no empty range

    monkeypatch.setattr(device_link, "_lock", refused)
    copied = learner_for()
    assert not any(torch.from_numpy(pool.incoming).is_pinned() for pool in copied.pool.pools)
    for _ in range(2):
        assert_same_bits(copied.collector.collect(), in_place.collector.collect())
    torch.cuda.synchronize()

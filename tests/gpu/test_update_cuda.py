"""The host waits for nothing between the first and the last minibatch. On the CPU: tests/test_update.py, which sees no
copies between host and device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dist_trainer import minibatch, optimizers, ppo, update
from tests.gpu.device import learner_for, needs_gpu

pytestmark = needs_gpu


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loop_never_waits_for_the_device(optimizer: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first loss of an epoch to its last step. Not in the first update, which makes the optimizer's state."""
    learner = learner_for(f"optimizer={optimizer}", f"precision={precision}", "ppo.update_epochs=2")
    minibatches = learner.config.ppo.minibatches
    update.learn(learner, learner.collector.collect())
    ppo_loss, step = ppo.ppo_loss, optimizers.step
    losses = steps = 0

    def opening_loss(*args: Any, **kwargs: Any) -> Any:
        nonlocal losses
        losses += 1
        torch.cuda.set_sync_debug_mode("error")
        return ppo_loss(*args, **kwargs)

    def closing_step(*args: Any, **kwargs: Any) -> None:
        nonlocal steps
        step(*args, **kwargs)
        steps += 1
        if steps % minibatches == 0:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(minibatch, "ppo_loss", opening_loss)
    monkeypatch.setattr(optimizers, "step", closing_step)
    try:
        for _ in range(2):
            learner.iteration += 1
            rollout = learner.collector.collect()
            assert not update.learn(learner, rollout).undone
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert losses == steps == 2 * 2 * minibatches


def test_a_wait_is_noticed() -> None:
    """The test above can fail."""
    x = torch.ones(2, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            x.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")

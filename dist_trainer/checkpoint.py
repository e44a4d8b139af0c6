"""Everything that exact resume needs, gathered from all learners into one file and cut up again for any number of them.

What belongs to an environment is saved in the order of the global ids, so that a checkpoint does not know how many
learners wrote it. No random state is saved: all randomness is keyed by counters that are.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dist_trainer import optimizers
from dist_trainer.checkpoint_file import checkpoint_path, prune_checkpoints, read_checkpoint, write_checkpoint
from dist_trainer.distributed import World
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner


def save_checkpoint(learner: Learner, run_dir: Path, keep: int, extra: Callable[[], dict[str, Any]]) -> None:
    """All learners take part; the first writes. `extra`: called on the first learner, plain data that load returns.

    Raises OSError on the first learner if something cannot be written; the others have then done their part.
    """
    world, start = learner.world, learner.rollout_start
    per_env = {
        # (E, bytes), (L, E * A, H), (E * A,) over all learners, in the order of the global environment ids
        "snapshot": world.gather(torch.from_numpy(start.snapshot), 0),
        "state": world.gather(start.state, 1),
        "running_returns": world.gather(learner.returns.running, 0),
    }
    optimizer = optimizers.gather_captured(learner.optimizer, world)
    if not world.is_first:
        return
    payload = io.BytesIO()
    torch.save(
        {
            "iteration": learner.iteration,
            "optimizer_step": learner.optimizer_step,
            "missed_env_steps": learner.missed_env_steps,
            "rate_factor": learner.rate_factor,
            "policy": learner.policy.state_dict(),
            "optimizer": optimizer,
            "observation_normalizer": learner.observations.state_dict(),
            "acting": [module.state_dict() for module in _acting(learner)],
            "return_moments": learner.returns.moments.state_dict(),
            "per_env": per_env,
            "extra": extra(),
        },
        payload,
    )
    write_checkpoint(checkpoint_path(run_dir, learner.iteration), payload.getvalue())
    prune_checkpoints(run_dir, keep)


def _acting(learner: Learner) -> list[nn.Module]:
    """What acts with weights and statistics of its own: with overlap, those of one update before."""
    return [learner.collector.policy, learner.collector.normalizer] if learner.config.overlap else []


def load_file(path: Path) -> dict[str, Any]:
    """The content on the CPU. Executes no code from the file. Raises ConfigError if it is missing or damaged."""
    payload = io.BytesIO(read_checkpoint(path))
    try:
        return torch.load(payload, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):  # intact, but not what save_checkpoint writes
        raise ConfigError("checkpoint", path, "holds something else than tensors and plain data") from None


def load_checkpoint(learner: Learner, path: Path) -> dict[str, Any]:
    """Continues from the file; returns `extra`. Every learner reads it and takes what is its own."""
    saved = load_file(path)
    learner.iteration = saved["iteration"]
    learner.optimizer_step = saved["optimizer_step"]
    learner.missed_env_steps = saved["missed_env_steps"]
    learner.rate_factor = saved["rate_factor"]
    learner.policy.load_state_dict(saved["policy"])
    optimizers.restore(learner.optimizer, saved["optimizer"])
    learner.observations.load_state_dict(saved["observation_normalizer"])
    for module, state in zip(_acting(learner), saved["acting"], strict=True):
        module.load_state_dict(state)
    learner.returns.moments.load_state_dict(saved["return_moments"])
    per_env = saved["per_env"]
    learner.pool.restore(_slice(per_env["snapshot"], 0, learner.world).numpy())
    learner.collector.state = _slice(per_env["state"], 1, learner.world).to(learner.world.device)
    learner.returns.running.copy_(_slice(per_env["running_returns"], 0, learner.world))
    return saved["extra"]


def _slice(everyone: Tensor, dim: int, world: World) -> Tensor:
    """This learner's part of something that was gathered along `dim`."""
    size = everyone.shape[dim] // world.size
    return everyone.narrow(dim, world.rank * size, size).contiguous()

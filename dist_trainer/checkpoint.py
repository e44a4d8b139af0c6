"""Everything that exact resume needs: each learner's part of it, and the parts put together for any number of learners.

What belongs to an environment is saved in the order of the global ids, optimizer state by the names of its units, so
that what is loaded does not depend on how many learners wrote it. No random state is saved: all randomness is keyed by
counters that are.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dist_trainer import optimizers
from dist_trainer.checkpoint_file import read_manifest, read_shard
from dist_trainer.distributed import World
from dist_trainer.errors import ConfigError
from dist_trainer.learner import Learner


def shard_of(learner: Learner, extra: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What this learner writes: its environments, a share of the units' state, and what all have if it is the first.

    Tensors are those in use, no copies. `extra`: called on the first learner, plain data that load_checkpoint returns.
    """
    world, start = learner.world, learner.rollout_start
    optimizer = optimizers.capture(learner.optimizer, optimizers.units_to_save(learner.optimizer, world), Tensor.detach)
    shard: dict[str, Any] = {
        "units": optimizer.pop("units"),
        "per_env": {
            "snapshot": torch.from_numpy(start.snapshot),  # (E/W, bytes)
            "state": start.state,  # (L, N, H)
            "running_returns": learner.returns.running,  # (N,)
        },
    }
    if world.is_first:
        shard["common"] = {
            "iteration": learner.iteration,
            "optimizer_step": learner.optimizer_step,
            "missed_env_steps": learner.missed_env_steps,
            "rate_factor": learner.rate_factor,
            "rollback_factor": learner.rollback_factor,
            "policy": _state(learner.policy),
            "optimizer": optimizer,
            "observation_normalizer": _state(learner.observations),
            "acting": [_state(module) for module in _acting(learner)],
            "return_moments": _state(learner.returns.moments),
            "past": learner.past.state() if learner.past else None,
            "extra": extra(),
        }
    return shard


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())  # torch's is of a type of its own, with notes that nothing here needs


def _acting(learner: Learner) -> list[nn.Module]:
    """What acts with weights and statistics of its own: with overlap, those of one update before."""
    return [learner.collector.policy, learner.collector.normalizer] if learner.config.overlap else []


def load_file(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, all learners' parts in one. Executes no code from the files.

    Raises ConfigError if something is missing or damaged.
    """
    shards = [_load_shard(path, read_shard(path, shard)) for shard in read_manifest(path).shards]
    try:
        content: dict[str, Any] = dict(shards[0]["common"])
        content["optimizer"] = content["optimizer"] | {
            "units": {name: unit for shard in shards for name, unit in shard["units"].items()}
        }
        # (E, bytes), (L, E * A, H), (E * A,) in the order of the global environment ids
        dims = {"snapshot": 0, "state": 1, "running_returns": 0}
        content["per_env"] = {
            name: torch.cat([shard["per_env"][name] for shard in shards], dim) for name, dim in dims.items()
        }
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError):
        raise ConfigError("checkpoint", path, "holds something else than a run") from None
    return content


def _load_shard(path: Path, content: bytearray) -> dict[str, Any]:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):  # intact, but not what shard_of makes
        raise ConfigError("checkpoint", path, "holds something else than tensors and plain data") from None


def load_checkpoint(learner: Learner, path: Path) -> dict[str, Any]:
    """Continues from it; returns `extra`. Every learner reads it and takes what is its own."""
    saved = load_file(path)
    learner.iteration = saved["iteration"]
    learner.optimizer_step = saved["optimizer_step"]
    learner.missed_env_steps = saved["missed_env_steps"]
    learner.rate_factor = saved["rate_factor"]
    learner.rollback_factor = saved["rollback_factor"]
    learner.policy.load_state_dict(saved["policy"])
    optimizers.restore(learner.optimizer, saved["optimizer"])
    learner.observations.load_state_dict(saved["observation_normalizer"])
    for module, state in zip(_acting(learner), saved["acting"], strict=True):
        module.load_state_dict(state)
    learner.returns.moments.load_state_dict(saved["return_moments"])
    if learner.past:
        learner.past.load_state(saved["past"])
    per_env = saved["per_env"]
    learner.pool.restore(_slice(per_env["snapshot"], 0, learner.world).numpy())
    if learner.pool.keeps_state:
        learner.collector.state = _slice(per_env["state"], 1, learner.world).to(learner.world.device)
        learner.returns.running.copy_(_slice(per_env["running_returns"], 0, learner.world))
    elif learner.world.is_first:
        what = f"env={learner.config.env.name} cannot save its environments: new episodes begin, as in no other run"
        warnings.warn(what, stacklevel=2)
    return saved["extra"]


def _slice(everyone: Tensor, dim: int, world: World) -> Tensor:
    """This learner's part of something that is of all environments along `dim`."""
    size = everyone.shape[dim] // world.size
    return everyone.narrow(dim, world.rank * size, size).contiguous()

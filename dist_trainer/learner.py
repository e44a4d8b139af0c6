"""One learner: its slice of the environments, and its replica of the policy and of the optimizer."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_trainer import optimizers
from dist_trainer.collector import Collector
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World, share_of_cores
from dist_trainer.env_groups import EnvGroups
from dist_trainer.envs import EnvSpec, cores_to_pin
from dist_trainer.errors import ConfigError
from dist_trainer.keyed import keyed_generators, keyed_seed
from dist_trainer.normalize import ObservationNormalizer, ReturnNormalizer
from dist_trainer.optimizers.compilation import missing_for_compilation, set_compilation
from dist_trainer.optimizers.own_state import OwnState
from dist_trainer.past_policies import PastPolicies
from dist_trainer.policies import Policy
from dist_trainer.ppo import GradientBucket
from dist_trainer.prefetch import Prefetcher
from dist_trainer.stopwatch import time_device
from dist_trainer.target import make
from dist_trainer.teams import in_turn

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
NOT_FOR_POLICY = ("action_kinds",)  # for validation before torch is imported


@dataclass
class RolloutStart:
    """All that it takes, besides the policy, to collect a rollout again."""

    snapshot: NDArray[np.uint8]  # of this learner's environments
    state: Tensor  # (L, N, H)


@dataclass
class Learner:
    config: TrainConfig
    world: World
    pool: EnvGroups
    policy: Policy
    observations: ObservationNormalizer
    returns: ReturnNormalizer
    collector: Collector
    gradients: GradientBucket
    optimizer: optimizers.Optimizer
    prefetcher: Prefetcher | None  # with rollout_memory=host
    past: PastPolicies | None = None  # with self_play.past
    own_state: OwnState = field(default_factory=OwnState)
    iteration: int = 0  # rollouts that were collected and learned from
    optimizer_step: int = 0
    missed_env_steps: int = 0  # of rollouts that were cut short
    next_start: RolloutStart | None = None  # if the next rollout is there already (overlap.py): where it began
    rate_factor: float = 1.0  # on the learning rate, see schedule.adapt_rate
    rollback_factor: float = 1.0  # on the learning rate, see rollback.py

    @property
    def rollout_start(self) -> RolloutStart:
        return self.next_start or RolloutStart(self.pool.snapshot(), self.collector.state)

    @property
    def env_steps(self) -> int:
        """Of all learners together."""
        return self.iteration * self.config.horizon_env_steps - self.missed_env_steps

    @property
    def progress(self) -> float:
        """From 0 to 1 over the whole global run."""
        return min(1.0, self.env_steps / (self.config.iterations * self.config.horizon_env_steps))

    @property
    def finished(self) -> bool:
        return self.progress >= 1


def make_policy(config: TrainConfig, spec: EnvSpec, device: torch.device) -> Policy:
    """The same weights on every learner: drawn from a generator keyed by the seed."""
    settings = {key: value for key, value in config.policy.items() if key not in NOT_FOR_POLICY}
    with keyed_generators(keyed_seed(config.seed, "policy"), device):
        policy: Policy = make(
            "policy",
            settings.pop("_target_"),
            Policy,
            **settings,
            observation_shape=spec.observation_shape,
            action_kind=spec.action_kind,
            action_sizes=spec.action_sizes,
            action_low=spec.action_low,
            action_high=spec.action_high,
        )
    if config.optimizer.get("newton_product") == "exact" and not policy.double_backward:
        valid = (
            f"{type(policy).__name__} has a fused LSTM, which cannot be differentiated twice; valid: central, forward"
        )
        raise ConfigError("optimizer.newton_product", "exact", valid)
    policy.precision = "bfloat16" if config.precision == "bfloat16" else "float32"
    return policy.to(device, DTYPES[config.dtype])


def make_observation_normalizer(config: TrainConfig, spec: EnvSpec, device: torch.device) -> ObservationNormalizer:
    return ObservationNormalizer(
        spec.observation_shape,
        is_bytes=spec.observation_is_bytes,
        enabled=config.normalize.observations,
        clip=config.normalize.clip,
        dtype=DTYPES[config.dtype],
        device=device,
    )


def make_pool(config: TrainConfig, world: World, seed: int) -> EnvGroups:
    """This learner's contiguous slice of the global environments. By default two groups take turns with a GPU."""
    envs = config.total_envs // world.size
    threads = config.env_threads or share_of_cores(world.local_size)
    groups = config.env_groups or (2 if world.device.type == "cuda" and envs % 2 == 0 else 1)
    return EnvGroups(
        config.env,
        num_envs=envs,
        first_env=world.rank * envs,
        seed=seed,
        threads=threads,
        groups=groups,
        cores=cores_to_pin(threads, world.local_rank, world.local_size),
    )


def make_learner(config: TrainConfig, world: World) -> Learner:
    torch.set_num_threads(config.torch_threads or share_of_cores(world.local_size))
    allow_tf32(config.precision == "tf32")
    time_device(world.device)
    pool = make_pool(config, world, config.seed)
    pool.reset()
    policy = make_policy(config, pool.spec, world.device)
    for tensor in policy.state_dict().values():
        world.broadcast_(tensor)  # a policy of the user's may draw its weights from elsewhere
    decide_on_compilation(config, world)
    observations = make_observation_normalizer(config, pool.spec, world.device)
    returns = ReturnNormalizer(
        pool.rows,
        gamma=config.ppo.gamma,
        enabled=config.normalize.returns,
        clip=config.normalize.clip,
        device=world.device,
    )
    # With overlap, acting goes on with weights and statistics that learning has moved on from.
    acting = copy.deepcopy((policy, observations)) if config.overlap else (policy, observations)
    past = PastPolicies(config.self_play, config.seed, (policy, observations)) if config.self_play.past else None
    collector = Collector(
        *(pool, *acting, config.horizon, world.device),
        cuda_graphs=config.cuda_graphs,
        rollout_memory=config.rollout_memory,
        past=(past.policy, past.normalizer) if past else None,
        past_rows=past_rows_of(pool, config, world) if past else None,
    )
    return Learner(
        config=config,
        world=world,
        pool=pool,
        policy=policy,
        observations=observations,
        returns=returns,
        collector=collector,
        gradients=GradientBucket(policy),
        optimizer=optimizers.make_optimizer(config.optimizer, policy, world),
        prefetcher=Prefetcher(world.device) if config.rollout_memory == "host" else None,
        past=past,
    )


def past_rows_of(pool: EnvGroups, config: TrainConfig, world: World) -> NDArray[np.bool_]:
    """(N,) of this learner's rows those that a past policy plays."""
    return in_turn(config.self_play.past, world.rank * pool.num_envs, pool.num_envs, pool.spec)


def allow_tf32(allowed: bool) -> None:
    """In matrix products, convolutions and LSTMs on CUDA: 10 bits of mantissa instead of 23, on tensor cores. Of these,
    torch would allow it in the latter two."""
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    for backend in (cuda.matmul, cudnn.conv, cudnn.rnn):
        backend.fp32_precision = "tf32" if allowed else "ieee"


def decide_on_compilation(config: TrainConfig, world: World) -> None:
    """Compiles the optimizer's update if that was asked for and every learner can: compiled code rounds differently."""
    if not config.compile_optimizer:
        set_compilation(False)
        return
    missing = missing_for_compilation(world.device)
    everyone_can = not world.sum_(torch.tensor(float(missing is not None), device=world.device)).item()
    set_compilation(everyone_can)
    if missing:
        warnings.warn(f"compile_optimizer is off: {missing} (learner {world.rank})", stacklevel=2)


def warm_up_normalizer(learner: Learner) -> None:
    """Gives the observation normalizer its first statistics, so that the first update does not change what the policy
    sees. The first policy acts for a few steps in environments of its own, with a seed of their own."""
    config, world = learner.config, learner.world
    if learner.observations.moments is None or config.normalize.warmup_steps == 0:
        return
    pool = make_pool(config, world, keyed_seed(config.seed, "warm-up"))
    pool.reset()
    steps = config.normalize.warmup_steps
    rollout = Collector(pool, learner.policy, learner.observations, steps, world.device).collect()
    learner.observations.update(rollout.observations, world, rollout.acts)


def replicated_tensors(learner: Learner) -> dict[str, Tensor]:
    """Everything that must have the same bits on every learner, by name."""
    modules = {"policy": learner.policy, "observations": learner.observations, "returns": learner.returns.moments}
    tensors = {f"{part}.{name}": x for part, module in modules.items() for name, x in module.state_dict().items()}
    state = optimizers.common_state if learner.optimizer.shards else optimizers.named_tensors
    return tensors | state(learner.optimizer)


def watched_tensors(learner: Learner) -> dict[str, Tensor]:
    """What OwnState watches: with a sharded optimizer, weights and state that this learner keeps. Replicas that differ
    stay different until they are compared, and need no watch."""
    if not learner.optimizer.shards:
        return {}
    weights = {f"policy.{name}": tensor for name, tensor in learner.policy.state_dict().items()}
    return weights | optimizers.named_tensors(learner.optimizer)


def replicas(learner: Learner) -> list[tuple[World, dict[str, Tensor]]]:
    """Groups of learners, and what must have the same bits on each of a group: the state of units of a sharded
    optimizer, on those that own them in their shard groups; all else on all learners."""
    shards = learner.optimizer.shards
    sharded = [(shards.peers, optimizers.unit_state(learner.optimizer))] if shards else []
    return [(learner.world, replicated_tensors(learner)), *sharded]

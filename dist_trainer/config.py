"""Every setting of a run, typed, with its default, its meaning and its valid range.

validation.py says which values can work. Nothing here imports torch.
`configs/` holds the yaml files (one per environment, policy and optimizer) that fill these dataclasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

FOREIGN_ENVS = ("gymnasium", "envpool")  # env.name of engines that bring environments of their own
NO_CLOCK_FPS = 8.0  # at which environments without a clock are shown
LARGEST_INT32 = 2**31 - 1  # the C++ pool counts environments and rows in int32


@dataclass
class ViewConfig:
    """How people look at an environment, and play it: `watch`, `play`, `record`. No run depends on it."""

    seconds_per_step: float | None = None  # of the world that is simulated; null: it has no clock
    fps: float | None = None  # steps shown per second; null: as many as there are in a second of its world, else 8
    turn_based: bool = False  # who plays is waited for
    agents: list[str] = field(default_factory=list)  # their names, if they have any
    actions: list[Any] = field(default_factory=list)  # names: of the choices; with several components a list for each
    # component; of the numbers, if continuous
    keys: dict[str, Any] = field(default_factory=dict)  # KEY, or KEY+KEY for both: a choice; with several components a
    # list, null where the key says nothing; continuous: what the key adds to each number of `idle`
    planes: list[int] = field(default_factory=list)  # [height, width] of the planes that a flat observation consists of
    idle: Any = None  # the action while no key is down: like that of a key, or last (the one before)

    @property
    def steps_per_second(self) -> float:
        return self.fps or (1 / self.seconds_per_step if self.seconds_per_step else NO_CLOCK_FPS)


@dataclass
class EnvConfig:
    """Which environment; `params` are the C++ struct's own parameters, checked there."""

    name: str = "???"
    params: dict[str, Any] = field(default_factory=dict)
    id: str | None = None  # of another engine's environment: with env=gymnasium and env=envpool
    library: str | None = None  # shared library that has it (see cpp_envs/README.md); in a yaml from its folder on
    check: bool = True  # observations must be finite and in their declared range, rewards finite; else its name is told
    workers: str = "threads"  # threads | processes: an environment that crashes, hangs or fails the check loses its
    # episode (the step: reward 0, truncated) and not the run; results are the same otherwise
    step_timeout_s: float = 5.0  # processes: an environment that takes longer for a step hangs, and is given up
    max_restarts: int = 10  # processes: stop when more than so many are lost in steps one after the other
    worker_memory_mb: int | None = None  # of each process, beside the shared memory; an environment that leaks hits it
    opponents: dict[str, Any] = field(default_factory=dict)  # parameter: the values by which evaluate measures it
    view: ViewConfig = field(default_factory=ViewConfig)


@dataclass
class PPOConfig:
    """The algorithm (Schulman et al., arXiv 1707.06347). Sizes are of the global batch of all learners."""

    update_epochs: int = 1  # passes over each rollout
    minibatches: int = 32  # optimizer steps per pass; total_envs must be a multiple
    micro_batches: int = 1  # parts of a learner's minibatch that are learned one after another: saves memory alone
    clip: float = 0.3  # the probability ratio is clipped to 1 +- clip
    value_clip: float | None = None  # clip the change of the value function too, as CleanRL does
    value_coef: float = 0.5  # weight of the value loss
    entropy_coef: float = 4e-3  # weight of the entropy bonus
    max_grad_norm: float = 0.5  # of the gradient reduced over all learners
    gamma: float = 0.995  # discount per step
    gae_lambda: float = 0.95  # between one-step (0) and whole-episode (1) advantages
    advantage: str = "gae"  # gae | vtrace (off-policy corrections from the second update epoch on)
    vtrace_rho_clip: float = 1.0  # bound on the ratio of each error
    vtrace_c_clip: float = 1.0  # bound on the ratios that carry later errors back
    normalize_advantages: bool = True  # to mean 0, variance 1 over the global batch
    target_kl: float | None = None  # stop further update epochs of an iteration above this KL divergence


@dataclass
class ScheduleConfig:
    """A factor over the whole global run: `schedule` on optimizer.lr, `precond_schedule` on optimizer.precond_lr."""

    kind: str = "cosine"  # constant | linear | cosine
    final: float = 0.0  # factor at the end of the run; a constant one has none
    warmup: float = 0.0  # fraction of the run over which the factor first rises linearly from 0


@dataclass
class AdaptiveRateConfig:
    """A further factor on optimizer.lr that follows the policy's change: the rule of rl_games and RSL-RL."""

    target_kl: float | None = None  # of an iteration; above twice this the rate falls, below half of it it rises
    step: float = 1.5  # by this factor
    smallest: float = 0.01  # bounds of the factor
    largest: float = 10.0


@dataclass
class BatchScalingConfig:
    """A batch that grows with the number of learners; by default it is the same for any number."""

    reference_learners: int | None = None  # total_envs and optimizer.lr are for so many learners; null: for any
    grow: str = "minibatches"  # minibatches (as many, but larger) | optimizer_steps (more minibatches of the same size)
    lr_rule: str = "constant"  # for larger ones: constant | sqrt (Adam: arXiv 2205.10287) | linear (SGD: 1706.02677)


@dataclass
class PreemptionConfig:
    """Stragglers' rollouts end early, as in DD-PPO (arXiv 1911.00357). By the clock: no run repeats another."""

    fraction: float | None = None  # of the learners: when so many have their rollout, the others stop; DD-PPO: 0.6
    min_horizon: float = 0.25  # of the horizon, which everyone collects in any case


@dataclass
class SelfPlayConfig:
    """Past policies as opponents, where the agents of an environment play against each other in teams."""

    past: float = 0.0  # of the environments: one team is played by a past policy, and not learned from
    every: int = 50  # iterations between policies that are kept; twice that whenever there are too many
    keep: int = 10  # at most so many, from the run's beginning to now
    hold: int = 10  # iterations for which one of them plays before another is drawn


@dataclass
class NormalizeConfig:
    """Running normalizers, reduced over all learners and kept in checkpoints."""

    observations: bool = True  # float observations to mean 0, variance 1; uint8 is scaled to [0, 1] instead
    returns: bool = True  # rewards divided by the standard deviation of the discounted return
    clip: float = 10.0  # normalized values are clipped to +- clip
    warmup_steps: int = 64  # steps of the first policy, in environments of their own, for the first statistics


@dataclass
class TrainConfig:
    """`python -m dist_trainer train`."""

    env: EnvConfig = field(default_factory=EnvConfig)
    policy: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments
    optimizer: dict[str, Any] = field(default_factory=dict)  # _target_ and its arguments
    ppo: PPOConfig = field(default_factory=PPOConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    precond_schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("constant"))
    adaptive_rate: AdaptiveRateConfig = field(default_factory=AdaptiveRateConfig)
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    batch_scaling: BatchScalingConfig = field(default_factory=BatchScalingConfig)
    preemption: PreemptionConfig = field(default_factory=PreemptionConfig)
    self_play: SelfPlayConfig = field(default_factory=SelfPlayConfig)

    seed: int = 1  # of everything random; another seed is another run
    total_env_steps: float = 2e6  # over all learners; rounded up to whole iterations
    total_envs: int = 1024  # over all learners, which own equal, contiguous slices
    horizon: int = 64  # steps per rollout (T)

    run_dir: str | None = None  # default: runs/<env>-<policy>-<optimizer>-<time>
    resume: str | None = None  # run folder (its configuration is used), checkpoint, or auto: what run_dir holds, if any
    device: str = "auto"  # auto | cpu | cuda
    dtype: str = "float32"  # float32 | float64 (for tests of exactness)
    precision: str = "float32"  # of the policy's matrix products: float32 | tf32 (CUDA) | bfloat16
    reduce_dtype: str | None = None  # of gradients on their way between learners: null (as they are) | bfloat16
    compile_optimizer: bool = False  # torch.compile the optimizer's update: 10 to 90 s at the start, then faster steps
    torch_threads: int | None = None  # per learner; default: this machine's cores shared out over its learners
    env_threads: int | None = None  # threads or processes, per learner; default: the same
    env_groups: int | None = None  # of a learner's environments: one acts, the others step; null: 1 on CPU, 2 on CUDA
    overlap: bool = False  # collect the next rollout, with the weights of before the update, while the learner works
    rollout_memory: str = "device"  # of observations: device | host (saves a GPU's memory; minibatches are sent to it)
    cuda_graphs: bool = True  # on CUDA a step of acting is recorded once and replayed; some policies cannot be

    log_every: int = 1  # iterations between points in TensorBoard
    diagnostics_every: int = 50  # iterations between looks at noise, preconditioners, update sizes; 0: never, no cost
    histograms_every: int = 100  # iterations between histograms of weights and gradients in TensorBoard; 0: never
    replay_minutes: float = 10.0  # between replays (GIF) of the policy in TensorBoard, and one at the end; 0: never
    replay_steps: int = 250  # of a replay; fewer where pictures are large
    profile: bool = False  # trace a few iterations, for a trace viewer, into the run folder; see profile.py
    profile_iterations: int = 3  # that are traced, at each start of the run; at most 100
    profile_after: int = 5  # iterations that are left to warm up before them
    check_every: int = 10  # iterations between comparisons of the learners' weights; 0: never
    on_drift: str = "stop"  # if they differ: stop | resync (overwrite the minority's; of two, the second's)
    checkpoint_every: int | None = None  # iterations between checkpoints
    checkpoint_minutes: float = 5.0  # minutes between checkpoints; one is written at the end and on Ctrl-C as well
    keep_checkpoints: int = 3  # the newest; older ones are removed
    keep_best: bool = True  # and that of the highest mean return of recent episodes, among all that were written
    max_weight: float = 1e6  # an update is undone if it leaves a larger weight, as if one were not finite
    max_bad_updates: int = 10  # undone updates in a row after which `on_bad_updates` acts
    on_bad_updates: str = "stop"  # stop | rollback (to the last checkpoint; from there on at half the rate)
    max_rollbacks: int = 3  # in a row, without coming further than where the first one was needed; then stop
    collective_timeout_s: float = 300.0  # a learner that keeps the others waiting for longer ends the run

    @property
    def horizon_env_steps(self) -> int:
        """Steps of all environments in one rollout; an environment with many agents counts once."""
        return self.total_envs * self.horizon

    @property
    def iterations(self) -> int:
        return math.ceil(self.total_env_steps / self.horizon_env_steps)

"""Which settings can work: everything that is refused before torch is imported and before learners connect.

Every refusal is a ConfigError that names the field, its value and what would be valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dist_trainer.config import (
    FOREIGN_ENVS,
    BatchScalingConfig,
    EnvConfig,
    PreemptionConfig,
    ScheduleConfig,
    TrainConfig,
)
from dist_trainer.errors import ConfigError, choices
from dist_trainer.profile_settings import validate_profile
from dist_trainer.self_play_settings import validate_self_play
from dist_trainer.verb_configs import AutotuneConfig, DoctorConfig, EvaluateConfig

MOST_THREADS = 1024
MOST_EPISODES = 1_000_000
ENV_WORKERS = ("threads", "processes")
ACTIVATIONS = ("relu", "tanh", "silu")
LSTM_BLOCKS = ("whole", "gates")
RATE_ESTIMATES = ("dadaptation", "prodigy")
PRECISIONS = ("float32", "tf32", "bfloat16")
NEWTON_PRODUCTS = ("central", "forward", "exact")
NEWTON_PRECISIONS = ("float32", "bfloat16")
PROBABILITY = ("initial", "final", "decay", "hold")  # of a fit of a PSGD preconditioner
STORAGE_DTYPES = ("float32", "float64", "bfloat16")  # of settings of policies and optimizers


def _require(ok: bool, name: str, value: object, valid: str) -> None:
    if not ok:
        raise ConfigError(name, value, valid)


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    _require(value in valid, name, value, choices(valid, str(value)))


def _at_least(config: object, prefix: str, minimum: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None:
            _require(math.isfinite(value) and value >= minimum, prefix + name, value, f"must be at least {minimum:g}")


def _fraction(config: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value <= 1, prefix + name, value, "must be from 0 to 1")


def _threads(config: TrainConfig | EvaluateConfig) -> None:
    for name in ("torch_threads", "env_threads"):
        value = getattr(config, name)
        _require(
            value is None or 1 <= value <= MOST_THREADS, name, value, f"must be at least 1, at most {MOST_THREADS}"
        )


def _workers(config: EnvConfig) -> None:
    _one_of("env.workers", config.workers, ENV_WORKERS)
    named = config.id is None or config.name in FOREIGN_ENVS
    _require(named, "env.id", config.id, f"acts only with env={' or env='.join(FOREIGN_ENVS)}")
    timeout = config.step_timeout_s
    _require(0.01 <= timeout <= 86_400, "env.step_timeout_s", timeout, "must be from 0.01 to 86400")
    _at_least(config, "env.", 0, "max_restarts")
    _at_least(config, "env.", 1, "worker_memory_mb")


def _validate_group(name: str, settings: dict[str, Any]) -> None:
    """What a policy's or an optimizer's own settings have in common."""
    _require("_target_" in settings, f"{name}._target_", "", "every yaml of this group names its class")
    for key, value in settings.items():
        if key.endswith("dtype"):
            _one_of(f"{name}.{key}", value, STORAGE_DTYPES)
    if "activation" in settings:
        _one_of(f"{name}.activation", settings["activation"], ACTIVATIONS)
    for key in ("hidden_size", "encoder_layers"):
        value = settings.get(key, 1)
        _require(not isinstance(value, int) or value >= 1, f"{name}.{key}", value, "must be at least 1")


def _validate_optimizer(settings: dict[str, Any], name: str = "optimizer") -> None:
    """Ranges of the settings that optimizers share; the rest is for the optimizer itself to refuse."""

    def check(key: str, ok: Callable[[float], bool], valid: str) -> None:
        value = settings.get(key)
        for number in value if isinstance(value, list) else [value]:
            good = number is None or (isinstance(number, int | float) and math.isfinite(number) and ok(number))
            _require(good, f"{name}.{key}", value, valid)

    for key in ("betas", "beta", "shampoo_beta", "lower_bound_beta"):
        check(key, lambda x: 0 <= x < 1, "must be at least 0 and below 1")
    for key in ("lr", "lr_scale", "eps", "weight_decay", "precond_lr", "dampening", "mars_gamma"):
        check(key, lambda x: x >= 0, "must be a number of at least 0")
    for key in ("max_size_triangular", "max_precond_dim"):
        check(key, lambda x: x >= 0, "must be at least 0")
    if "sync" in settings:
        _one_of(f"{name}.sync", settings["sync"], ("replicated", "sharded"))
    for key in ("rank", "precondition_frequency", "shard_group"):
        check(key, lambda x: x >= 1 and x == int(x), "must be a whole number of at least 1")
    for key in ("precond_init_scale", "rate_initial"):
        check(key, lambda x: x > 0, "must be above 0")
    check("rate_growth", lambda x: x > 1, "must be above 1")
    if settings.get("rate_estimate") is not None:
        _one_of(f"{name}.rate_estimate", settings["rate_estimate"], RATE_ESTIMATES)
    if settings.get("lstm_blocks") is not None:
        _one_of(f"{name}.lstm_blocks", settings["lstm_blocks"], LSTM_BLOCKS)
    low = settings.get("precond_grad_accum") and settings.get("storage_dtype") == "bfloat16"
    if low and settings.get("_target_") in ("heavyball.PSGDPRO", "heavyball.QSGD"):
        valid = f"needs storage_dtype=float32 in {settings['_target_']} (heavyball 3.2.1 multiplies two types)"
        raise ConfigError(f"{name}.precond_grad_accum", True, valid)
    probability = settings.get("preconditioner_update_probability") or {}
    for key, value in probability.items():
        _one_of(f"{name}.preconditioner_update_probability", key, PROBABILITY)
        field = f"{name}.preconditioner_update_probability.{key}"
        if key == "hold":
            _require(value is not None and value >= 0, field, value, "must be at least 0")
        else:
            _require(value is not None and 0 <= value <= 1, field, value, "must be from 0 to 1")
    for key, group in (settings.get("groups") or {}).items():
        _validate_optimizer(group or {}, f"{name}.groups.{key}")


def validate_newton(settings: dict[str, Any]) -> None:
    """An optimizer's newton_* settings, of those that are there. Raises ConfigError."""

    def check(key: str, ok: Callable[[Any], bool], valid: str) -> None:
        if settings.get(key) is not None:
            _require(ok(settings[key]), f"optimizer.{key}", settings[key], valid)

    for key in ("newton_every", "newton_sub_batch"):
        check(key, lambda x: type(x) is int and x >= 1, "must be at least 1")
    check("newton_epsilon", lambda x: type(x) in (int, float) and x > 0, "must be a number greater than 0")
    for key, names in (("newton_product", NEWTON_PRODUCTS), ("newton_precision", NEWTON_PRECISIONS)):
        if settings.get(key) is not None:
            _one_of(f"optimizer.{key}", settings[key], names)
    if settings.get("newton_product") == "exact":
        check("newton_epsilon", lambda x: False, "newton_product=exact takes no differences; leave it null")
        check("newton_precision", lambda x: x == "float32", "newton_product=exact is taken in float32")


def validate_train(config: TrainConfig, world_size: int) -> None:
    """What can be said without torch and without the environment. Raises ConfigError."""
    check_settings(config)
    check_division(config, world_size)


def check_settings(config: TrainConfig) -> None:
    """Refuses values and combinations that cannot work. Raises ConfigError."""
    _at_least(config, "", 1, "total_envs", "horizon", "total_env_steps", "log_every", "replay_steps")
    _threads(config)
    _at_least(
        config, "", 1, "env_groups", "checkpoint_every", "keep_checkpoints", "max_bad_updates", "collective_timeout_s"
    )
    _workers(config.env)
    _at_least(config, "", 0, "seed", "check_every", "diagnostics_every", "max_rollbacks", "histograms_every")
    _at_least(config, "", 0, "replay_minutes")
    validate_profile(config)
    validate_self_play(config)
    _require(config.max_weight > 0, "max_weight", config.max_weight, "must be above 0")
    _require(config.seed < 2**63, "seed", config.seed, "must be below 2**63")
    _require(config.checkpoint_minutes > 0, "checkpoint_minutes", config.checkpoint_minutes, "must be above 0")
    # The run folder's config.yaml holds it too, and a ${...} there is a reference to another setting.
    _require("${" not in (config.run_dir or ""), "run_dir", config.run_dir, "must not contain ${")
    _one_of("device", config.device, ("auto", "cpu", "cuda"))
    _one_of("rollout_memory", config.rollout_memory, ("device", "host"))
    _one_of("on_drift", config.on_drift, ("stop", "resync"))
    _one_of("on_bad_updates", config.on_bad_updates, ("stop", "rollback"))
    _one_of("dtype", config.dtype, ("float32", "float64"))

    ppo = config.ppo
    _at_least(ppo, "ppo.", 1, "update_epochs", "minibatches", "micro_batches")
    _at_least(ppo, "ppo.", 0, "value_coef", "entropy_coef", "vtrace_rho_clip", "vtrace_c_clip", "target_kl")
    for name in ("clip", "value_clip", "max_grad_norm"):
        value = getattr(ppo, name)
        _require(value is None or value > 0, f"ppo.{name}", value, "must be above 0")
    _fraction(ppo, "ppo.", "gamma", "gae_lambda")
    _one_of("ppo.advantage", ppo.advantage, ("gae", "vtrace"))

    for name, schedule in (("schedule", config.schedule), ("precond_schedule", config.precond_schedule)):
        _one_of(f"{name}.kind", schedule.kind, ("constant", "linear", "cosine"))
        _fraction(schedule, f"{name}.", "warmup", "final")
        constant = schedule.kind == "constant" and schedule.final != 0
        _require(not constant, f"{name}.final", schedule.final, "a constant schedule has none; leave it 0")
    adaptive = config.adaptive_rate
    for name, above in (("target_kl", 0.0), ("step", 1.0), ("smallest", 0.0)):
        value = getattr(adaptive, name)
        _require(value is None or value > above, f"adaptive_rate.{name}", value, f"must be above {above:g}")
    _require(
        adaptive.largest >= adaptive.smallest, "adaptive_rate.largest", adaptive.largest, "must be at least smallest"
    )
    scaling, preemption = config.batch_scaling, config.preemption
    _at_least(scaling, "batch_scaling.", 1, "reference_learners")
    _one_of("batch_scaling.grow", scaling.grow, ("minibatches", "optimizer_steps"))
    _one_of("batch_scaling.lr_rule", scaling.lr_rule, ("constant", "sqrt", "linear"))
    same_size = scaling.grow == "optimizer_steps" and scaling.lr_rule != "constant"
    _require(not same_size, "batch_scaling.lr_rule", scaling.lr_rule, "must be constant where minibatches do not grow")
    if scaling.reference_learners is None:
        for name in ("grow", "lr_rule"):
            value, valid = getattr(scaling, name), "acts only with batch_scaling.reference_learners"
            _require(value == getattr(BatchScalingConfig, name), f"batch_scaling.{name}", value, valid)
    if preemption.fraction is not None:
        _fraction(preemption, "preemption.", "fraction")
        valid = "must be null with overlap=true: nobody would wait for the stragglers' rollouts then"
        _require(not config.overlap, "preemption.fraction", preemption.fraction, valid)
    else:
        least = preemption.min_horizon
        acts = least == PreemptionConfig.min_horizon
        _require(acts, "preemption.min_horizon", least, "acts only with preemption.fraction")
    _fraction(preemption, "preemption.", "min_horizon")
    _one_of("precision", config.precision, PRECISIONS)
    low = config.precision != "float32" and config.dtype == "float64"
    _require(not low, "precision", config.precision, "must be float32 (as it is) where dtype=float64")
    if config.reduce_dtype is not None:
        _one_of("reduce_dtype", config.reduce_dtype, ("bfloat16",))
    _at_least(config.normalize, "normalize.", 0, "warmup_steps")
    _require(config.normalize.clip > 0, "normalize.clip", config.normalize.clip, "must be above 0")
    _validate_group("policy", config.policy)
    _validate_group("optimizer", config.optimizer)
    _validate_optimizer(config.optimizer)
    validate_newton(config.optimizer)
    if config.optimizer.get("newton_product") == "exact":
        valid = "newton_product=exact takes its sub-batch at once; leave it 1, and see optimizer.newton_sub_batch"
        _require(ppo.micro_batches == 1, "ppo.micro_batches", ppo.micro_batches, valid)
    if config.optimizer.get("q_dtype") == "float64":
        _require(config.dtype == "float64", "optimizer.q_dtype", "float64", "needs dtype=float64")
    if config.precond_schedule != ScheduleConfig("constant") and "precond_lr" not in config.optimizer:
        valid = "this optimizer has no precond_lr that it could change"
        raise ConfigError("precond_schedule.kind", config.precond_schedule.kind, valid)
    lr = config.optimizer.get("lr")
    _require(lr is not None, "optimizer.lr", lr, "must be a number of at least 0")


def check_division(config: TrainConfig, world_size: int, resumed: bool = False) -> None:
    """Every learner owns whole groups of `minibatches` environments, so that the minibatches are the same for every
    number of learners (see ARCHITECTURE.md, "Minibatches"). Raises ConfigError if the environments do not divide so;
    if `resumed`, they are as they are, and it is the learners that do not fit.
    """
    settings, groups = config.optimizer, config.total_envs // config.ppo.minibatches
    if settings.get("sync") == "sharded" and settings.get("shard_group"):
        check_shard_group(settings["shard_group"], world_size)
    if resumed and groups % world_size:
        valid = ", ".join(str(count) for count in range(1, groups + 1) if groups % count == 0)
        what = f"the run has {groups} groups of environments (total_envs / ppo.minibatches) to divide"
        raise ConfigError("number of learners", world_size, f"{what}; valid: {valid}")
    check_total_envs(config.total_envs, world_size, config.ppo.minibatches)
    check_env_groups(config.env_groups, config.total_envs // world_size)


def check_shard_group(size: int, world_size: int) -> None:
    """Raises ConfigError if the learners cannot be divided into groups of this size."""
    if world_size % size:
        valid = ", ".join(str(number) for number in range(1, world_size + 1) if world_size % number == 0)
        raise ConfigError("optimizer.shard_group", size, f"must divide {world_size} learners; valid: {valid}")


def check_env_groups(groups: int | None, envs: int) -> None:
    """Raises ConfigError if a learner's environments cannot be cut into so many groups."""
    if groups and envs % groups:
        valid = ", ".join(str(number) for number in range(1, min(envs, 64) + 1) if envs % number == 0)
        raise ConfigError("env_groups", groups, f"must divide the {envs} environments of a learner; valid: {valid}")


def check_total_envs(total_envs: int, learners: int, minibatches: int) -> None:
    """Raises ConfigError that names the nearest numbers that divide."""
    unit = learners * minibatches
    if total_envs % unit:
        below = total_envs // unit * unit
        valid = " or ".join(str(count) for count in (below, below + unit) if count)
        what = f"a multiple of {learners} learners x ppo.minibatches={minibatches}"
        raise ConfigError("total_envs", total_envs, f"must be {what}; nearest: {valid}")


def validate_evaluate(config: EvaluateConfig) -> None:
    """Raises ConfigError."""
    _at_least(config, "", 1, "episodes", "max_steps")
    _require(config.episodes <= MOST_EPISODES, "episodes", config.episodes, f"must be at most {MOST_EPISODES}")
    _threads(config)
    _at_least(config, "", 0, "seed")
    _require(config.seed < 2**63, "seed", config.seed, "must be below 2**63")
    _one_of("device", config.device, ("auto", "cpu", "cuda"))


def validate_autotune(config: AutotuneConfig) -> None:
    _at_least(config, "", 1, "iterations")


def validate_doctor(config: DoctorConfig) -> None:
    _at_least(config, "", 1, "timeout_s")
    _one_of("device", config.device, ("auto", "cpu", "cuda"))

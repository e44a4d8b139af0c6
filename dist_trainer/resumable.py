"""Which settings a run that goes on can take other values of."""

from __future__ import annotations

from fnmatch import fnmatchcase

from dist_trainer.errors import ConfigError

# All that `resume=` allows to change: what takes effect and leaves the run the same one. The rest is in the checkpoint.
RESUMABLE = (
    *("total_env_steps", "ppo.*", "schedule.*", "precond_schedule.*", "adaptive_rate.*"),
    *("optimizer.lr", "optimizer.sync", "optimizer.shard_group"),
    *(
        "log_every",
        "check_every",
        "on_drift",
        "diagnostics_every",
        "histograms_every",
        "replay_minutes",
        "replay_steps",
        "profile",
        "profile_iterations",
        "profile_after",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "keep_best",
    ),
    *("max_weight", "max_bad_updates", "on_bad_updates", "max_rollbacks"),
    *("collective_timeout_s", "device", "compile_optimizer", "torch_threads", "env_threads"),
    *("env_groups", "cuda_graphs", "rollout_memory"),
    *("env.check", "env.workers", "env.step_timeout_s", "env.max_restarts", "env.worker_memory_mb"),
    *("env.library", "env.opponents.*", "env.view.*"),
    *("precision", "reduce_dtype", "preemption.*"),
)
NOT_RESUMABLE = "ppo.minibatches"
RESUME_AUTO = "auto"  # resume=auto: what run_dir holds, or a new run there


def check_resumable(name: str, value: object) -> None:
    """Raises ConfigError if this setting belongs to what makes a run the one that it is."""
    if name == NOT_RESUMABLE or not any(fnmatchcase(name, pattern) for pattern in RESUMABLE):
        can = f"{', '.join(RESUMABLE)}, but not {NOT_RESUMABLE}"
        raise ConfigError(name, value, f"cannot change when a run is resumed; start a new one (what can: {can})")

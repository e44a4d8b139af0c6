"""What a command will do: everything that can be checked before torch is imported and learners connect."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dist_trainer.batch_scaling import scale_batch
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.checkpoint_search import find_checkpoint, run_of
from dist_trainer.cli import (
    GROUPS_WITH_TARGET,
    Setting,
    apply,
    check_key,
    compose_train,
    load_train_config,
    parse,
)
from dist_trainer.config import LARGEST_INT32, TrainConfig
from dist_trainer.config_files import GROUPS
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.pools import env_spec
from dist_trainer.resumable import RESUME_AUTO, check_resumable
from dist_trainer.run_folder import CONFIG_FILE, begun_by_this_launcher, check_run_dir, default_folders
from dist_trainer.target import check_module, targets
from dist_trainer.teams import check_teams
from dist_trainer.validation import check_division, check_settings, validate_doctor
from dist_trainer.verb_configs import DoctorConfig


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """A run that can start."""

    config: TrainConfig
    default_name: tuple[str, str]  # policy and optimizer, for the run folder's name
    resume_from: Path | None  # checkpoint file
    goes_on: bool = False  # with the newest checkpoint there is; what was begun without one is begun again


def plan_train(arguments: Sequence[str], world_size: int, is_first: bool = True) -> TrainPlan:
    """Raises ConfigError.

    Of several learners only the first reads checkpoints and tries the folder (`is_first`). On a shared file system each
    may see something else for a while: when they have met, the others take its plan for theirs.
    """
    settings = parse(arguments)
    resume = next((setting.value for setting in settings if setting.key == "resume"), None)
    if resume and resume != RESUME_AUTO:
        settings = [setting for setting in settings if setting.key != "resume"]
        plan, is_new = _plan_resume(resume, settings, is_first), False
    else:
        plan = _plan_by_folder(arguments, settings, resume == RESUME_AUTO, is_first)
        is_new = plan.resume_from is None
    config = plan.config
    check_settings(config)
    if is_new:  # a run that goes on keeps the batch that it began with
        config = scale_batch(config, world_size)
    check_division(config, world_size, resumed=not is_new)
    for group in GROUPS_WITH_TARGET:
        check_module(group, str(getattr(config, group)["_target_"]))
    spec = env_spec(config.env)
    check_policy_fits(config, spec)
    check_teams(config, spec)
    check_memory(config, spec)
    return dataclasses.replace(plan, config=config)


def _plan_resume(resume: str, settings: Sequence[Setting], is_first: bool) -> TrainPlan:
    """`resume` names a run folder or a checkpoint; the configuration is that of the run."""
    run_dir = run_of(resume)
    again = begun_by_this_launcher(run_dir)  # not a second time from the checkpoint that was named
    checkpoint = find_checkpoint(str(run_dir) if again else resume, "resume") if is_first else None
    library = next((str(Path(s.value).resolve()) for s in reversed(settings) if s.key == "env.library"), None)
    settings = [setting for setting in settings if setting.key != "env.library"]
    base = OmegaConf.structured(load_train_config(run_dir, library=library))
    for setting in settings:
        if setting.key not in GROUPS:
            check_key(OmegaConf.to_container(base), setting)
        check_resumable(setting.key, setting.value)
    config = dataclasses.replace(apply(base, settings), run_dir=str(run_dir))
    return TrainPlan(config, ("", ""), checkpoint, goes_on=again)


def _plan_by_folder(arguments: Sequence[str], settings: Sequence[Setting], auto: bool, is_first: bool) -> TrainPlan:
    """A new run; or the one of its folder, if that is to go on."""
    asked, chosen = compose_train([argument for argument in arguments if not argument.startswith("resume=")])
    names = (chosen["policy"], chosen["optimizer"])
    if auto and not asked.run_dir:
        raise ConfigError("resume", RESUME_AUTO, "needs run_dir: the folder of the run that goes on, or begins there")
    folder = _folder_that_goes_on(asked, names, auto)
    if folder is None:
        if is_first and asked.run_dir:
            check_run_dir(asked.run_dir)
        return TrainPlan(asked, names, None, goes_on=auto)
    found = list_checkpoints(folder)
    if not found:
        return TrainPlan(dataclasses.replace(asked, run_dir=str(folder)), names, None, goes_on=True)
    checkpoint = find_checkpoint(str(folder), "run_dir") if is_first else found[-1]
    known = {path for group in GROUPS_WITH_TARGET for path in targets(getattr(asked, group))} | {str(asked.env.id)}
    before = dataclasses.replace(load_train_config(folder, known, asked.env.library), run_dir=str(folder))
    return TrainPlan(_changed(before, asked, settings), names, checkpoint, goes_on=True)


def _folder_that_goes_on(asked: TrainConfig, names: tuple[str, str], auto: bool) -> Path | None:
    """The folder of `run_dir` if it holds a run and that is asked for, or if it was begun by the torchrun that has
    started this learner, too: then the learners have been restarted."""
    if auto and asked.run_dir:
        folder = Path(asked.run_dir)
        return folder if (folder / CONFIG_FILE).exists() or list_checkpoints(folder) else None
    folders = [Path(asked.run_dir)] if asked.run_dir else default_folders(asked.env.name, *names)
    return next((folder for folder in folders if begun_by_this_launcher(folder)), None)


def _changed(before: TrainConfig, asked: TrainConfig, settings: Sequence[Setting]) -> TrainConfig:
    """The configuration of a run that goes on by the command that began it, or by another.

    `settings` change what may change; the others must be what they were. Raises ConfigError.
    """
    if asked.batch_scaling.reference_learners and before.batch_scaling.reference_learners:
        asked = scale_batch(asked, before.batch_scaling.reference_learners)
    old, new = (_leaves(dataclasses.asdict(config)) for config in (before, asked))
    given = [setting.key for setting in settings if setting.key not in ("run_dir", "resume")]
    changes = []
    for name, value in new.items():
        if name in old and old[name] == value:
            continue
        if any(name == key or name.startswith(key + ".") for key in given if key not in GROUPS):
            check_resumable(name, value)
            changes.append(Setting(name, value))
        elif name.partition(".")[0] in given:  # a group that was chosen; what of it may change stays as it was
            check_resumable(name, value)
    return apply(OmegaConf.structured(before), changes)


def _leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their names with dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def learner_is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def check_policy_fits(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises ConfigError if the policy has no head for the environment's actions."""
    kinds = config.policy.get("action_kinds", [])
    if spec.action_kind not in kinds:
        valid = (
            f"{config.env.name} has {spec.action_kind} actions, which this policy does not list; choose another policy"
        )
        raise ConfigError("policy.action_kinds", kinds, valid)


def check_memory(config: TrainConfig, spec: EnvSpec) -> None:
    """Raises ConfigError if a rollout cannot fit: a bound from below, without what the policy needs."""
    rows = config.total_envs * spec.num_agents
    if rows > LARGEST_INT32:
        raise ConfigError("total_envs", config.total_envs, f"must be at most {LARGEST_INT32 // spec.num_agents}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    here = launched("LOCAL_WORLD_SIZE") / launched("WORLD_SIZE")  # the share of this machine
    lengths = {"horizon": config.horizon}
    if config.normalize.observations and not spec.observation_is_bytes:
        lengths["normalize.warmup_steps"] = config.normalize.warmup_steps
    for name, steps in lengths.items():
        needed = here * rows * steps * spec.sample_bytes
        if needed > memory:
            sizes = f"{needed / 2**30:.4g} GiB; this machine has {memory / 2**30:.4g} GiB"
            raise ConfigError(name, steps, f"with total_envs={config.total_envs} a rollout needs at least {sizes}")


def plan_doctor(arguments: Sequence[str]) -> DoctorConfig:
    """Raises ConfigError."""
    config: DoctorConfig = apply(OmegaConf.structured(DoctorConfig), parse(arguments))
    validate_doctor(config)
    return config


def job_text(verb: str, arguments: Sequence[str]) -> str:
    """What `--cfg job` prints: the resolved configuration. Raises ConfigError if it could not be run."""
    if verb not in ("train", "evaluate"):
        raise ConfigError("--cfg", "job", f"shows what train, evaluate, sweep and benchmark would do, not {verb}")
    is_train = verb == "train"
    config: Any = plan_train(arguments, launched("WORLD_SIZE")).config if is_train else plan_evaluate(arguments).config
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def launched(variable: str) -> int:
    """WORLD_SIZE or LOCAL_WORLD_SIZE as torchrun sets it. Raises ConfigError where it is no number."""
    value = os.environ.get(variable, "1")
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(variable, value, "the launcher must set a number of at least 1")
    return int(value)

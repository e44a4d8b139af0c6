"""What `watch`, `play` and `record` will show: everything that can be checked before torch is imported."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dist_trainer.action_names import choice_names, number_names
from dist_trainer.cli import Setting, apply, compose_train, parse
from dist_trainer.config import EnvConfig, TrainConfig
from dist_trainer.errors import ConfigError, choices
from dist_trainer.keymap import make_keymap
from dist_trainer.plan_trained import check_writable, find_trained_checkpoint, load_trained
from dist_trainer.pools import env_spec
from dist_trainer.verb_configs import PlayConfig, RecordConfig, WatchConfig

ENV_PREFIXES = ("env.params.", "env.view.")  # what may differ from the training
MOST_FPS = 1000.0
DEVICES = ("auto", "cpu", "cuda")
VIDEOS = (".gif", ".mp4")
MOST_SCALE = 16  # of a recording


@dataclasses.dataclass(frozen=True)
class Trained:
    config: TrainConfig
    checkpoint: Path


@dataclasses.dataclass(frozen=True)
class ViewPlan:
    """An environment that can be shown."""

    env: EnvConfig
    fps: float
    trained: Trained | None  # None: there is no policy


def plan_watch(arguments: Sequence[str]) -> tuple[WatchConfig, ViewPlan]:
    """Raises ConfigError, also where pygame is missing."""
    own, settings = _split(parse(arguments))
    config: WatchConfig = apply(OmegaConf.structured(WatchConfig), own)
    _check(config)
    trained = _find_trained(config.checkpoint, config, settings)
    plan = _plan(trained.config.env, config.fps, trained)
    require_modules("watch", "pygame")
    return config, plan


def plan_play(arguments: Sequence[str]) -> tuple[PlayConfig, ViewPlan]:
    """Raises ConfigError, also where pygame is missing, or the environment declares no keys."""
    own, settings = _split(parse(arguments))
    config: PlayConfig = apply(OmegaConf.structured(PlayConfig), own)
    _check(config)
    if config.checkpoint is None:
        if not any(setting.key in ("env", "env.name") for setting in settings):
            raise ConfigError("env", "", "is required: which environment to play; or checkpoint=RUN, to play beside it")
        chosen = [text for text in arguments if text.partition("=")[0].split(".")[0] == "env"]
        plan = _plan(compose_train(chosen)[0].env, config.fps, None)
    else:
        trained = _find_trained(config.checkpoint, config, settings)
        plan = _plan(trained.config.env, config.fps, trained)
    if not plan.env.view.keys:
        raise ConfigError("env.view.keys", "", f"is empty: {plan.env.name} says no keys to play it with (configs/env)")
    require_modules("play", "pygame")
    in_turn = plan.env.view.turn_based and env_spec(plan.env).num_agents > 1
    always = config.always if config.always is not None else plan.trained is None or in_turn
    return dataclasses.replace(config, always=always), plan


def plan_record(arguments: Sequence[str]) -> tuple[RecordConfig, ViewPlan]:
    """Raises ConfigError, also where a module is missing that writes the video."""
    own, settings = _split(parse(arguments))
    config: RecordConfig = apply(OmegaConf.structured(RecordConfig), own)
    _check(config)
    for name in ("episodes", "steps", "scale"):
        if getattr(config, name) < 1:
            raise ConfigError(name, getattr(config, name), "must be at least 1")
    if config.scale > MOST_SCALE:
        raise ConfigError("scale", config.scale, f"must be at most {MOST_SCALE}: pictures are hundreds of pixels wide")
    if Path(config.output).suffix not in VIDEOS:
        raise ConfigError("output", config.output, f"must end with {' or '.join(VIDEOS)}")
    trained = _find_trained(config.checkpoint, config, settings)
    plan = _plan(trained.config.env, config.fps, trained)
    require_modules("record", "imageio", *(["imageio_ffmpeg"] if config.output.endswith(".mp4") else []))
    if config.overlay:
        require_modules("record overlay=true", "pygame")
    check_writable("output", Path(config.output))
    return config, plan


def require_modules(what: str, *names: str, extra: str = "watch") -> None:
    """Raises ConfigError that says how to install them."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on the command's output
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        how = f"needs {' and '.join(missing)}: pip install 'dist_trainer[{extra}]'"
        raise ConfigError("verb", what, how)


def _split(settings: Sequence[Setting]) -> tuple[list[Setting], list[Setting]]:
    """The verb's own settings, and those of the environment."""
    of_env = [setting for setting in settings if setting.key.split(".")[0] == "env"]
    return [setting for setting in settings if setting not in of_env], of_env


def _check(config: WatchConfig | PlayConfig | RecordConfig) -> None:
    for name, limit in (("seed", 2**63), ("show", 2**31)):
        if not 0 <= getattr(config, name) < limit:
            raise ConfigError(name, getattr(config, name), f"must be from 0 to {limit - 1}")
    if config.device not in DEVICES:
        raise ConfigError("device", config.device, choices(DEVICES, config.device))
    if config.steps is not None and config.steps < 1:
        raise ConfigError("steps", config.steps, "must be at least 1")
    _check_fps("fps", config.fps)


def _check_fps(field: str, fps: float | None) -> None:
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= MOST_FPS):
        raise ConfigError(field, fps, f"must be above 0, at most {MOST_FPS:g}")


def _find_trained(checkpoint: str, config: Any, settings: Sequence[Setting]) -> Trained:
    found = find_trained_checkpoint(checkpoint, config.best)
    for setting in settings:
        if not setting.key.startswith(ENV_PREFIXES):
            valid = (
                f"the checkpoint says which environment; of it may change: {', '.join(f'{p}*' for p in ENV_PREFIXES)}"
            )
            raise ConfigError(setting.key, setting.value, valid)
    of_params, of_view = ([s for s in settings if s.key.startswith(prefix)] for prefix in ENV_PREFIXES)
    trained = load_trained(found, config.library, of_params)
    return Trained(apply(OmegaConf.structured(trained), of_view), found)


def _plan(env: EnvConfig, fps: float | None, trained: Trained | None) -> ViewPlan:
    spec = env_spec(env)
    if spec.picture is None:
        raise ConfigError("env", env.name, "has no picture (render() of cpp_envs/env.h): there is nothing to see")
    make_keymap(env.view, spec)
    (number_names if spec.action_kind == "continuous" else choice_names)(env.view, spec)
    view = env.view
    _check_fps("env.view.fps", view.fps)
    if view.seconds_per_step is not None and not 0 < view.seconds_per_step < math.inf:
        raise ConfigError("env.view.seconds_per_step", view.seconds_per_step, "must be above 0")
    room = math.prod(spec.observation_shape)
    good = not view.planes or (len(view.planes) == 2 and min(view.planes) > 0 and math.prod(view.planes) <= room)
    if not good:
        raise ConfigError("env.view.planes", view.planes, f"must be [height, width], of at most {room} cells")
    return ViewPlan(env, min(MOST_FPS, fps or view.steps_per_second), trained)

"""From SETTING=VALUE on the command line, and yaml files, to a typed configuration. Imports hydra but not torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dist_trainer.config import FOREIGN_ENVS, EnvConfig, TrainConfig
from dist_trainer.config_files import GROUPS, config_dir, group_file, group_files, own_config_dirs
from dist_trainer.envs import load_library
from dist_trainer.errors import ConfigError, choices
from dist_trainer.pools import default_params
from dist_trainer.run_folder import CONFIG_FILE
from dist_trainer.target import check_id, check_library, check_trusted

GROUPS_WITH_TARGET = ("policy", "optimizer")
MOST_CONFIG_BYTES = 1 << 20  # of a run folder's; ours have 5,000
PATHS = (
    "run_dir",
    "resume",
    "checkpoint",
    "json",
    "output",
    "csv",
    "markdown",
    "env.library",
    "library",
    "folder",
    "sweep.folder",
    "sweep.space",
)  # taken as they are written; null is none


@dataclasses.dataclass(frozen=True)
class Setting:
    """One SETTING=VALUE of the command line."""

    key: str
    value: Any


def parse(arguments: Sequence[str]) -> list[Setting]:
    """Raises ConfigError where an argument is no setting."""
    parser = OverridesParser.create()
    parsed = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals and key in PATHS:  # Hydra's grammar would read commas, parentheses and $ as its own
            if not text:
                raise ConfigError(key, "", "must not be empty")
            parsed.append(Setting(key, None if text == "null" else text))
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException:
            raise ConfigError("argument", repr(argument), "must be SETTING=VALUE; see --help") from None
        if override.is_delete() or override.is_sweep_override() or override.package:
            valid = "must be SETTING=VALUE; settings cannot be removed, swept or moved here"
            raise ConfigError(override.key_or_group, override.input_line, valid)
        parsed.append(Setting(override.key_or_group, override.value()))
    return parsed


def _one_line(error: Exception) -> str:
    noise = ("full_key", "object_type", "reference_type")
    return " ".join(
        line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().startswith(noise)
    )


def check_key(defaults: Any, setting: Setting) -> None:
    """A setting must exist."""
    if setting.key.startswith("env.params.") and defaults.get("env", {}).get("name") in FOREIGN_ENVS:
        return  # the engine knows which it takes
    node, prefix = defaults, ""
    for part in setting.key.split("."):
        if not isinstance(node, dict):
            raise ConfigError(setting.key, setting.value, f"{prefix.rstrip('.')} is a single value")
        if part not in node:
            valid = choices([prefix + name for name in node], setting.key) if node else f"{prefix}* is empty"
            raise ConfigError(setting.key, setting.value, "no such setting; " + valid)
        node, prefix = node[part], f"{prefix}{part}."


def _check_types(group: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Groups with a _target_ have no dataclass: a value must be of the type of its default in the yaml."""
    for name, default in defaults.items():
        value, field = values[name], f"{group}.{name}"
        if value is None and (group == "optimizer.groups" or field == "optimizer.shard_group"):
            continue  # no such group then; or those of a machine, also in a run that began with others
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise ConfigError(
                    field, value, f"has settings of its own: {', '.join(f'{field}.{key}' for key in default)}"
                )
            _check_types(field, value, default)
        elif not _like(value, default, any_length=group != "optimizer"):
            wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}
            kind = wanted.get(type(default).__name__, f"a {type(default).__name__} like the default")
            raise ConfigError(field, value, f"must be {kind}; the default is {default}")


def _like(value: Any, default: Any, any_length: bool) -> bool:
    if isinstance(default, list) and isinstance(value, list):
        if any_length and default:
            default = default[:1] * len(value)
        return len(value) == len(default) and all(_like(*pair, any_length) for pair in zip(value, default, strict=True))
    return default is None or type(value) is type(default) or (type(value) is int and type(default) is float)


def apply(base: DictConfig, settings: Sequence[Setting]) -> Any:
    """`base` with the settings, as its dataclass. Raises ConfigError."""
    defaults: Any = OmegaConf.to_container(base)
    try:
        for setting in settings:
            check_key(defaults, setting)
            literal = setting.value
            if setting.key in PATHS and literal is not None:
                literal = literal.replace("${", r"\${")
            OmegaConf.update(base, setting.key, literal)
        typed = OmegaConf.to_object(base)
    except OmegaConfBaseException as error:
        raise _as_config_error(error) from None
    for group in set(GROUPS_WITH_TARGET) & set(defaults):
        _check_types(group, getattr(typed, group), defaults[group])
    return typed


def compose_train(arguments: Sequence[str]) -> tuple[TrainConfig, dict[str, str]]:
    """The configuration of a new run, and the chosen file of each group. Raises ConfigError."""
    settings = parse(arguments)
    files = {}
    for setting in settings:
        if setting.key in GROUPS:
            group_file(setting.key, str(setting.value))
            files[setting.key] = setting.value
    ConfigStore.instance().store(name="schema", node=TrainConfig)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            chosen = [f"{group}={file}" for group, file in files.items()]
            chosen.append(f"hydra.searchpath=[{','.join(map(_quoted, own_config_dirs()))}]")
            base = compose("train", chosen, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise _as_config_error(error) from None
    names = {group: base.hydra.runtime.choices[group] for group in GROUPS}
    OmegaConf.set_struct(base, False)
    del base["hydra"]
    settings = [_with_absolute_library(setting) for setting in settings if setting.key not in GROUPS]
    base.env.library = _library_of_yaml(base.env.library, names["env"])
    given = {setting.key: setting.value for setting in settings}
    load_library(given.get("env.library", base.env.library))
    base.env.params = {**default_params(given.get("env.name", base.env.name)), **base.env.params}
    return apply(base, settings), names


def _with_absolute_library(setting: Setting) -> Setting:
    is_one = setting.key == "env.library" and setting.value is not None
    return Setting(setting.key, str(Path(setting.value).resolve())) if is_one else setting


def _library_of_yaml(library: str | None, name: str) -> str | None:
    """The path in the yaml begins at the yaml's folder."""
    return library and str((group_file("env", name).parent / library).resolve())


def load_env_config(name: str) -> EnvConfig:
    """Of a yaml of the group env, its library not loaded yet. Raises ConfigError."""
    file = group_file("env", name)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(EnvConfig), OmegaConf.load(file)))
    except (OmegaConfBaseException, yaml.YAMLError, OSError) as error:
        raise ConfigError("env", file, _one_line(error)) from None
    assert isinstance(config, EnvConfig)
    return dataclasses.replace(config, library=_library_of_yaml(config.library, name))


def _quoted(folder: Path) -> str:
    """For Hydra's grammar."""
    text = str(folder).replace("'", "\\'")
    return f"'file://{text}'"


def _as_config_error(error: Exception) -> ConfigError:
    cause: BaseException | None = error
    while cause and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    field = str(getattr(cause, "full_key", None) or "configuration")
    if isinstance(cause, MissingMandatoryValue):
        return ConfigError(field, "", "is required")
    message = _one_line(cause if isinstance(cause, Exception) else error)
    if "is not Optional" in message:
        return ConfigError(field, "null", "must have a value")
    value = re.search(r"[Vv]alue '(.*?)'", message)
    return ConfigError(field, value.group(1) if value else "", message)


def load_train_config(run_dir: Path, known: Collection[str] = (), library: str | None = None) -> TrainConfig:
    """The configuration that a run folder was made with; it may come from a stranger.

    `library`: of environments, named by whoever has given the command; it takes the place of the folder's. Raises
    ConfigError; also if the folder names classes that are not trusted (see target.check_trusted), nor in configs/, nor
    among `known`, or a library that is not trusted, nor in configs/.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ConfigError("run folder", run_dir, f"is not one: it has no {CONFIG_FILE}")
    try:
        text = small_text(path)
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(text))
        typed: Any = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, OSError, yaml.YAMLError) as error:
        raise ConfigError("run folder", path, _one_line(error)) from None
    for group in GROUPS_WITH_TARGET:
        check_trusted(group, getattr(typed, group), {*known, *_targets_of_configs(group)})
    if typed.env.id is not None:
        check_id(typed.env.id, known)
    if library is not None:
        typed.env.library = library
    elif typed.env.library is not None:
        own = {load_env_config(name).library for name in group_files("env")}
        check_library(typed.env.library, {path for path in own if path})
    return typed


def small_text(path: Path) -> str:
    """Of a yaml file that cannot grow when it is read: an alias may stand for much, and be part of another."""
    with path.open() as file:
        text = file.read(MOST_CONFIG_BYTES + 1)
    if len(text) > MOST_CONFIG_BYTES:
        raise ValueError(f"is larger than {MOST_CONFIG_BYTES} bytes")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("has aliases (*name), which no run writes")
    return text


def _targets_of_configs(group: str) -> set[str]:
    """Classes that the user's own yaml files name."""
    files = group_files(group).values()
    return {path for file in files for path in re.findall(r"^ *_target_: *(\S+)", file.read_text(), re.MULTILINE)}

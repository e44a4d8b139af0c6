"""The class that a yaml names by its path (`_target_`): no registry to edit for a new policy or optimizer.

To import a module and to call a class is to run code. Whoever names a class on the command line, or in configs/, wants
that. A run folder may come from a stranger; of it, classes of a few packages alone are taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from dist_trainer.errors import ConfigError

TRUSTED_PACKAGES = ("dist_trainer", "heavyball", "torch.optim")
TRUST = "DIST_TRAINER_TRUST"  # environment variable: more packages, and libraries of environments, separated by commas


def check_module(group: str, path: str) -> None:
    """Raises ConfigError if the class's module is nowhere to be found. Imports nothing, so it takes no time."""
    top, *rest = path.split(".")[:-1] or [""]
    spec, module = (importlib.util.find_spec(top) if top else None), top
    for part in rest:
        module += "." + part
        # Not importlib.util.find_spec: it would import the packages above, and torch with them.
        spec = PathFinder.find_spec(module, spec.submodule_search_locations) if spec else None
    if spec is None:
        raise ConfigError(f"{group}._target_", path, f"must be package.module.Class; there is no module {module!r}")


def targets(settings: dict[str, Any]) -> Iterator[str]:
    """All that are named in a group, in groups inside it as well."""
    for key, value in settings.items():
        if key == "_target_":
            yield str(value)
        elif isinstance(value, dict):
            yield from targets(value)


def check_trusted(group: str, settings: dict[str, Any], known: Collection[str]) -> None:
    """Raises ConfigError if the group names a class that is neither one of `known` nor of a trusted package."""
    packages = [*TRUSTED_PACKAGES, *filter(None, os.environ.get(TRUST, "").split(","))]
    for path in targets(settings):
        if path not in known and not any(path.startswith(f"{package}.") for package in packages):
            valid = f"the run folder asks for code from elsewhere than {', '.join(packages)}; if you trust it, set "
            raise ConfigError(f"{group}._target_", path, f"{valid}{TRUST}={path.partition('.')[0]}")


def check_id(name: str, known: Collection[str]) -> None:
    """Gymnasium imports the module in an id "module:Name-v0". Raises ConfigError if the run folder's is not trusted."""
    module, colon, _ = name.partition(":")
    if colon and name not in known and module not in os.environ.get(TRUST, "").split(","):
        valid = f"the run folder asks for the code of a module; if you trust it, set {TRUST}={module}"
        raise ConfigError("env.id", name, valid)


def check_library(path: str, known: Collection[str]) -> None:
    """Raises ConfigError if the run folder's library is neither one of `known` nor trusted by its path."""
    trusted = filter(None, os.environ.get(TRUST, "").split(","))
    if path not in known and not any(str(Path(own).resolve()) == path for own in trusted):
        valid = "the run folder asks for the code of a library; if you trust it, name it yourself or set "
        raise ConfigError("env.library", path, f"{valid}{TRUST}={path}")


def make(group: str, path: str, base: type, *arguments: Any, **settings: Any) -> Any:
    """An instance of the class at `path`.

    Raises ConfigError if there is none, it is not derived from `base`, or it does not take these settings.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{group}._target_", path, f"must be the import path of a class ({reason})") from None
    if not isinstance(found, type) or not issubclass(found, base):
        raise ConfigError(f"{group}._target_", path, f"must be a {base.__module__}.{base.__qualname__}")
    try:
        return found(*arguments, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(group, path, f"does not take the settings of {group}.* ({reason})") from error

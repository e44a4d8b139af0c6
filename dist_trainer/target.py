"""The class that a yaml names by its path (`_target_`): no registry to edit for a new policy or optimizer."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import PathFinder
from typing import Any

from dist_trainer.errors import ConfigError


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


def make(group: str, path: str, *arguments: Any, **settings: Any) -> Any:
    """An instance of the class at `path`. Raises ConfigError if there is none, or it does not take these settings."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{group}._target_", path, f"must be the import path of a class ({reason})") from None
    try:
        return found(*arguments, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(group, path, f"does not take the settings of {group}.* ({reason})") from error

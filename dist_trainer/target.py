"""The class that a yaml names by its path (`_target_`): no registry to edit for a new policy or optimizer."""

from __future__ import annotations

import importlib
from typing import Any

from dist_trainer.errors import ConfigError


def find_class(group: str, path: str) -> Any:
    """Raises ConfigError if there is no such class."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{group}._target_", path, f"must be the import path of a class ({reason})") from None

"""The one exception that a user's mistake raises; it is printed as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting that cannot work: names the field, its value, and what would be valid."""

    def __init__(self, field: str, value: object, valid: str):
        super().__init__(f"{field}={value}: {valid}")


def choices(valid: Iterable[str], given: str) -> str:
    """'valid: a, b, c' with the closest match first when there is one."""
    names = sorted(valid)
    close = difflib.get_close_matches(given, names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + "valid: " + ", ".join(names)

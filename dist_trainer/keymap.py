"""Keys that a player of an environment may press, as its yaml declares them: `env.view.keys` and `idle`.

Legend: C action components.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dist_trainer.config import ViewConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError, choices

Action = tuple[float, ...]  # (C,) whole numbers if discrete

# As pygame names them. Those of the window itself cannot be keys of an environment.
WINDOW_KEYS = ("space", ".", "+", "-", "=", "tab", "o", "s", "n", "escape", "left shift", "t")
KEY_NAMES = tuple(
    name
    for name in (
        *("left", "right", "up", "down", "return", "backspace", "left ctrl", "right shift", "right ctrl"),
        *("page up", "page down", "home", "end", "insert", "delete", ",", "/", ";", "'", "[", "]"),
        *string.ascii_lowercase,
        *string.digits,
        *(f"[{digit}]" for digit in string.digits),  # of the number pad
    )
    if name not in WINDOW_KEYS
)
LAST = "last"


@dataclass(frozen=True)
class Entry:
    keys: frozenset[str]  # held together
    action: tuple[float | None, ...]  # (C,); None: says nothing about that component


@dataclass(frozen=True)
class KeyMap:
    spec: EnvSpec
    entries: tuple[Entry, ...]
    idle: Action | None  # None: wait for a key
    repeats: bool = False  # the action before is the idle one

    @property
    def names(self) -> frozenset[str]:
        """All keys that mean something, alone or with others."""
        return frozenset(name for entry in self.entries for name in entry.keys)

    def action(self, held: Sequence[str], before: Action | None = None) -> Action | None:
        """What is meant by the keys that are down, in the order in which they were pressed. None: nothing yet.

        Of entries for the same component that of more keys counts, then the one that was completed last; continuous
        ones add up. `before`: the action before.
        """
        order = {name: index for index, name in enumerate(held)}
        down = [entry for entry in self.entries if entry.keys <= order.keys()]
        down = [entry for entry in down if not any(entry.keys < other.keys for other in down)]
        down.sort(key=lambda entry: max(order[name] for name in entry.keys))
        idle = before if self.repeats and before is not None else self.idle
        continuous = self.spec.action_kind == "continuous"
        chosen: list[float | None] = list(idle) if idle is not None else [None] * self.spec.action_components
        for entry in down:
            for index, value in enumerate(entry.action):
                if value is not None:
                    chosen[index] = (chosen[index] or 0) + value if continuous else value
        if any(value is None for value in chosen):
            return None
        action = [value for value in chosen if value is not None]
        if continuous:
            bounds = zip(action, self.spec.action_low, self.spec.action_high, strict=True)
            action = [min(max(value, low), high) for value, low, high in bounds]
        return tuple(action)


def make_keymap(view: ViewConfig, spec: EnvSpec) -> KeyMap:
    """Raises ConfigError if an entry cannot be."""
    entries = []
    for text, value in view.keys.items():
        field = f"env.view.keys.{text}"
        names = text.split("+")
        for name in names:
            if name in WINDOW_KEYS:
                raise ConfigError(field, name, f"is a key of the window itself, as {', '.join(WINDOW_KEYS)}")
            if name not in KEY_NAMES:
                raise ConfigError(field, name, "no such key; " + choices(KEY_NAMES, name))
        entries.append(Entry(frozenset(names), _components(field, value, spec, partial=True)))
    if len({entry.keys for entry in entries}) < len(entries):
        raise ConfigError("env.view.keys", ", ".join(view.keys), "the same keys are there twice, in another order")
    repeats = view.idle == LAST
    idle: Action | None = None
    if repeats:
        first = tuple(0.0 for _ in range(spec.action_components))
        idle = tuple(map(max, first, spec.action_low)) if spec.action_kind == "continuous" else first
    elif view.idle is not None:
        whole = _components("env.view.idle", view.idle, spec, partial=False)
        idle = tuple(value for value in whole if value is not None)
    elif not view.turn_based and entries:
        raise ConfigError("env.view.idle", None, "is required where turn_based is false: what a player does meanwhile")
    return KeyMap(spec, tuple(entries), idle, repeats)


def _components(field: str, value: Any, spec: EnvSpec, *, partial: bool) -> tuple[float | None, ...]:
    """(C,) of a yaml's number or list. Raises ConfigError."""
    count = spec.action_components
    values = value if isinstance(value, list) else [value]
    one = "a number" if count == 1 else f"a list of {count} numbers"
    if len(values) != count:
        raise ConfigError(field, value, f"must be {one}, as this environment's actions are")
    for index, entry in enumerate(values):
        if entry is None and partial and count > 1:
            continue
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise ConfigError(field, value, f"must be {one}")
        if spec.action_kind == "continuous":
            low, high = spec.action_low[index], spec.action_high[index]
            if not partial and not low <= entry <= high:
                raise ConfigError(field, value, f"must be from {low:g} to {high:g}")
        elif entry not in range(spec.action_sizes[index]):
            raise ConfigError(field, value, f"must be a choice, 0 to {spec.action_sizes[index] - 1}")
    return tuple(None if entry is None else float(entry) for entry in values)

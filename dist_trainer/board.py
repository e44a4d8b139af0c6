"""Texts by name that all learners see and nobody waits for, in the store through which they have met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Store(Protocol):
    """What is needed of torch's stores. They raise RuntimeError when they are gone."""

    def set(self, key: str, value: str, /) -> None: ...
    def check(self, keys: list[str], /) -> bool: ...
    def multi_get(self, keys: list[str], /) -> list[bytes]: ...
    def delete_key(self, key: str, /) -> bool: ...


class Board:
    def __init__(self, store: Store):
        self._store = store

    def post(self, name: str, text: str) -> None:
        self._store.set(_key(name), text)

    def read(self, names: Sequence[str]) -> list[str] | None:
        """None if not all of them have been posted."""
        keys = [_key(name) for name in names]
        return [text.decode() for text in self._store.multi_get(keys)] if self._store.check(keys) else None

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._store.delete_key(_key(name))


def _key(name: str) -> str:
    return f"dist_trainer/board/{name}"

"""The learners of one attempt find each other, in a store that may still hold what was said in earlier attempts.

torchrun keeps its store when it starts learners anew, and no number of an attempt is the same on all its agents. gloo
would read the addresses of processes that are gone. So the learners first agree on a name that is new: the first draws
it and gives it to whoever has just asked, by a question that was never asked before. Whoever does not come is named.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Protocol

LOOK_S = 0.02  # between two looks
SPEAK_S = 2.0  # the first learner, which may hold the store, stays for so long that the others can read who is missing
_ARRIVAL = "dist_trainer/arrival"


class Store(Protocol):
    """What is needed of torch's stores."""

    def set(self, key: str, value: str, /) -> None: ...
    def check(self, keys: list[str], /) -> bool: ...
    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


class LearnersMissing(RuntimeError):
    """Some learner did not come in time; the text says which."""


def arrive(store: Store, rank: int, size: int, patience_s: float, where: str) -> str:
    """The name of this attempt, when all of its learners have come. All must call it.

    Args:
        where: what the others may say of this learner, such as its machine.

    Raises LearnersMissing.
    """
    until = time.monotonic() + patience_s
    return _receive(store, size, until, where) if rank == 0 else _ask(store, rank, until, where)


def _receive(store: Store, size: int, until: float, where: str) -> str:
    """What the first learner does."""
    name, here = secrets.token_hex(8), {0: where}
    told: dict[int, tuple[str, str]] = {}  # by rank: the question that was answered, and from where it came
    store.set(_key(name, "missing"), "none of them is known")
    while True:
        for rank in set(range(size)) - set(here):
            question = _read(store, _key("question", rank))
            if question is None:
                continue
            number, _, place = question.partition(" ")
            if told.get(rank) != (number, place):
                store.set(_key("answer", rank, number), name)
                told[rank] = (number, place)
            if store.check([_key(name, "here", rank)]):
                here[rank] = place
        if len(here) == size:
            store.set(_key(name, "all"), "yes")
            return name
        missing = _missing(size, here, {rank: place for rank, (_, place) in told.items()})
        store.set(_key(name, "missing"), missing)
        if time.monotonic() > until + SPEAK_S:
            raise LearnersMissing(f"learner 0: {missing}")
        time.sleep(LOOK_S)


def _ask(store: Store, rank: int, until: float, where: str) -> str:
    """What the others do."""
    number = secrets.token_hex(8)
    store.set(_key("question", rank), f"{number} {where}")
    name = _wait_for(store, _key("answer", rank, number), until)
    if name is None:
        raise LearnersMissing(f"learner {rank}: learner 0 has not come")
    store.set(_key(name, "here", rank), "yes")
    if _wait_for(store, _key(name, "all"), until) is None:
        raise LearnersMissing(f"learner {rank}: {_read(store, _key(name, 'missing'))}")
    return name


def _missing(size: int, here: Mapping[int, str], before: Mapping[int, str]) -> str:
    """Says who has not come, and where those are that have."""
    ranks = (rank for rank in range(size) if rank not in here)
    absent = [f"{rank} (before on {before[rank]})" if rank in before else str(rank) for rank in ranks]
    places = ", ".join(sorted(set(here.values())))
    return f"{len(absent)} of {size} learners have not come: {', '.join(absent)}; those on {places} are there"


def _wait_for(store: Store, key: str, until: float) -> str | None:
    while (value := _read(store, key)) is None and time.monotonic() < until:
        time.sleep(LOOK_S)
    return value


def _read(store: Store, key: str) -> str | None:
    return store.multi_get([key])[0].decode() if store.check([key]) else None


def _key(*parts: object) -> str:
    return "/".join([_ARRIVAL, *map(str, parts)])

"""Learners agree on a name for their attempt, whatever earlier attempts left in the store; the missing are named."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dist_trainer import arrival
from dist_trainer.arrival import LearnersMissing, arrive


class Board:
    """A store for threads. Keys are never removed, as torchrun's store never forgets."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def set(self, key: str, value: str, /) -> None:
        with self.lock:
            self.values[key] = value.encode()

    def check(self, keys: list[str], /) -> bool:
        with self.lock:
            return all(key in self.values for key in keys)

    def multi_get(self, keys: list[str], /) -> list[bytes]:
        with self.lock:
            return [self.values[key] for key in keys]


def together(board: Board, ranks: list[int], size: int, patience_s: float) -> list[str]:
    """What arrive returned to each, or said in its exception; `ranks` in the order in which they come."""

    def come(rank: int) -> str:
        try:
            return arrive(board, rank, size, patience_s, f"host{rank % 2}")
        except LearnersMissing as error:
            return str(error)

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(come, ranks))


@pytest.mark.parametrize("ranks", [[0, 1, 2, 3], [3, 2, 1, 0]])
def test_all_get_the_same_name_and_another_in_the_next_attempt(ranks: list[int]) -> None:
    board = Board()
    names = [set(together(board, ranks, 4, 10)) for _ in range(5)]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == 5


def test_an_attempt_that_failed_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its first learner's answers nor its others' questions."""
    monkeypatch.setattr(arrival, "SPEAK_S", 0.1)
    board = Board()
    together(board, [0, 1], 3, 0.2)
    together(board, [1, 2], 3, 0.2)
    before = set(board.values)
    names = set(together(board, [0, 1, 2], 3, 10))
    assert len(names) == 1
    [name] = names
    assert not any(name in key for key in before)


def test_whoever_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "SPEAK_S", 0.1)
    board = Board()
    together(board, [0, 1, 2, 3], 4, 10)
    first, second = together(board, [0, 2], 4, 0.3)
    missing = "2 of 4 learners have not come: 1 (before on host1), 3 (before on host1); those on host0 are there"
    assert (first, second) == (f"learner 0: {missing}", f"learner 2: {missing}")


def test_a_first_learner_that_does_not_come_is_named() -> None:
    board = Board()
    together(board, [0, 1], 2, 10)
    assert together(board, [1], 2, 0.1) == ["learner 1: learner 0 has not come"]

"""Collectives through shared memory: the same bits on every learner, whoever comes first; no waiting for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor

from dist_trainer import local_group
from dist_trainer._cpp_envs import LocalGroup
from dist_trainer.distributed import World
from tests.learners import Learners, learners_of_sizes

SIZES = (2, 3, 5)
COUNTS = (0, 1, 63, 1000, (4 << 20) // 4 + 17)  # the last is larger than a slot
REPETITIONS = 300


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, Learners]]:
    with learners_of_sizes(SIZES) as worlds:
        yield worlds


def terms_of(rank: int, count: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(100 * rank + count)
    return (torch.randn(count, generator=generator, dtype=torch.float64) * 1000).to(dtype)


def sums_of_all_sizes(world: World, dtype: torch.dtype) -> list[Tensor]:
    assert world.local_group
    return [world.local_group.sum_(terms_of(world.rank, count, dtype)) for count in COUNTS]


@pytest.mark.parametrize("dtype", local_group.SUMMED_DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_sum_is_that_in_the_order_of_the_ranks(worlds: dict[int, Learners], size: int, dtype: torch.dtype) -> None:
    answers = worlds[size].run(sums_of_all_sizes, dtype)
    for index, count in enumerate(COUNTS):
        expected = terms_of(0, count, dtype)
        for rank in range(1, size):
            expected = expected + terms_of(rank, count, dtype)
        for sums in answers:
            assert torch.equal(sums[index], expected)


def many_sums(world: World) -> list[int]:
    """Learners come in changing orders; what a sum reads must not be the next one's."""
    uneven = np.random.default_rng(world.rank)
    sums = []
    for index in range(REPETITIONS):
        if uneven.random() < 0.1:
            time.sleep(uneven.random() * 3e-3)
        terms = torch.full((1000,), (world.rank + 1) * index)
        sums.append(int(world.sum_(terms).unique().item()))
    return sums


@pytest.mark.parametrize("size", SIZES)
def test_sums_do_not_mix(worlds: dict[int, Learners], size: int) -> None:
    expected = [size * (size + 1) // 2 * index for index in range(REPETITIONS)]
    assert worlds[size].run(many_sums) == [expected] * size


def sum_a_column(world: World) -> Tensor:
    matrix = torch.arange(12.0).view(4, 3) * (world.rank + 1)
    world.sum_(matrix[:, 1])
    return matrix


def test_a_tensor_that_is_not_contiguous_is_summed_in_place(worlds: dict[int, Learners]) -> None:
    for rank, matrix in enumerate(worlds[2].run(sum_a_column)):
        expected = torch.arange(12.0).view(4, 3) * (rank + 1)
        expected[:, 1] = torch.tensor([1.0, 4, 7, 10]) * 3
        assert torch.equal(matrix, expected)


def sum_bfloat16(world: World) -> Tensor:
    return world.sum_(torch.ones(3, dtype=torch.bfloat16))


def test_other_types_go_the_other_way(worlds: dict[int, Learners]) -> None:
    assert [answer.tolist() for answer in worlds[2].run(sum_bfloat16)] == [[2.0] * 3] * 2


def meet_where_one_cannot(world: World) -> bool:
    def all_values(value: object) -> list[object]:
        """The others are told a path that does not exist."""
        return [
            (*value[:2], "/nonexistent") if isinstance(value, tuple) else value for value in world.all_values(value)
        ]

    return local_group.meet(world.rank, world.size, 5.0, all_values) is None


def test_if_one_cannot_have_it_none_has_it(worlds: dict[int, Learners]) -> None:
    assert worlds[3].run(meet_where_one_cannot) == [True] * 3


def test_who_waits_too_long_gives_up_and_stays_so() -> None:
    alone = LocalGroup(0, 2, 1024)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="not all learners have come in time"):
        alone.sum_(np.ones(3), 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    with pytest.raises(RuntimeError, match="an earlier call"):
        alone.sum_(np.ones(3), 60.0)


def test_nobody_waits_for_a_process_that_has_ended() -> None:
    other = subprocess.Popen(["sleep", "0.3"])
    members = LocalGroup(0, 2, 1024)
    members.watch([os.getpid(), other.pid])
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="the process of learner 1 has ended"):
        members.sum_(np.ones(3), 600.0)
    assert time.monotonic() - began < 10
    other.wait()


def test_a_sum_done_before_the_other_ended_is_a_sum() -> None:
    first = LocalGroup(0, 2, 1024)
    second = LocalGroup(1, 2, 1024, first.path)
    terms = [np.arange(5.0), np.ones(5)]
    thread = threading.Thread(target=second.sum_, args=(terms[1], 60.0))
    thread.start()
    first.sum_(terms[0], 60.0)
    thread.join()
    assert terms[0].tolist() == terms[1].tolist() == [1, 2, 3, 4, 5]


def gather_all_types(world: World) -> list[Tensor]:
    assert world.local_group
    large = torch.arange((4 << 20) // 8 + 5) + world.rank  # longer than a slot
    columns = (torch.arange(6.0).view(2, 3) + world.rank).T
    others = [torch.empty(0), torch.tensor(float(world.rank)), torch.tensor([world.rank == 1]), columns.bfloat16()]
    return [world.local_group.all_gather(tensor) for tensor in [large, *others]]


@pytest.mark.parametrize("size", SIZES)
def test_a_gather_has_everyones_tensors_of_any_type(worlds: dict[int, Learners], size: int) -> None:
    ranks = torch.arange(size)
    large = torch.arange((4 << 20) // 8 + 5) + ranks[:, None]
    columns = torch.arange(6.0).view(2, 3).T + ranks[:, None, None]
    expected = [large, torch.empty(size, 0), ranks.float(), (ranks == 1)[:, None], columns.bfloat16()]
    for gathered in worlds[size].run(gather_all_types):
        assert all(torch.equal(own, truth) for own, truth in zip(gathered, expected, strict=True))


def test_a_gather_needs_room_for_all() -> None:
    with pytest.raises(ValueError, match="room for the bytes of all"):
        LocalGroup(0, 2, 1024).gather(np.zeros(3, np.uint8), np.zeros(5, np.uint8), 1.0)


class Interrupted(Exception):
    """Raised by a signal's handler."""


def test_signals_are_handled_while_waiting() -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(Interrupted):
            LocalGroup(0, 2, 1024).sum_(np.ones(3), 600.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

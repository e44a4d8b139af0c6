"""Learners in processes of their own, joined by gloo as torchrun would join them; tests share them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import random
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from dist_trainer.distributed import World, connect, disconnect

P = ParamSpec("P")
T = TypeVar("T")


class LearnersFailed(AssertionError):
    """Some learner raised, died or did not answer in time; the text holds the traceback of every one that raised."""


class Learners:
    """`size` processes, each with torch's, numpy's and Python's global generators in a state of its own.

    They start with the first call of `run` and serve any number of them. After a failure all of them are killed, and
    the next `run` starts new ones. They end when this object is closed, and when this process dies.
    """

    def __init__(self, size: int):
        self.size = size
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def run(self, function: Callable[Concatenate[World, P], T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """What `function(world, *args)` returns on every learner, in the order of the ranks.

        `function` must be importable by name. Raises LearnersFailed.
        """
        return self.run_within(120.0, function, *args, **kwargs)

    def run_within(
        self, deadline_s: float, function: Callable[Concatenate[World, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        if not self._processes:
            self._start()
        # As bytes: a tensor sent through a pipe as an object would be shared memory that ends with its process.
        message = pickle.dumps((function, args, kwargs))
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # a dead learner is reported below
                pipe.send_bytes(message)
        answers, complaints = self._collect(time.monotonic() + deadline_s)
        if complaints:
            self.close()
            raise LearnersFailed("\n".join(complaints))
        return [answers[rank] for rank in range(self.size)]

    def _collect(self, deadline: float) -> tuple[dict[int, Any], list[str]]:
        """Answers by rank and complaints, of which there are none if all have answered."""
        answers: dict[int, Any] = {}
        complaints: list[str] = []
        missing = set(range(self.size))
        while missing and (left := deadline - time.monotonic()) > 0:
            ranks = {id(self._pipes[rank]): rank for rank in missing}
            for pipe in wait([self._pipes[rank] for rank in missing], left):
                rank = ranks[id(pipe)]
                missing.discard(rank)
                try:
                    good, answer = pickle.loads(self._pipes[rank].recv_bytes())
                except (EOFError, OSError):
                    self._processes[rank].join(5)
                    good, answer = False, f"died with status {self._processes[rank].exitcode}"
                if good:
                    answers[rank] = answer
                else:
                    complaints.append(f"learner {rank} of {self.size}: {answer}")
                    deadline = min(deadline, time.monotonic() + 3)  # the others may wait for it in a collective
        return answers, complaints + [f"learner {rank} of {self.size}: no answer in time" for rank in sorted(missing)]

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.size, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    @property
    def running(self) -> bool:
        return bool(self._processes)

    def close(self) -> None:
        """Ends the processes and waits for their end."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []


@contextlib.contextmanager
def learners_of_sizes(sizes: Sequence[int]) -> Iterator[dict[int, Learners]]:
    """Learners by their number, all closed in the end."""
    worlds = {size: Learners(size) for size in sizes}
    try:
        yield worlds
    finally:
        for learners in worlds.values():
            learners.close()


def _serve(rank: int, size: int, port: int, pipe: Connection) -> None:
    launcher = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in launcher.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.manual_seed(1000 + rank)
    np.random.seed(1000 + rank)
    random.seed(1000 + rank)
    world = connect("cpu", timeout_s=60)
    while True:
        try:
            function, args, kwargs = pickle.loads(pipe.recv_bytes())
        except EOFError:
            break
        try:
            answer = pickle.dumps((True, function(world, *args, **kwargs)))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        pipe.send_bytes(answer)
    disconnect()

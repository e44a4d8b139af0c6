"""What the learners of benchmarks.scaling_measure write down: plain numbers, kept as JSON. No torch.

Seconds are of wall time, on one learner, unless said otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class PhasePoint:
    """Seconds of an iteration's phases with `rows` agents on a learner; medians over iterations."""

    rows: int
    environment: float  # the pool's steps alone
    inference: float  # the rest of the rollout
    learning: float  # the update and the sums of the metrics, without the optimizer's steps
    rollout_spread: float  # standard deviation of the rollout's seconds over iterations, as a fraction


@dataclass(frozen=True)
class PhaseRecord:
    """Learners that do not communicate, `processes` of them at once on one machine; means over them."""

    optimizer: str
    hidden: int
    processes: int
    points: list[PhasePoint]
    unit_seconds: list[float]  # of one optimizer step, by unit; their sum is what a whole step took


@dataclass(frozen=True)
class Message:
    """A collective: all_reduce | broadcast of so many bytes, or all_gather of so many from each learner."""

    kind: str
    bytes: int


@dataclass(frozen=True)
class WorkRecord:
    """What an iteration consists of: counted, not timed. The same for every machine and any number of learners."""

    optimizer: str
    hidden: int
    parameters: int
    minibatches: int
    observation_bytes: int  # of one agent
    unit_numbers: list[int]  # weights of each unit
    unit_operators: list[int]  # torch operators of its step that compute something (views do not)
    unit_flops: list[int]  # of the matrix products in its step
    rollout_operators: int
    learning_operators: int  # all minibatches, without the optimizer's steps
    messages: list[Message]  # of an iteration, without the exchange of a sharded optimizer's weights
    owners: dict[str, list[int]]  # of each unit, by the size of the shard group


@dataclass(frozen=True)
class CollectivePoint:
    kind: str  # all_reduce | all_gather
    bytes: int
    seconds: float


@dataclass(frozen=True)
class IterationRecord:
    """Whole iterations, measured to be compared with a prediction and for nothing else."""

    optimizer: str
    sync: str
    group: int  # learners of a shard group
    seconds: list[float]  # of each timed iteration
    cpu_seconds: float  # of all learners together, per iteration
    in_collectives: float  # per iteration and learner, waiting included
    check_seconds: float  # one comparison of the learners' weights and state


@dataclass(frozen=True)
class Record:
    """What one launch of the learners measured."""

    learners: int
    nodes: int
    cores: int  # of all kernels that the learners run on; containers of one kernel share its cores
    device: str
    torch: str
    environment: str
    samples: int  # of an iteration, all learners together
    horizon: int
    phases: list[PhaseRecord] = field(default_factory=list)
    works: list[WorkRecord] = field(default_factory=list)
    collectives: list[CollectivePoint] = field(default_factory=list)
    iterations: list[IterationRecord] = field(default_factory=list)


def write(record: Any, file: Path) -> None:
    file.write_text(json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read(kind: type[T], file: Path) -> T:
    return _build(kind, json.loads(file.read_text()))


def _build(kind: Any, value: Any) -> Any:
    """`value` as JSON has it, as the type `kind`: a dataclass, a list, a dict with string keys, or a plain value."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known: Any = kind
        return known(**{name: _build(hints[name], item) for name, item in value.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return [_build(arguments[0], item) for item in value]
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in value.items()}
    return kind(value)

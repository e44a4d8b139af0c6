"""Where a learner's time goes: `with Phase("inference"): ...`, anywhere, and once an iteration `take()`.

A phase inside another one counts for itself alone, so that phases add up to no more than the time that has passed. On a
GPU, where the host only queues work, phases are between two events of the device's current stream, which cost a
microsecond and make nobody wait. A process is one learner, so there is one stopwatch; threads do not mix.
"""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

import torch
from torch.profiler import record_function

Mark = Any  # a time in seconds, or an event of a GPU


class _Span(NamedTuple):
    name: str
    outer: str | None  # the phase that it is a part of
    began: Mark
    ended: Mark


_on_device = False
_traced = False
_spans: list[_Span] = []
_spare_events: list[Mark] = []
_open = threading.local()  # .names: phases of this thread that have begun


def time_device(device: torch.device) -> None:
    """From now on by events of this device, if it is a GPU, else by the host's clock."""
    global _on_device
    _spans.clear()
    _on_device = device.type == "cuda"


def trace(on: bool) -> None:
    """Whether phases have their names in the trace of torch's profiler, from now on."""
    global _traced
    _traced = on


class Phase:
    """Use as a context."""

    __slots__ = ("began", "name", "recorded")

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        names = getattr(_open, "names", None)
        if names is None:
            names = _open.names = []
        names.append(self.name)
        self.recorded: record_function | None = None
        if _traced:
            self.recorded = record_function(self.name)
            self.recorded.__enter__()
        self.began = _mark()

    def __exit__(self, *_: object) -> None:
        names = _open.names
        names.pop()
        _spans.append(_Span(self.name, names[-1] if names else None, self.began, _mark()))
        if self.recorded:
            self.recorded.__exit__(None, None, None)


def take() -> dict[str, float]:
    """Seconds by phase since the last call. On a GPU what the device has not come to yet is left for the next."""
    global _spans
    spans, _spans = _spans, []
    seconds: dict[str, float] = {}
    for span in spans:
        if _on_device and not span.ended.query():
            _spans.append(span)
            continue
        passed = _seconds_between(span)
        seconds[span.name] = seconds.get(span.name, 0.0) + passed
        if span.outer is not None:
            seconds[span.outer] = seconds.get(span.outer, 0.0) - passed
    return seconds


def _mark() -> Mark:
    if not _on_device:
        return time.perf_counter()
    event = _spare_events.pop() if _spare_events else torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds_between(span: _Span) -> float:
    if not _on_device:
        return float(span.ended - span.began)
    milliseconds: float = span.began.elapsed_time(span.ended)
    _spare_events.extend((span.began, span.ended))
    return milliseconds / 1000

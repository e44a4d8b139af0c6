"""A profile's trace, with the pool's threads in it, as a file that trace viewers open; and a table of its top costs.

The format: Trace Event Format (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), which Perfetto
and chrome://tracing read. Times in it are microseconds.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch.profiler import profile

from dist_trainer.envs import WorkSpan
from dist_trainer.phase_times import PHASES

ITERATION = "iteration"  # the mark around each one
CLOCK = "clock"  # marks at known times
POOL = "pool"  # category of the threads' events
FIRST_TRACK = 10**9  # of the pool's threads: above the numbers of the system's
ON_CPU = ("cpu_op", "user_annotation")
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
ROWS = 12  # of the table
Event = dict[str, Any]


@dataclass
class Cost:
    microseconds: float = 0.0
    calls: int = 0


def with_pool(profiler: profile, clock_ns: Sequence[int], spans: Iterable[WorkSpan]) -> dict[str, Any]:
    """The trace; `clock_ns`: of the clock marks, by the clock of the spans. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="dist_trainer-") as folder:
        raw = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(raw))
        trace: dict[str, Any] = json.loads(raw.read_bytes())
    events: list[Event] = trace["traceEvents"]
    events += pool_events(spans, offset_ns(events, clock_ns))
    return trace


def write_trace(file: Path, trace: dict[str, Any]) -> None:
    """Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.new")
    unfinished.write_bytes(gzip.compress(json.dumps(trace).encode(), compresslevel=3))
    unfinished.replace(file)


def offset_ns(events: Iterable[Event], clock_ns: Sequence[int]) -> float:
    """What to add to the steady clock to get the trace's: from the marks, each a little later than its time."""
    cpu = "user_annotation"  # a GPU has marks of its own
    marks = sorted(event["ts"] for event in events if event.get("name") == CLOCK and event.get("cat") == cpu)
    return min(1000 * mark - taken for mark, taken in zip(marks, clock_ns, strict=True))


def pool_events(spans: Iterable[WorkSpan], offset: float) -> list[Event]:
    """One track for each thread or process of each pool."""
    spans = list(spans)
    process = os.getpid()
    events: list[Event] = []
    tracks = {where: FIRST_TRACK + i for i, where in enumerate(sorted({(span.group, span.worker) for span in spans}))}
    for (group, worker), track in tracks.items():
        place = {"ph": "M", "pid": process, "tid": track}
        events.append({"name": "thread_name", "args": {"name": f"pool {group} worker {worker}"}, **place})
        events.append({"name": "thread_sort_index", "args": {"sort_index": track}, **place})
    for span in spans:
        what = {"ph": "X", "cat": POOL, "name": "environments step", "pid": process}
        track = tracks[span.group, span.worker]
        begin, length = (span.begin_ns + offset) / 1000, (span.end_ns - span.begin_ns) / 1000
        events.append({**what, "tid": track, "ts": begin, "dur": length})
    return events


def costs_of(events: Iterable[Event], on_gpu: bool) -> dict[str, Cost]:
    """Of what the device did, by name; without a GPU of operations and marks, each without what is inside it.

    torch's own key_averages takes a minute where this takes a second.
    """
    costs: dict[str, Cost] = {}
    threads: dict[Any, list[Event]] = {}
    for event in events:
        if event["ph"] == "X" and event.get("cat") in (ON_GPU if on_gpu else ON_CPU):
            threads.setdefault(event["tid"], []).append(event)
            cost = costs.setdefault(event["name"], Cost())
            cost.microseconds += event["dur"]
            cost.calls += 1
    for own in [] if on_gpu else threads.values():
        open_: list[Event] = []
        for event in sorted(own, key=lambda event: (event["ts"], -event["dur"])):
            while open_ and event["ts"] >= open_[-1]["ts"] + open_[-1]["dur"]:
                open_.pop()
            if open_:
                costs[open_[-1]["name"]].microseconds -= event["dur"]
            open_.append(event)
    return costs


def cost_table(events: Sequence[Event], on_gpu: bool) -> Table:
    """What takes longest, of an iteration: on a GPU its kernels and copies, else operations and the rest of phases."""
    iterations = [event["dur"] for event in events if event["name"] == ITERATION and event.get("cat") in ON_CPU]
    names = {**{phase: f"{phase} (phase, besides operations)" for phase in PHASES}, ITERATION: "outside of phases"}
    costs = costs_of(events, on_gpu)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("top costs of the GPU" if on_gpu else "top costs", no_wrap=True, overflow="crop")
    for title in ("ms", "calls", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in sorted(costs, key=lambda name: costs[name].microseconds, reverse=True)[:ROWS]:
        milliseconds = costs[name].microseconds / len(iterations) / 1000
        share = f"{100 * costs[name].microseconds / sum(iterations):.1f} %"
        calls = f"{costs[name].calls / len(iterations):.0f}"
        table.add_row(Text(names.get(name, name)), f"{milliseconds:.2f}", calls, share)
    return table

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
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import profile

from dist_trainer.envs import WorkSpan
from dist_trainer.phase_times import PHASES

ITERATION = "iteration"  # the mark around each one
CLOCK = "clock"  # marks at known times
POOL = "pool"  # category of the threads' events
FIRST_TRACK = 10**9  # of the pool's threads: above the numbers of the system's
ROWS = 12  # of the table


def write_trace(file: Path, profiler: profile, clock_ns: Sequence[int], spans: Iterable[WorkSpan]) -> None:
    """`clock_ns`: of the clock marks, by the clock of the spans. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="dist_trainer-") as folder:
        raw = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(raw))
        trace = json.loads(raw.read_bytes())
    events: list[dict[str, Any]] = trace["traceEvents"]
    events += pool_events(spans, offset_ns(events, clock_ns))
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.new")
    with gzip.open(unfinished, "wt", compresslevel=3) as out:
        json.dump(trace, out)
    unfinished.replace(file)


def offset_ns(events: Iterable[dict[str, Any]], clock_ns: Sequence[int]) -> float:
    """What to add to the steady clock to get the trace's: from the marks, each a little later than its time."""
    cpu = "user_annotation"  # a GPU has marks of its own
    marks = sorted(event["ts"] for event in events if event.get("name") == CLOCK and event.get("cat") == cpu)
    return min(1000 * mark - taken for mark, taken in zip(marks, clock_ns, strict=True))


def pool_events(spans: Iterable[WorkSpan], offset: float) -> list[dict[str, Any]]:
    """One track for each thread or process of each pool."""
    spans = list(spans)
    process, events = os.getpid(), []
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


def cost_table(costs: Sequence[FunctionEventAvg], iterations: int, on_gpu: bool) -> Table:
    """What takes longest, of an iteration: on a GPU its kernels, else operations and what phases do besides them."""

    def microseconds(cost: FunctionEventAvg) -> float:
        return float(cost.self_device_time_total if on_gpu else cost.self_cpu_time_total)

    marked = next((cost.cpu_time_total for cost in costs if cost.key == ITERATION), 0.0)
    names = {**{phase: f"{phase} (phase, besides operations)" for phase in PHASES}, ITERATION: "outside of phases"}
    shown = [cost for cost in costs if not (on_gpu and (cost.key in names or cost.is_user_annotation))]
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("top costs: GPU kernels" if on_gpu else "top costs", no_wrap=True, overflow="crop")
    for title in ("ms", "calls", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in sorted(shown, key=microseconds, reverse=True)[:ROWS]:
        spent = microseconds(cost)
        share = f"{100 * spent / marked:.1f} %" if marked else ""
        name = Text(names.get(str(cost.key), str(cost.key)))
        table.add_row(name, f"{spent / iterations / 1000:.2f}", f"{cost.count / iterations:.0f}", share)
    return table

"""What a learner's device does in an iteration: how busy it is, which kernels take the time, how often the host waits.

    python -m benchmarks.gpu_profile [--device auto] [--iterations 3] [--rows 25] [--json] [SETTING=VALUE ...]

One learner, made as the trainer makes it, collects and learns: some iterations to warm up, some against the clock,
some under the profiler. `busy` is the time of the kernels in the profile, where several run at once counted once, by
that of the iteration without the profiler, which slows down the host. Copies over the link are no kernels. On a CPU,
torch's operators stand for kernels; the profiler slows them down too, so there its own time of the iteration divides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from dist_trainer import update
from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import Learner, make_learner, warm_up_normalizer

PHASES = ("rollout", "learn")
WARM_UP = 4


@dataclass(frozen=True)
class Event:
    """Of a profile; microseconds."""

    name: str
    kind: str  # kernel | gpu_memcpy | gpu_memset | cuda_runtime | cpu_op | user_annotation
    thread: tuple[int, int]  # or stream
    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration


def make(settings: list[str], device: str) -> Learner:
    defaults = ["env=breakout", "policy=lstm", "total_envs=1024", "horizon=64"]
    learner = make_learner(compose_train([*defaults, *settings, f"device={device}"])[0], connect(device, 60))
    warm_up_normalizer(learner)
    return learner


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def iterate(learner: Learner) -> dict[str, float]:
    """One iteration; seconds of each phase, from an idle device to an idle device."""
    wait_for(learner.world.device)
    marks = [time.perf_counter()]
    with record_function("rollout"):
        rollout = learner.collector.collect()
        wait_for(learner.world.device)
    marks.append(time.perf_counter())
    with record_function("learn"):
        update.learn(learner, rollout)
        wait_for(learner.world.device)
    marks.append(time.perf_counter())
    learner.iteration += 1
    return {"rollout": marks[1] - marks[0], "learn": marks[2] - marks[1]}


def profiled(learner: Learner, iterations: int) -> list[Event]:
    activities = [ProfilerActivity.CPU]
    if learner.world.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(iterations):
            iterate(learner)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())
    return [
        Event(e["name"], e["cat"], (hash(e["pid"]), hash(e["tid"])), float(e["ts"]), float(e["dur"]))
        for e in trace["traceEvents"]
        if e.get("ph") == "X" and "cat" in e
    ]


def by_phase(events: list[Event], kinds: Iterable[str]) -> dict[str, list[Event]]:
    """Those of the kinds that begin in each phase."""
    chosen = set(kinds)
    windows = [(e.name, e.start, e.end) for e in events if e.kind == "user_annotation" and e.name in PHASES]
    found: dict[str, list[Event]] = {phase: [] for phase in PHASES}
    for phase, start, end in windows:
        found[phase] += [e for e in events if e.kind in chosen and start <= e.start < end]
    return found


def covered(events: list[Event]) -> float:
    """Microseconds in which at least one of them runs."""
    total, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: event.start):
        total += max(0.0, event.end - max(event.start, until))
        until = max(until, event.end)
    return total


def self_times(events: list[Event]) -> dict[str, tuple[int, float]]:
    """By name: calls, and microseconds without those of events that lie within."""
    result: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def add(name: str, calls: int, duration: float) -> None:
        before = result[name]
        result[name] = before[0] + calls, before[1] + duration

    threads = defaultdict(list)
    for event in events:
        threads[event.thread].append(event)
    for own in threads.values():
        around: list[Event] = []
        for event in sorted(own, key=lambda event: (event.start, -event.duration)):
            while around and around[-1].end <= event.start:
                around.pop()
            if around:
                add(around[-1].name, 0, -event.duration)
            add(event.name, 1, event.duration)
            around.append(event)
    return result


@dataclass(frozen=True)
class Report:
    """Of an iteration; times in milliseconds, by phase."""

    wall: dict[str, float]  # without the profiler
    profiled: dict[str, float]  # with it
    kernels: dict[str, float]
    kernel_count: dict[str, float]
    copies: dict[str, float]
    waits: dict[str, float]  # times that the host waits for the device, one of them at the end of the phase by us
    top: list[tuple[str, float, float, float]]  # kernel, calls, ms in the rollout, ms in learning
    top_host: list[tuple[str, float, float, float]]  # the same of operators on the host, without their kernels
    env_steps: int
    memory: float  # MiB of the device at most
    on_cuda: bool

    @property
    def busy(self) -> dict[str, float]:
        base = self.wall if self.on_cuda else self.profiled
        shares = {phase: self.kernels[phase] / base[phase] for phase in PHASES}
        return shares | {"both": sum(self.kernels.values()) / sum(base.values())}

    @property
    def speed(self) -> float:
        return 1e3 * self.env_steps / sum(self.wall.values())


def top_of(events: dict[str, list[Event]], iterations: int) -> list[tuple[str, float, float, float]]:
    """Longest first."""
    times = {phase: self_times(own) for phase, own in events.items()}
    rows = []
    for name in set().union(*times.values()):
        calls, spent = zip(*(times[phase].get(name, (0, 0.0)) for phase in PHASES), strict=True)
        rows.append((name, sum(calls) / iterations, *(one / 1e3 / iterations for one in spent)))
    return sorted(rows, key=lambda row: -row[2] - row[3])


def measure(learner: Learner, iterations: int) -> Report:
    on_cuda = learner.world.device.type == "cuda"
    for _ in range(WARM_UP):
        iterate(learner)
    timed = [iterate(learner) for _ in range(2 * iterations)]
    events = profiled(learner, iterations)
    kernels = by_phase(events, ["kernel" if on_cuda else "cpu_op"])
    copies = by_phase(events, ["gpu_memcpy", "gpu_memset"])
    runtime = by_phase(events, ["cuda_runtime", "cuda_driver"])
    phases = by_phase(events, ["user_annotation"])
    if not any(kernels.values()):
        raise RuntimeError("the profile has no kernels: may this user read the device's counters (CUPTI)?")
    return Report(
        wall={phase: 1e3 * median(one[phase] for one in timed) for phase in PHASES},
        profiled={phase: covered(own) / 1e3 / iterations for phase, own in phases.items()},
        kernels={phase: covered(own) / 1e3 / iterations for phase, own in kernels.items()},
        kernel_count={phase: len(own) / iterations for phase, own in kernels.items()},
        copies={phase: covered(own) / 1e3 / iterations for phase, own in copies.items()},
        waits={phase: sum("Synchronize" in e.name for e in own) / iterations for phase, own in runtime.items()},
        top=top_of(kernels, iterations),
        top_host=top_of(by_phase(events, ["cpu_op"]), iterations) if on_cuda else [],
        env_steps=learner.config.horizon_env_steps,
        memory=torch.cuda.max_memory_allocated() / 2**20 if on_cuda else 0.0,
        on_cuda=on_cuda,
    )


def table(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def show(report: Report, title: str, rows: int) -> None:
    def line(name: str, values: dict[str, float], form: str = ",.2f") -> list[str]:
        return [name, *(f"{values[phase]:{form}}" for phase in PHASES), f"{sum(values.values()):{form}}"]

    print(f"{title}: {report.speed:,.0f} steps/s, busy {report.busy['both']:.1%}, ", end="")
    print(f"{report.memory:,.0f} MiB on the device\n" if report.on_cuda else "on the CPU\n")
    summary = [
        line("time, ms", report.wall),
        line("time under the profiler, ms", report.profiled),
        line("kernels, ms", report.kernels),
        ["busy", *(f"{share:.1%}" for share in report.busy.values())],
        line("copies, ms", report.copies),
        line("kernels", report.kernel_count, ",.0f"),
        line("waits of the host", report.waits, ",.1f"),
    ]
    print(table(["of an iteration", *PHASES, "both"], summary))
    for what, top in (("kernel", report.top), ("operator, time on the host", report.top_host)):
        if top:
            cells = [(name[:90], f"{calls:,.0f}", f"{a:.3f}", f"{b:.3f}") for name, calls, a, b in top[:rows]]
            print(table([what, "calls", "rollout, ms", "learn, ms"], cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rows", type=int, default=25, help="of each table")
    parser.add_argument("--json", action="store_true", help="print the shares and the speed alone")
    options = parser.parse_intermixed_args()
    learner = make(options.settings, options.device)
    report = measure(learner, options.iterations)
    if options.json:
        print(json.dumps({"busy": report.busy["both"], "steps/s": report.speed, "memory": report.memory}))
        return
    config = learner.config
    title = f"{config.env.name}, LSTM {config.policy.get('hidden_size')}, {config.precision}"
    show(report, title, options.rows)


if __name__ == "__main__":
    main()

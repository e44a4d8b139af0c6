"""The speed of light on one GPU, for benchmarks/limit.py, and what an iteration moves over the link to it.

Each form is tried as it is and as a CUDA graph, which takes the time of launching kernels away. Timed are whole
iterations, from an idle device to an idle device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from benchmarks.limit_forms import Shape, Step, acting_steps, arithmetics, initial_state, learning_forms
from dist_trainer.envs import EnvSpec

REPEATS, WARM_UP = 5, 3


@dataclass(frozen=True)
class Link:
    """Of one GPU and one iteration, a copy each way in every step, from and to page-locked memory."""

    bytes_in: int  # to the GPU: observations, noise, rewards, ends of episodes
    bytes_out: int  # actions
    seconds_in: float
    seconds_out: float

    @property
    def summary(self) -> str:
        """Megabytes and gigabytes per second each way, and milliseconds in all."""
        ways = ((self.bytes_in, self.seconds_in), (self.bytes_out, self.seconds_out))
        speeds = " + ".join(f"{size / 1e6:,.1f} MB at {size / seconds / 1e9:.1f} GB/s" for size, seconds in ways)
        return f"{speeds}: {1e3 * (self.seconds_in + self.seconds_out):.2f} ms"


def step_bytes(spec: EnvSpec, rows: int) -> tuple[int, int]:
    """What one step moves to the device and from it."""
    components = spec.action_components
    observation = spec.sample_bytes - 4 * components - 30  # sample_bytes counts an action and 30 bytes of scalars
    return rows * (observation + 4 * components + 4 + 1 + 1), rows * 4 * components


def measure_link(spec: EnvSpec, shape: Shape, device: torch.device) -> Link:
    into, out = step_bytes(spec, shape.rows)

    def seconds(source: Tensor, target: Tensor) -> float:
        def copies() -> None:
            for _ in range(shape.horizon):
                target.copy_(source, non_blocking=True)

        return median_seconds(copies)

    def host(size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, pin_memory=True)

    def on_device(size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8, device=device)

    return Link(
        bytes_in=shape.horizon * into,
        bytes_out=shape.horizon * out,
        seconds_in=seconds(host(into), on_device(into)),
        seconds_out=seconds(on_device(out), host(out)),
    )


def median_seconds(action: Callable[[], None]) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first warms up
        torch.cuda.synchronize()
        began = time.perf_counter()
        action()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def as_graph(action: Callable[[], None]) -> Callable[[], None]:
    """The kernels of `action`, recorded after a warm-up. Raises RuntimeError if one of them cannot be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            action()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        action()
    return graph.replay


def acting_forms(step: Step, state: tuple[Tensor, Tensor]) -> dict[str, Callable[[], None]]:
    """By name: one step, the state carried on. In a graph it has to stay where it is."""
    carried = state

    def eager() -> None:
        nonlocal carried
        carried = step(carried)

    fixed = state[0].clone(), state[1].clone()

    def in_place() -> None:
        for old, new in zip(fixed, step(fixed), strict=True):
            old.copy_(new)

    return {"": eager, " in a graph": in_place}


def times_of(form: Callable[[], None], count: int, in_graph: bool) -> float | None:
    """Seconds of `count` calls; None, and a word on stderr, if this machine cannot do it or not as a graph."""
    try:
        action = as_graph(form) if in_graph else form

        def repeated() -> None:
            for _ in range(count):
                action()

        for _ in range(WARM_UP):
            action()
        return median_seconds(repeated)
    except RuntimeError as error:
        print(f"left out{' as a graph' if in_graph else ''}: {error}", file=sys.stderr)
        return None


@dataclass(frozen=True)
class Best:
    seconds: float
    form: str


def best_on_gpu(shape: Shape, precision: str, device: torch.device) -> tuple[Best, Best]:
    """Acting and learning of one iteration. `precision`: float32 | tf32 | bfloat16."""
    from dist_trainer.learner import allow_tf32  # seconds that limit's processes on CPUs need not wait for

    allow_tf32(precision == "tf32")
    acting, learning = [], []
    for arithmetic in arithmetics(shape, precision, device):
        with arithmetic.context(device):
            arithmetic.policy.eval()  # cuDNN keeps nothing for a backward pass
            with torch.no_grad():
                for name, step in acting_steps(arithmetic, shape, device).items():
                    for way, form in acting_forms(step, initial_state(arithmetic, shape.rows)).items():
                        seconds = times_of(form, shape.horizon, in_graph=bool(way))
                        acting += [Best(seconds, name + way)] if seconds else []
            arithmetic.policy.train()
            for name, form in learning_forms(arithmetic, shape, device).items():
                for way in ("", " in a graph"):
                    arithmetic.clear_gradients()
                    seconds = times_of(form, shape.minibatches, in_graph=bool(way))
                    learning += [Best(seconds, name + way)] if seconds else []
            arithmetic.clear_gradients()
    torch.cuda.empty_cache()
    if not acting or not learning:
        raise RuntimeError(f"no form works in {precision}; what stderr says of each tells why")
    return min(acting, key=lambda best: best.seconds), min(learning, key=lambda best: best.seconds)

"""The speed of light: steps/s if a machine did nothing but the policy's own arithmetic.

    python -m benchmarks.limit [--env breakout] [--hidden 128] [--samples 65536] [--minibatches 16] [--horizon 64]

Plain torch modules of the policy's shapes (encoder, one-layer LSTM, heads) act for every step and learn, forward and
backward, from every minibatch. There is no environment, no sampling, no loss, no optimizer, no reset of the state, no
message. Each way of sharing out the cores (processes x threads) is tried with each form, at once in all processes:
acting by a fused LSTM of one step or by an LSTM cell; learning by a fused LSTM over whole segments, a minibatch at once
or in parts. The best of each is the limit. Everything is repeated, and medians are taken.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import Queue
from statistics import median
from typing import Any

import torch
from torch import nn

from dist_trainer.cli import compose_train
from dist_trainer.envs import EnvSpec, env_spec

REPEATS = 5


@dataclass(frozen=True)
class Shape:
    """Of one process's part of an iteration."""

    inputs: int
    outputs: int  # action parameters
    hidden: int
    rows: int
    horizon: int
    minibatches: int


class Plain(nn.Module):
    """The recurrent policy without resets."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(shape.inputs, shape.hidden), nn.ReLU())
        self.lstm = nn.LSTM(shape.hidden, shape.hidden)
        self.cell = nn.LSTMCell(shape.hidden, shape.hidden)
        self.heads = nn.Linear(shape.hidden, shape.outputs + 1)


def shape_of(spec: EnvSpec, hidden: int, samples: int, horizon: int, minibatches: int, processes: int) -> Shape:
    (inputs,) = spec.observation_shape
    return Shape(inputs, sum(spec.action_sizes), hidden, samples // horizon // processes, horizon, minibatches)


def acting_forms(policy: Plain, shape: Shape) -> dict[str, Callable[[], None]]:
    """By name: one step of all rows."""
    observations = torch.randn(shape.rows, shape.inputs)
    h, c = torch.zeros(1, shape.rows, shape.hidden), torch.zeros(1, shape.rows, shape.hidden)

    def fused() -> None:
        nonlocal h, c
        outputs, (h, c) = policy.lstm(policy.encoder(observations)[None], (h, c))
        policy.heads(outputs[0])

    h_cell, c_cell = h[0], c[0]

    def cell() -> None:
        nonlocal h_cell, c_cell
        h_cell, c_cell = policy.cell(policy.encoder(observations), (h_cell, c_cell))
        policy.heads(h_cell)

    return {"fused step": fused, "cell": cell}


def learning_forms(policy: Plain, shape: Shape) -> dict[str, Callable[[], None]]:
    """By name: forward and backward of one minibatch, whole or in parts."""
    segments = shape.rows // shape.minibatches
    observations = torch.randn(shape.horizon, segments, shape.inputs)
    gradient = torch.randn(shape.horizon, segments, shape.outputs + 1)
    state = torch.zeros(1, segments, shape.hidden)

    def learn(parts: int) -> None:
        pieces = zip(observations.chunk(parts, 1), gradient.chunk(parts, 1), state.chunk(parts, 1), strict=True)
        for x, g, s in pieces:
            outputs, _ = policy.lstm(policy.encoder(x), (s.contiguous(), s.contiguous()))
            policy.heads(outputs).backward(g)

    return {f"{parts} part(s)": partial(learn, parts) for parts in (1, 2, 4) if segments >= 4 * parts}


def time_in_process(
    shape: Shape, threads: int, dtype: str, start: Any, results: Queue[Any], core: set[int] | None
) -> None:
    """Seconds of an iteration's acting and learning in each form; all processes go from form to form together."""
    if core:
        os.sched_setaffinity(0, core)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    policy = Plain(shape)
    found: dict[tuple[str, str], float] = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        for phase, forms, count in (
            ("acting", acting_forms(policy, shape), shape.horizon),
            ("learning", learning_forms(policy, shape), shape.minibatches),
        ):
            for name, form in forms.items():
                times = []
                for _ in range(REPEATS + 1):  # the first warms up
                    start.wait()
                    began = time.perf_counter()
                    with torch.set_grad_enabled(phase == "learning"):
                        for _ in range(count):
                            form()
                    times.append(time.perf_counter() - began)
                found[phase, name] = median(times[1:])
    results.put(found)


@dataclass
class Limit:
    """Steps/s of all processes together, and how they were reached."""

    dtype: str
    processes: int
    threads: int
    acting: float
    learning: float
    forms: str

    @property
    def both(self) -> float:
        return 1 / (1 / self.acting + 1 / self.learning)


def measure(
    spec: EnvSpec, hidden: int, samples: int, horizon: int, minibatches: int, processes: int, threads: int, dtype: str
) -> Limit:
    shape = shape_of(spec, hidden, samples, horizon, minibatches, processes)
    context = get_context("spawn")
    start, results = context.Barrier(processes), context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for index in range(processes):
        own = set(cores[index * threads : (index + 1) * threads]) if processes * threads <= len(cores) else None
        child = context.Process(target=time_in_process, args=(shape, threads, dtype, start, results, own))
        child.start()
        children.append(child)
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    slowest = {key: max(one[key] for one in found) for key in found[0]}
    best = {
        phase: min((t, name) for (of, name), t in slowest.items() if of == phase) for phase in ("acting", "learning")
    }
    forms = f"{best['acting'][1]}, {best['learning'][1]}"
    return Limit(dtype, processes, threads, samples / best["acting"][0], samples / best["learning"][0], forms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="breakout")
    for name, default in (("hidden", 128), ("samples", 65_536), ("minibatches", 16), ("horizon", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    spec = env_spec(compose_train([f"env={options.env}"])[0].env)
    cores = len(os.sched_getaffinity(0))
    print(
        f"torch {torch.__version__}, {cores} cores; {options.env}, LSTM {options.hidden}, {options.samples:,} samples\n"
    )
    print("| dtype | processes x threads | acting, steps/s | learning | both | best forms |\n|---|---|---|---|---|---|")
    sizes = (spec, options.hidden, options.samples, options.horizon, options.minibatches)
    for dtype in ("float32", "bfloat16"):
        for processes, threads in sorted({(1, 1), (1, cores), (cores, 1)}):
            limit = measure(*sizes, processes, threads, dtype)
            speeds = f"{limit.acting:,.0f} | {limit.learning:,.0f} | {limit.both:,.0f}"
            print(f"| {dtype} | {processes} x {threads} | {speeds} | {limit.forms} |", flush=True)


if __name__ == "__main__":
    main()

"""The speed of light: steps/s if a machine did nothing but the policy's own arithmetic.

    python -m benchmarks.limit [--device auto] [--env breakout] [--hidden 128] [--samples 65536] [--minibatches 32]

Plain torch modules of the policy's shapes act for every step and learn, forward and backward, from every minibatch, in
several forms (limit_forms.py). There is no environment, no sampling, no loss, no optimizer, no reset of the state, no
message. On CPUs each way of sharing out the cores (processes x threads) is tried with each form, at once in all
processes; on GPUs (gpu_limit.py) each form also as a CUDA graph, and several GPUs count as so many times one. The best
of each is the limit. Everything is repeated, and medians are taken. What an iteration moves over the link to a GPU is
shown beside it and is not in the limit: it can go on while the GPU computes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from statistics import median
from typing import Any

import torch

from benchmarks.gpu_limit import Link, best_on_gpu, measure_link
from benchmarks.limit_forms import Shape, acting_steps, arithmetics, initial_state, learning_forms, shape_of
from dist_trainer.cli import compose_train
from dist_trainer.config import PPOConfig
from dist_trainer.envs import EnvSpec, env_spec

REPEATS = 5
PRECISIONS = {"cpu": ["float32", "bfloat16"], "cuda": ["float32", "tf32", "bfloat16"]}


@dataclass
class Limit:
    """Steps/s of all learners together, and how they were reached."""

    precision: str
    where: str
    acting: float
    learning: float
    forms: str
    link: Link | None = None

    @property
    def both(self) -> float:
        return 1 / (1 / self.acting + 1 / self.learning)

    @property
    def row(self) -> str:
        speeds = f"{self.acting:,.0f} | {self.learning:,.0f} | {self.both:,.0f}"
        return f"{self.precision} | {self.where} | {speeds} | {self.forms} | {self.link.summary if self.link else '-'}"


COLUMNS = ("precision", "learners", "acting, steps/s", "learning", "both", "best forms", "link, in + out")


def timed(action: Callable[[], None], count: int, start: Any) -> float:
    times = []
    for _ in range(REPEATS + 1):  # the first warms up
        start.wait()
        began = time.perf_counter()
        for _ in range(count):
            action()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def time_in_process(
    shape: Shape, threads: int, precision: str, start: Any, results: Queue[Any], core: set[int] | None
) -> None:
    """Seconds of an iteration's acting and learning in each form; all processes go from form to form together."""
    if core:
        os.sched_setaffinity(0, core)
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    found: dict[tuple[str, str], float] = {}
    for arithmetic in arithmetics(shape, precision, device):
        with arithmetic.context(device):
            for name, step in acting_steps(arithmetic, shape, device).items():
                state = initial_state(arithmetic, shape.rows)

                def act(step: Any = step) -> None:
                    nonlocal state
                    state = step(state)

                with torch.no_grad():
                    found["acting", name] = timed(act, shape.horizon, start)
            for name, form in learning_forms(arithmetic, shape, device).items():
                found["learning", name] = timed(form, shape.minibatches, start)
    results.put(found)


def measure(
    spec: EnvSpec, hidden: int, samples: int, horizon: int, minibatches: int, processes: int, threads: int, dtype: str
) -> Limit:
    """On CPUs."""
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
    forms = f"{best['acting'][1]}; {best['learning'][1]}"
    where = f"{processes} x {threads} thread(s)"
    return Limit(dtype, where, samples / best["acting"][0], samples / best["learning"][0], forms)


def measure_gpus(
    spec: EnvSpec, hidden: int, samples: int, horizon: int, minibatches: int, gpus: int, precision: str
) -> Limit:
    """One GPU's part of the work is measured, on the first of them."""
    shape, device = shape_of(spec, hidden, samples, horizon, minibatches, gpus), torch.device("cuda", 0)
    acting, learning = best_on_gpu(shape, precision, device)
    speeds = samples / acting.seconds, samples / learning.seconds
    link = measure_link(spec, shape, device)
    return Limit(precision, f"{gpus} GPU(s)", *speeds, f"{acting.form}; {learning.form}", link)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--env", nargs="+", default=["breakout"])
    parser.add_argument("--precision", nargs="+", help="default: all that the device has")
    parser.add_argument("--layout", nargs="+", metavar="PxT", help="processes x threads on CPUs; default: several")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128])
    for name, default in (("samples", 65_536), ("minibatches", PPOConfig().minibatches), ("horizon", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    on_cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    cores = len(os.sched_getaffinity(0))
    place = torch.cuda.get_device_name() if on_cuda else f"{cores} cores"
    print(f"torch {torch.__version__}, {place}; {options.samples:,} samples an iteration\n")
    print(f"| environment | LSTM | {' | '.join(COLUMNS)} |\n|{'---|' * (2 + len(COLUMNS))}", flush=True)
    all_layouts = sorted({"1x1", f"1x{cores}", f"{cores}x1"})
    layouts = [[int(number) for number in layout.split("x")] for layout in options.layout or all_layouts]
    for env in options.env:
        spec = env_spec(compose_train([f"env={env}"])[0].env)
        for hidden in options.hidden:
            sizes = (spec, hidden, options.samples, options.horizon, options.minibatches)
            for precision in options.precision or PRECISIONS["cuda" if on_cuda else "cpu"]:
                if on_cuda:
                    print(f"| {env} | {hidden} | {measure_gpus(*sizes, 1, precision).row} |", flush=True)
                for processes, threads in [] if on_cuda else layouts:
                    limit = measure(*sizes, processes, threads, precision)
                    print(f"| {env} | {hidden} | {limit.row} |", flush=True)


if __name__ == "__main__":
    main()

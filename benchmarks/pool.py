"""The pool driven from Python, beside a bare C++ loop over the same environments.

    python -m benchmarks.pool [--envs NAME ... | all] [--repeat 9] [--threads 1 2] [--processes 1 2] [--unpinned]

The bare loop (benchmarks/pool_bare.cpp, built here by g++ with the extension's own flags) is the simplest program that
does the same work on one thread: for every step, for every environment: step, reset if the episode is over, observe,
draw the noise of the next action. It checks no action and keeps no statistics. The pool does both, and is stepped by a
Python loop that copies the bare loop's actions into its buffer. Each repetition runs each of them once, one after the
other, from a fresh start: a round to warm up, and a round that is timed. Their last observations and noise must have
the same bits. Medians over the repetitions, in millions of agents' steps per second.

The last table is what a send() and a recv() cost by themselves: one environment, one thread, nothing written.
Threads are pinned as in a training run of one learner, unless --unpinned. Keep the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool, cores_to_pin, env_names, env_spec

FLAGS = ("-std=c++20", "-O3", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-fPIC")  # as in cpp_envs/CMakeLists.txt
SEED = 1  # as in pool_bare.cpp
HERE = Path(__file__).parent
ROUND_S = 0.3  # about, of the bare loop
MOST_ROWS = 4096  # agents of all environments


@dataclass(frozen=True)
class Case:
    env: str
    num_envs: int
    steps: int  # of a round


CASES = (Case("cartpole", 4096, 1500), Case("breakout", 1024, 3000))


def case_of(program: Path, env: str) -> Case:
    """A round that takes the bare loop about ROUND_S."""
    for case in CASES:
        if case.env == env:
            return case
    spec = env_spec(EnvConfig(name=env))
    num_envs = max(1, min(1024, MOST_ROWS // spec.num_agents))
    trial = Case(env, num_envs, 50)
    return Case(env, num_envs, max(50, int(50 * ROUND_S / time_bare(program, trial)[0])))


def build_bare(folder: Path) -> Path:
    program, sources = folder / "pool_bare", HERE.parent / "cpp_envs"
    headers = sorted((sources / "envs").glob("*.h"))
    (folder / "all_envs.h").write_text("".join(f'#include "{header}"\n' for header in headers))
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, *FLAGS, f"-I{sources}", f"-I{folder}", str(HERE / "pool_bare.cpp"), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def time_bare(program: Path, case: Case) -> tuple[float, bytes]:
    """Seconds of the second round, and the observations and noise after it. Writes its actions beside the program."""
    actions, result = program.with_name("actions"), program.with_name("result")
    command = [str(x) for x in (program, case.env, case.num_envs, case.steps, 2, actions, result)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[1]), result.read_bytes()


def time_pool(pool: EnvPool, case: Case, actions_file: Path) -> tuple[float, bytes]:
    """The same of a pool, with the actions of the bare loop."""
    pool.reset()
    actions, send, recv = pool.actions, pool.send, pool.recv
    table = list(np.fromfile(actions_file, actions.dtype).reshape(-1, *actions.shape))
    seconds = 0.0
    for round_ in range(2):
        began = time.perf_counter()
        for step in range(round_ * case.steps, (round_ + 1) * case.steps):
            actions[:] = table[step % len(table)]
            send()
            recv()
        seconds = time.perf_counter() - began
    return seconds, pool.observations.tobytes() + pool.noise.tobytes()


@dataclass(frozen=True)
class Crew:
    """Who steps a pool. `rival`: whose speed its own is given in terms of."""

    workers: str
    count: int
    rival: tuple[str, int]

    def __str__(self) -> str:
        one = {"threads": "thread", "processes": "process"}[self.workers]
        return f"{self.count} {self.workers if self.count > 1 else one}"


def crews(threads: list[int], processes: list[int]) -> list[Crew]:
    """Threads beside the first number of them, processes beside as many threads."""
    ours = [Crew("threads", count, ("threads", threads[0])) for count in threads]
    return ours + [Crew("processes", n, ("threads", n if n in threads else threads[0])) for n in processes]


def make_pool(env: str, num_envs: int, count: int, pin: bool, workers: str = "threads") -> EnvPool:
    cores, config = cores_to_pin(count, 0, 1) if pin else [], EnvConfig(name=env, workers=workers)
    return EnvPool(config, num_envs=num_envs, first_env=0, seed=SEED, threads=count, cores=cores)


def compare(program: Path, case: Case, those: list[Crew], pin: bool, repeat: int) -> str:
    """A row of the table."""
    pools = {crew: make_pool(case.env, case.num_envs, crew.count, pin, crew.workers) for crew in those}
    bare: list[float] = []
    driven: dict[tuple[str, int], list[float]] = {(crew.workers, crew.count): [] for crew in those}
    for _ in range(repeat):
        seconds, expected = time_bare(program, case)
        bare.append(seconds)
        for crew, pool in pools.items():
            seconds, shown = time_pool(pool, case, program.with_name("actions"))
            if shown != expected:
                raise RuntimeError(f"{case.env}: the pool with {crew} and the bare loop differ")
            driven[crew.workers, crew.count].append(seconds)
    work = env_spec(EnvConfig(name=case.env)).num_agents * case.num_envs * case.steps / 1e6
    cells: list[Any] = [case.env, f"{case.num_envs:,}", f"{work / median(bare):.1f}"]
    for crew in those:
        time_ = median(driven[crew.workers, crew.count])
        cells += [f"{work / time_:.1f}", f"{median(bare) / time_:.2f}", f"{median(driven[crew.rival]) / time_:.2f}"]
    return " | ".join(map(str, cells))


def pair_microseconds(repeat: int) -> float:
    """Of send() and recv() with one environment."""
    pool = make_pool("cartpole", 1, 1, pin=False)
    pool.reset()
    send, recv, pairs = pool.send, pool.recv, 20_000
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        for _ in range(pairs):
            send()
            recv()
        times.append((time.perf_counter() - began) / pairs * 1e6)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=[case.env for case in CASES], help="or all")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--unpinned", action="store_true")
    options = parser.parse_args()
    columns = ["environment", "environments", "bare loop, M steps/s"]
    those = crews(options.threads, options.processes)
    for crew in those:
        columns += [f"pool, {crew}", "/ bare", f"/ {Crew(*crew.rival, crew.rival)}"]
    print(f"{len(os.sched_getaffinity(0))} cores{', not pinned' if options.unpinned else ''}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        program = build_bare(Path(folder))
        names = [name for name in env_names() if not name.startswith("probe_")]
        for env in names if options.envs == ["all"] else options.envs:
            case = case_of(program, env)
            print(f"| {compare(program, case, those, not options.unpinned, options.repeat)} |", flush=True)
    print(f"\nsend() + recv(), 1 environment, 1 thread: {pair_microseconds(options.repeat):.2f} us")


if __name__ == "__main__":
    main()

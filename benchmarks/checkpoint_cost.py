"""What a checkpoint costs the training that goes on meanwhile: iterations with one and without, in turns.

    python -m benchmarks.checkpoint_cost [--hidden 1936] [--optimizer psgd_kron] [--pairs 6] [--folder DIR] [--wait]

An LSTM of 1936 has 30 M parameters; PSGD's momentum and Kronecker factors are three times as much again. Of each pair
of iterations one begins with a checkpoint, as the loop of `train` writes it: a copy for which the loop waits, and a
thread that writes while it works. What the iteration takes longer, the copy included, by 60 s is the share of the
throughput that one checkpoint a minute costs. With --wait the loop waits for the writing too, as it would without the
thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from dist_trainer.checkpoint import shard_of
from dist_trainer.checkpoint_writer import CheckpointWriter, Written
from dist_trainer.cli import compose_train
from dist_trainer.distributed import World
from dist_trainer.learner import Learner, make_learner
from dist_trainer.update import learn

MINUTE_S = 60.0
WARM_UP = 2  # iterations


def iterate(learner: Learner) -> None:
    learn(learner, learner.collector.collect())
    learner.iteration += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1936)
    parser.add_argument("--optimizer", default="psgd_kron")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--minibatches", type=int, default=1, help="optimizer steps of an iteration")
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--wait", action="store_true", help="the loop waits until the checkpoint is written")
    options = parser.parse_args()
    size = ["env=cartpole", "total_envs=16", "horizon=16", f"ppo.minibatches={options.minibatches}", "device=cpu"]
    settings = [*size, f"policy.hidden_size={options.hidden}", f"optimizer={options.optimizer}", "diagnostics_every=0"]
    learner = make_learner(compose_train(settings)[0], World(0, 1, 0, 1, torch.device("cpu")))
    for _ in range(WARM_UP):
        iterate(learner)
    times: dict[bool, list[float]] = {False: [], True: []}
    held: list[float] = []
    written: list[Written] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        writer = CheckpointWriter(learner.world, Path(folder), keep=1, keep_best=False)
        writer.start(0, shard_of(learner, dict), None)  # the first copy allocates its memory
        writer.result(wait=True)
        for pair in range(options.pairs):
            for saves in (False, True) if pair % 2 == 0 else (True, False):
                began = time.perf_counter()
                if saves:
                    writer.start(learner.iteration, shard_of(learner, dict), None)
                    if options.wait:
                        writer.result(wait=True)
                    held.append(time.perf_counter() - began)
                iterate(learner)
                times[saves].append(time.perf_counter() - began)
                if saves and not options.wait:
                    assert not writer.busy, "an iteration is too short for a checkpoint: more --minibatches"
                    result = writer.result(wait=True)
                    assert result and result.failure is None, result
                    written.append(result)
    without, with_one = (statistics.median(times[saves]) for saves in (False, True))
    cost = statistics.median(b - a for a, b in zip(times[False], times[True], strict=True))
    parameters = sum(weight.numel() for weight in learner.policy.parameters())
    print(f"torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads")
    print(f"{options.optimizer}, {parameters / 1e6:.1f} M parameters; checkpoints of {_megabytes(written)} MB")
    print(f"copy: {statistics.median(held):.2f} s; written in {_seconds(written)} s")
    print(f"an iteration: {without:.2f} s, with a checkpoint {with_one:.2f} s; medians of {options.pairs}")
    spread = ", ".join(f"{b - a:+.2f}" for a, b in zip(times[False], times[True], strict=True))
    print(f"a checkpoint costs {cost:.2f} s (median of the pairs' {spread}): {cost / MINUTE_S:.1%} at one a minute")


def _megabytes(written: list[Written]) -> str:
    return f"{statistics.median(one.bytes for one in written) / 1e6:.0f}" if written else "?"


def _seconds(written: list[Written]) -> str:
    return f"{statistics.median(one.seconds for one in written):.2f}" if written else "?"


if __name__ == "__main__":
    main()

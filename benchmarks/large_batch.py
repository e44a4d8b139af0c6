"""Peak memory of a 524,288-sample batch (8,192 environments x 64 steps), beside what it must at least be.

    python -m benchmarks.large_batch [SETTING=VALUE ...]

Runs two iterations of the real trainer in this process and prints a table for benchmarks/LOG.md.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
from pathlib import Path

from dist_trainer.cli import compose_train
from dist_trainer.distributed import connect
from dist_trainer.learner import make_learner
from dist_trainer.trainer import train

BATCH = ["total_envs=8192", "horizon=64", f"total_env_steps={2 * 8192 * 64}"]
MIB = 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def arithmetic(arguments: list[str]) -> dict[str, float]:
    """MiB that any trainer of this kind needs at once: the rollout, one minibatch's activations, weights."""
    config = compose_train(arguments)[0]
    world = connect("cpu", 60)
    learner = make_learner(config, world)
    spec, rows, steps = learner.pool.spec, learner.pool.rows, config.horizon
    samples = rows * steps
    item = 1 if spec.observation_is_bytes else 4
    observation = item * math.prod(spec.observation_shape)
    per_sample = observation + 4 * spec.action_components + 5 * 4 + 2
    hidden = config.policy["hidden_size"]
    # Kept for backward per sample: encoder output, LSTM's four gates, cell, hidden; and their gradients in passing.
    activations = 4 * hidden * (1 + 4 + 1 + 1)
    parameters = sum(p.numel() for p in learner.policy.parameters())
    return {
        "rollout": samples * per_sample / MIB,
        "one minibatch's activations": samples / config.ppo.minibatches * activations / MIB,
        "weights, gradients, two moments": 4 * 4 * parameters / MIB,
        "environments": learner.pool.memory_bytes / MIB,
    }


def main() -> None:
    arguments = BATCH + sys.argv[1:]
    config = compose_train(arguments)[0]
    imports = peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        train(config, connect("cpu", 60), Path(folder) / "run", None)
    peak = peak_mib()
    parts = arithmetic(arguments)
    print("| part | MiB |\n|---|---|")
    for name, size in parts.items():
        print(f"| {name} (arithmetic) | {size:.0f} |")
    print(f"| sum of the above | {sum(parts.values()):.0f} |")
    print(f"| interpreter and libraries, before training (measured) | {imports:.0f} |")
    print(f"| peak of the whole process (measured) | {peak:.0f} |")


if __name__ == "__main__":
    main()

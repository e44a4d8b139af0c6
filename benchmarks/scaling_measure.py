"""What every learner of a launch measures; benchmarks.scaling starts it, or a launcher of yours does.

    torchrun ... -m benchmarks.scaling_measure --json OUT.json [--phases] [--work] [--collectives] [--iterations]

--phases: each process alone in a run of its own, all at the same time: the phases of an iteration, for several numbers
of rows, and each unit of the optimizer. --work: what an iteration consists of, counted. --collectives: each by size.
--iterations: whole iterations of all learners together, replicated and sharded.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from benchmarks.scaling_count import count_work
from benchmarks.scaling_parts import config_for, measure_collectives, measure_phases
from benchmarks.scaling_records import Record, write
from benchmarks.scaling_whole import measure_iterations
from dist_trainer.distributed import World, connect, disconnect

COUNTED_ENVS = 16  # operators do not depend on how many there are


def kernels(world: World) -> int:
    """How many kernels the learners run on: nodes that are containers of one machine count once."""
    identity = Path("/proc/sys/kernel/random/boot_id")
    own = identity.read_text() if identity.exists() else os.uname().nodename
    everyone = world.gather_values(own)
    return world.broadcast(len(set(everyone)) if everyone else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("phases", "work", "collectives", "iterations"):
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--json", type=Path, required=True, help="the first learner writes it")
    parser.add_argument("--optimizers", nargs="+", default=["psgd_kron", "muon"])
    parser.add_argument("--env", default="breakout")
    parser.add_argument("--samples", type=int, default=65_536, help="of an iteration, all learners together")
    parser.add_argument("--horizon", type=int, default=64)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128], help="all are counted, the first is timed")
    parser.add_argument("--rows", type=int, nargs="+", help="of the learners whose phases are timed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--env-threads", type=int, default=1)
    parser.add_argument("--shard-group", type=int, help="learners in a group; default: those of a machine")
    options = parser.parse_args()
    world = connect(options.device, 300)
    torch.set_num_threads(1)
    record = Record(
        learners=world.size,
        nodes=world.size // world.local_size,
        cores=kernels(world) * len(os.sched_getaffinity(0)),
        device=torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu",
        torch=torch.__version__,
        environment=options.env,
        samples=options.samples,
        horizon=options.horizon,
    )
    if options.work:
        for hidden in options.hidden:
            for name in options.optimizers:
                record.works.append(count_work(name, config_for(options, name, hidden, COUNTED_ENVS), world))
    if options.collectives and world.size > 1:
        record.collectives.extend(measure_collectives(world))
    for name in options.optimizers:  # one soon after the other: a shared machine's speed changes with the time
        if options.phases:
            record.phases.append(measure_phases(options, world, name))
        if options.iterations:
            for sync in ("replicated", "sharded") if world.size > 1 else ("replicated",):
                record.iterations.append(measure_iterations(options, world, name, sync))
    if world.is_first:
        write(record, options.json)
    disconnect()


if __name__ == "__main__":
    main()

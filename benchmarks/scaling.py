"""The scaling model: measures what an iteration is made of, checks the model against whole runs, predicts 8 to 64 GPUs.

    python -m benchmarks.scaling [--validate FILE.json ...] [--phases FILE.json] [--keep FILE.json] [--tflops 15 ...]

Measured on this machine, in at most ten minutes (leave it idle), at W = 1, 2, 4, 8: the phases of an iteration, with W
learners that do not communicate; every collective by size; whole iterations. The model is fitted to phases and
collectives alone, and its predictions are printed beside the iterations. Then come GPUs: what is assumed of them is
printed, and can be set.

--validate: iterations and collectives that learners of another launch have measured, for example under Slurm:
    srun ... torchrun ... -m benchmarks.scaling_measure --phases --collectives --iterations --json FILE.json
--phases: phases measured on a GPU replace what is assumed of it, for the policy that they were measured with:
    torchrun --standalone --nproc-per-node 1 -m benchmarks.scaling_measure --phases --device cuda
        --rows 1024 2048 4096 8192 --env-threads 12 --json FILE.json
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scaling_forecast import forecasts, spent_at_64, statement, tables
from benchmarks.scaling_gpu import MEANINGS, Device
from benchmarks.scaling_model import Line
from benchmarks.scaling_picture import draw
from benchmarks.scaling_records import Record, read, write
from benchmarks.scaling_report import (
    assumption_table,
    check,
    collective_table,
    phase_table,
    phases_of,
    validation_table,
)

PICTURE = Path(__file__).parent / "pictures" / "scaling.png"

NOT_MODELLED = """\
- No GPU was measured here, unless --phases says so: of the GPU tables the shape (what grows with W, what does not) is
  worth more than the milliseconds.
- Every learner's environments cost the same in each iteration; what one waits for the slowest is `spread` alone, with
  the expected maximum of normal numbers. Simulators with long tails wait longer.
- All-reduces are not overlapped with the backward pass, as in dist_trainer today. Gradient, optimizer and gather follow
  each other in every minibatch.
- Links carry nothing else; adaptive routing, congestion, and NICs that share a PCIe switch are not in it.
- The number of optimizer steps does not grow: minibatches grow with the batch in weak scaling.
- PSGD's preconditioners are fitted in every step, as in a run's first 1,000; later in 3 % of them, which costs less.
- Checkpoints, drift checks, TensorBoard and diagnostics are left out: all are rare or small.
- Operators of a rollout with truncated episodes are counted in one iteration of 16 environments."""


@dataclass(frozen=True)
class Bundle:
    """Everything that a run of this command has measured, so that it can be looked at again."""

    worlds: list[Record]  # the first is that of one learner


def launch(learners: int, *arguments: str) -> Record:
    """Starts so many learners on this machine with torchrun; what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.json"
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(learners)]
        command = [*run, "-m", "benchmarks.scaling_measure", "--json", str(file), *arguments]
        print(f"... {learners} learner(s): {' '.join(a for a in arguments if a.startswith('--'))}", file=sys.stderr)
        status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        if status:
            sys.exit(f"the learners failed (status {status}); what they said is above")
        return read(Record, file)


def measure(options: argparse.Namespace) -> Bundle:
    common = ["--env", options.env, "--samples", str(options.samples), "--optimizers", *options.optimizers]
    common += ["--hidden", *map(str, options.hidden)]
    parts = ("--phases", "--collectives", "--iterations")
    numbers = sorted({1, *options.learners})
    return Bundle([launch(n, *parts, *(["--work"] if n == 1 else []), *common) for n in numbers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", default=["psgd_kron", "muon"])
    parser.add_argument("--env", default="breakout")
    parser.add_argument("--samples", type=int, default=65_536, help="of an iteration that is measured")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 1024], help="the first is measured")
    parser.add_argument("--learners", type=int, nargs="+", default=[1, 2, 4, 8], help="W of the measured iterations")
    parser.add_argument("--validate", type=Path, nargs="*", default=[], help="records of other launches")
    parser.add_argument("--phases", type=Path, help="a record of a GPU's phases")
    parser.add_argument("--keep", type=Path, help="write all that was measured to this file")
    parser.add_argument("--measured", type=Path, help="such a file: measure nothing, tabulate again")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--env-us", type=float, help="of a core, for one agent's step; default: as measured")
    for field in dataclasses.fields(Device):
        kind = int if isinstance(field.default, int) else float
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, default=field.default, help=MEANINGS[field.name]
        )
    options = parser.parse_args()
    device = Device(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Device)})
    bundle = read(Bundle, options.measured) if options.measured else measure(options)
    if options.keep:
        write(bundle, options.keep)
    report(options, bundle, device)


def report(options: argparse.Namespace, bundle: Bundle, device: Device) -> None:
    alone = bundle.worlds[0]
    worlds = [*bundle.worlds, *(read(Record, file) for file in options.validate)]
    print(f"Measured: {alone.cores} cores, {alone.device}, torch {alone.torch}; {alone.environment}, LSTM ", end="")
    print(f"{alone.phases[0].hidden}, {alone.samples:,} samples an iteration, horizon {alone.horizon}, ", end="")
    print(f"{alone.works[0].parameters:,} parameters, {alone.works[0].minibatches} minibatches, one thread a learner.")
    print("\n## Phases of an iteration (measured, W learners at once that do not communicate)\n")
    print(phase_table(worlds))
    print("\n## Collectives (measured)\n")
    print(collective_table(worlds))
    checks = [one for record in worlds for one in check(bundle.worlds, record)]
    print("\n## Predicted from the above, and measured\n")
    print(validation_table(checks))

    gpu = read(Record, options.phases) if options.phases else None
    measured = {(record.optimizer, record.hidden): phases_of(record) for record in gpu.phases} if gpu else {}
    environment = phases_of(alone.phases[0]).environment
    if options.env_us is not None:
        environment = Line(environment.fixed, 1e-6 * options.env_us * alone.horizon)
    found = forecasts(alone.works, device, environment, alone.horizon, measured)
    print("\n## GPUs: assumed\n")
    print(assumption_table(device, gpu.device if gpu else None))
    per_step = 1e6 * environment.each / alone.horizon
    print(f"\nMeasured, and used beside it: {per_step:.3f} us of a core for one agent's step; operators, products and")
    print("messages, counted:\n")
    print("| policy | optimizer | parameters | operators: rollout | learning | optimizer step | its GFLOP |")
    print("|---|---|---|---|---|---|---|")
    for work in alone.works:
        cells = [f"LSTM {work.hidden}", work.optimizer, f"{work.parameters:,}", f"{work.rollout_operators:,}"]
        cells += [f"{work.learning_operators:,}", f"{sum(work.unit_operators):,}", f"{sum(work.unit_flops) / 1e9:.2f}"]
        print("| " + " | ".join(cells) + " |")
    print("\n## GPUs: predicted")
    print(tables(found))
    print("\n**64 GPUs over InfiniBand, where an iteration's ms go**\n")
    print(spent_at_64(found))
    print("\n**Weak-scaling efficiency of 64 GPUs over InfiniBand**\n")
    print(statement(found))
    print("\n## Not in the model\n")
    print(NOT_MODELLED)
    draw(checks, found, options.picture)
    print(f"\nPicture: {options.picture.name}")


if __name__ == "__main__":
    main()

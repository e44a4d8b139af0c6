"""What was measured, what was predicted of it, and what was assumed, in Markdown. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.scaling_forecast import work_of
from benchmarks.scaling_gpu import MEANINGS, NETWORKS, PROTOCOLS, Device
from benchmarks.scaling_model import (
    Line,
    Links,
    Phases,
    Prediction,
    crowding,
    fit_line,
    links_over_learners,
    predict,
    slowed,
    worst_error,
)
from benchmarks.scaling_records import IterationRecord, PhaseRecord, Record, WorkRecord

PHASES = ("environment", "inference", "learning")


@dataclass(frozen=True)
class Check:
    """A prediction beside the measurement that it has not seen."""

    where: str
    learners: int
    iteration: IterationRecord
    measured: float  # seconds, the median
    predicted: Prediction
    extrapolated: float | None  # seconds, from launches of fewer learners alone
    busy: float  # share of the cores' time in which they worked

    @property
    def error(self) -> float:
        return self.predicted.seconds / self.measured - 1


def points_of(record: PhaseRecord, phase: str) -> list[tuple[float, float]]:
    """(rows, seconds); a microsecond at least, for relative errors."""
    return [(point.rows, max(1e-6, getattr(point, phase))) for point in record.points]


def phases_of(record: PhaseRecord) -> Phases:
    lines = {phase: fit_line(points_of(record, phase)) for phase in PHASES}
    return Phases(**lines, units=tuple(record.unit_seconds))


def contended(record: Record, optimizer: str) -> Phases | None:
    """Phases of a launch's learners, all at once, per core: what they took divided by the turns on a core."""
    found = next((one for one in record.phases if one.optimizer == optimizer), None)
    return slowed(phases_of(found), 1 / crowding(found.processes, record.cores)) if found else None


def phase_table(worlds: Sequence[Record]) -> str:
    """For every number of learners at once: the phases, and how much slower a core works than for one alone."""
    lines = [
        "| optimizer | learners at once | where | rows measured | environment | inference | learning | fit within "
    ]
    lines[0] += "| optimizer step, ms | a core's slowdown: rollout | learning | optimizer |"
    lines.append("|---" * 12 + "|")
    for first in worlds[0].phases:
        alone = phases_of(first)
        for world in worlds:
            for one in (one for one in world.phases if one.optimizer == first.optimizer):
                now = phases_of(one)
                cells = [one.optimizer, str(one.processes), where(world)]
                cells.append(", ".join(str(point.rows) for point in one.points))
                fits = [(getattr(now, phase), points_of(one, phase)) for phase in PHASES]
                cells += [f"{1e3 * fit.fixed:.1f} + {1e3 * fit.each:.4f} n" for fit, _ in fits]
                cells += [f"{max(worst_error(*fit) for fit in fits):.0%}", f"{1e3 * sum(now.units):.1f}"]
                per_core = slowed(now, 1 / crowding(one.processes, world.cores))
                rows = world.samples // world.horizon // one.processes
                rollouts = [phases.environment.at(rows) + phases.inference.at(rows) for phases in (per_core, alone)]
                cells.append(f"{rollouts[0] / rollouts[1]:.2f}")
                cells.append(f"{per_core.learning.at(rows) / alone.learning.at(rows):.2f}")
                cells.append(f"{sum(per_core.units) / sum(alone.units):.2f}")
                lines.append("| " + " | ".join(cells) + " |")
    spread = max(point.rollout_spread for record in worlds[0].phases for point in record.points)
    lines.append(
        f"\nms of an iteration for n rows. The time of a rollout, one learner alone, varied by up to {spread:.1%}."
    )
    return "\n".join(lines)


def collective_line(record: Record, kind: str) -> Line:
    return fit_line([(point.bytes, point.seconds) for point in record.collectives if point.kind == kind])


def links_of(record: Record) -> Links:
    if record.learners == 1:
        return Links(Line(0.0, 0.0), Line(0.0, 0.0))
    return Links(collective_line(record, "all_reduce"), collective_line(record, "all_gather"))


def where(record: Record) -> str:
    local = record.learners // record.nodes
    return "processes" if record.nodes == 1 else f"{record.nodes} nodes x {local}"


def collective_table(worlds: Sequence[Record]) -> str:
    sizes = sorted({point.bytes for record in worlds for point in record.collectives})
    heading = "".join(f" | {size:,} B" for size in sizes)
    lines = [f"| collective | W | where{heading} | alpha, us | 1/beta, MB/s | fit within |"]
    lines.append("|---" * (len(sizes) + 6) + "|")
    for kind in ("all_reduce", "all_gather"):
        for record in (record for record in worlds if record.collectives):
            points = [(point.bytes, point.seconds) for point in record.collectives if point.kind == kind]
            cells = " | ".join(f"{1e6 * seconds:,.0f}" for _, seconds in points)
            line = fit_line([(float(size), seconds) for size, seconds in points])
            fit = f"{1e6 * line.fixed:,.0f} | {1e-6 / line.each:,.0f} | {worst_error(line, points):.0%}"
            lines.append(f"| {kind}, us | {record.learners} | {where(record)} | {cells} | {fit} |")
    local = {record.learners: record for record in worlds if record.nodes == 1 and record.collectives}
    if len(local) > 1:
        for kind in ("all_reduce", "all_gather"):
            alpha, beta = links_over_learners({n: collective_line(one, kind) for n, one in local.items()})
            lines.append(
                f"\nOver W, {kind}: alpha = {1e6 * alpha.fixed:.0f} us + {1e6 * alpha.each:.0f} us (W - 1), "
                f"beta = {1e9 * beta.fixed:.2f} ns + {1e9 * beta.each:.2f} ns (W - 1) a byte"
            )
    return "\n".join(lines)


def fewer_learners(worlds: Sequence[Record], record: Record, optimizer: str) -> tuple[Phases, Links] | None:
    """Phases and links for `record`'s learners from launches of fewer, as processes, alone."""
    fewer = [world for world in worlds if world.nodes == 1 and 1 < world.learners < record.learners]
    if not fewer or record.nodes > 1:
        return None
    lines = {}
    for kind in ("all_reduce", "all_gather"):
        alpha, beta = links_over_learners({world.learners: collective_line(world, kind) for world in fewer})
        lines[kind] = Line(alpha.at(record.learners - 1), beta.at(record.learners - 1))
    phases = contended(max(fewer, key=lambda world: world.learners), optimizer)
    return (phases, Links(**lines)) if phases else None


def check(worlds: Sequence[Record], record: Record) -> list[Check]:
    """Predictions for the iterations of `record`, from phases and collectives alone.

    Where `record` has no phases of its own, those of as many processes in `worlds` are taken.
    """
    place = {"rows": record.samples // record.horizon // record.learners, "learners": record.learners}
    source = next((one for one in (record, *worlds) if one.phases and one.learners == record.learners), None)
    checks = []
    for iteration in record.iterations:
        phases = contended(source, iteration.optimizer) if source else None
        if phases is None:
            continue
        work = work_of(work_record(worlds[0], iteration.optimizer), iteration.sync, iteration.group)
        other = fewer_learners(worlds, record, iteration.optimizer)
        measured = median(iteration.seconds)
        checks.append(
            Check(
                where=where(record),
                learners=record.learners,
                iteration=iteration,
                measured=measured,
                predicted=predict(phases, work, links_of(record), cores=record.cores, **place),
                extrapolated=predict(other[0], work, other[1], cores=record.cores, **place).seconds if other else None,
                busy=iteration.cpu_seconds / measured / min(record.learners, record.cores),
            )
        )
    return checks


def work_record(alone: Record, optimizer: str) -> WorkRecord:
    """Of the policy that was timed, which is the first that was counted."""
    return next(work for work in alone.works if work.optimizer == optimizer)


def validation_table(checks: Sequence[Check]) -> str:
    lines = ["| where | W | optimizer | sync | predicted, ms | measured, ms (range) | error "]
    lines[0] += "| error, from fewer learners alone "
    lines[0] += "| of it collectives, predicted | in collectives, measured with waiting | cores busy |"
    lines.append("|---" * 11 + "|")
    for one in checks:
        low, high = min(one.iteration.seconds), max(one.iteration.seconds)
        terms = one.predicted.terms
        messages = sum(terms[name] for name in terms if name.startswith("gradient")) + terms["small_messages"]
        messages += terms["weights_gather"]
        other = f"{one.extrapolated / one.measured - 1:+.1%}" if one.extrapolated else "-"
        cells = [one.where, one.learners, one.iteration.optimizer, one.iteration.sync]
        cells += [f"{1e3 * one.predicted.seconds:.0f}", f"{1e3 * one.measured:.0f} ({1e3 * low:.0f}-{1e3 * high:.0f})"]
        cells += [f"{one.error:+.1%}", other, f"{1e3 * messages:.0f}", f"{1e3 * one.iteration.in_collectives:.0f}"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + f" | {one.busy:.0%} |")
    several = [one for one in checks if one.learners > 1]
    if several:
        worst = max(several, key=lambda one: abs(one.error))
        mean = sum(abs(one.error) for one in several) / len(several)
        drift = max(one.iteration.check_seconds / one.measured for one in checks)
        lines.append(
            f"\nWorst error with W > 1: {worst.error:+.1%} ({worst.where}, W = {worst.learners}, "
            f"{worst.iteration.optimizer}, {worst.iteration.sync}); mean of the errors' sizes {mean:.1%}. "
            f"Not in these iterations: the drift check, {drift:.1%} of one at most, every 10th by default."
        )
    return "\n".join(lines)


def assumption_table(device: Device, measured: str | None) -> str:
    lines = ["| assumed | value | meaning |", "|---|---|---|"]
    lines += [f"| {name} | {value:g} | {MEANINGS[name]} |" for name, value in asdict(device).items()]
    for network in NETWORKS:
        speed = f"{network.between / 1e9:.2f} GB/s a GPU" if network.between else "as nvlink_gbs"
        lines.append(f"| {network.name} | {speed} | {network.source} |")
    names = ", ".join(protocol.name for protocol in PROTOCOLS)
    lines.append(f"| latencies | {names}, NVLS | NCCL's own cost model (NVIDIA/nccl, src/graph/tuning.cc) |")
    if measured:
        lines.append(
            f"\nPhases measured on {measured} replace tflops, operator_us, lstm_step_us, sync_us and copy_gbs."
        )
    return "\n".join(lines)

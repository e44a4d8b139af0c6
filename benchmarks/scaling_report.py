"""What was measured, what was predicted of it, and what was assumed, in Markdown. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.scaling_forecast import work_of
from benchmarks.scaling_gpu import MEANINGS, NETWORKS, PROTOCOLS, Device
from benchmarks.scaling_model import (
    Line,
    Links,
    Phases,
    Prediction,
    between,
    fit_line,
    links_over_learners,
    predict,
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
    extrapolated: float | None  # seconds, with links from fewer learners alone
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


def phase_table(alone: Record, crowded: Record) -> str:
    at_once = crowded.phases[0].processes
    lines = [
        f"| optimizer | phase | alone: ms, fixed | us a row | fit within | {at_once} at once: ms, fixed | us a row "
    ]
    lines[0] += "| fit within | contention at the most rows |"
    lines.append("|---" * 9 + "|")
    for one, many in zip(alone.phases, crowded.phases, strict=True):
        rows = one.points[-1].rows
        for phase in PHASES:
            fits = [(fit_line(points_of(record, phase)), points_of(record, phase)) for record in (one, many)]
            cells = [
                f"{1e3 * fit.fixed:.2f} | {1e6 * fit.each:.2f} | {worst_error(fit, points):.0%}" for fit, points in fits
            ]
            ratio = fits[1][0].at(rows) / fits[0][0].at(rows)
            lines.append(f"| {one.optimizer} | {phase} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
        first, second = sum(one.unit_seconds), sum(many.unit_seconds)
        cells = [f"{1e3 * first:.2f} | - | -", f"{1e3 * second:.2f} | - | -"]
        lines.append(f"| {one.optimizer} | one step | {cells[0]} | {cells[1]} | {second / first:.2f} |")
    spread = max(point.rollout_spread for record in alone.phases for point in record.points)
    lines.append(f"\nA rollout's time varied by up to {spread:.1%} (standard deviation, one learner alone).")
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


def extrapolated_links(worlds: Sequence[Record], learners: int) -> Links | None:
    """From the processes of fewer learners on one machine; two numbers of them are needed."""
    fewer = {record.learners: record for record in worlds if record.nodes == 1 and 1 < record.learners < learners}
    if len(fewer) < 2:
        return None
    lines = {}
    for kind in ("all_reduce", "all_gather"):
        alpha, beta = links_over_learners({n: collective_line(record, kind) for n, record in fewer.items()})
        lines[kind] = Line(alpha.at(learners - 1), beta.at(learners - 1))
    return Links(**lines)


def check(alone: Record, crowded: Record, worlds: Sequence[Record], record: Record) -> list[Check]:
    """Predictions for the iterations of `record`, from phases and collectives alone."""
    share = min(1.0, (record.learners - 1) / max(1, record.cores - 1))
    rows = record.samples // record.horizon // record.learners
    checks = []
    for iteration in record.iterations:
        pair = [next(p for p in one.phases if p.optimizer == iteration.optimizer) for one in (alone, crowded)]
        phases = between(phases_of(pair[0]), phases_of(pair[1]), share)
        work = work_of(work_record(alone, pair[0].optimizer, pair[0].hidden), iteration.sync, iteration.group)
        place = {"rows": rows, "learners": record.learners}
        prediction = predict(phases, work, links_of(record), cores=record.cores, **place)
        other = extrapolated_links(worlds, record.learners) if record.nodes == 1 else None
        seconds = sorted(iteration.seconds)
        measured = seconds[len(seconds) // 2]
        checks.append(
            Check(
                where=where(record),
                learners=record.learners,
                iteration=iteration,
                measured=measured,
                predicted=prediction,
                extrapolated=predict(phases, work, other, cores=record.cores, **place).seconds if other else None,
                busy=iteration.cpu_seconds / measured / min(record.learners, record.cores),
            )
        )
    return checks


def work_record(alone: Record, optimizer: str, hidden: int) -> WorkRecord:
    return next(work for work in alone.works if (work.optimizer, work.hidden) == (optimizer, hidden))


def validation_table(checks: Sequence[Check]) -> str:
    lines = ["| where | W | optimizer | sync | predicted, ms | measured, ms (range) | error | with links from fewer W "]
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

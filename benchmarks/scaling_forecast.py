"""Predicts 1 to 64 GPUs, and says so in Markdown. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scaling_gpu import NETWORKS, NODE, Device, Network, assumed_phases, gpu_links
from benchmarks.scaling_model import Line, Phases, Prediction, Work, efficiency, predict, spread_for
from benchmarks.scaling_records import WorkRecord

GPUS = (1, 8, 16, 32, 64)
SAMPLES = 524_288  # of an iteration: in all (strong), or per 8 GPUs (weak)
SYNCS = ("replicated", "sharded")
INFINIBAND = NETWORKS[1].name
OF_OTHERS = 0.84  # DD-PPO (arXiv 1911.00357): 107 times one GPU's speed on 128

TERMS = {
    "environment": "environments (host)",
    "inference": "rollout inference",
    "stragglers": "slowest rollout",
    "learning": "learning",
    "optimizer": "optimizer",
    "gradient_latency": "gradient all-reduce: latency",
    "gradient_bandwidth": "gradient all-reduce: bandwidth",
    "weights_gather": "all-gather of weights",
    "small_messages": "small messages",
}


@dataclass(frozen=True)
class Forecast:
    """An iteration on `gpus` GPUs."""

    policy: str
    optimizer: str
    weak: bool
    network: str
    sync: str
    gpus: int
    samples: int
    prediction: Prediction

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.prediction.seconds

    @property
    def limits(self) -> str:
        return (
            f"{TERMS[self.prediction.limiting]} ({max(self.prediction.terms.values()) / self.prediction.seconds:.0%})"
        )


def work_of(record: WorkRecord, sync: str, group: int) -> Work:
    gradient = 4 * record.parameters
    small = [message.bytes for message in record.messages if message.bytes != gradient]
    sharded = sync == "sharded" and group > 1
    return Work(
        minibatches=record.minibatches,
        parameters=record.parameters,
        unit_numbers=tuple(record.unit_numbers),
        small_messages=tuple(small),
        owners=tuple(record.owners[str(group)]) if sharded else None,
        group=group if sharded else 1,
    )


def forecast(
    record: WorkRecord,
    phases: Phases,
    device: Device,
    horizon: int,
    network: Network,
    *,
    sync: str,
    gpus: int,
    weak: bool,
) -> Forecast:
    samples = SAMPLES * gpus // NODE if weak else SAMPLES
    work = work_of(record, sync, min(NODE, gpus))
    links = gpu_links(network, device, work, gpus)
    rows = samples // horizon // gpus
    prediction = predict(phases, work, links, rows=rows, learners=gpus, spread=device.spread)
    return Forecast(f"LSTM {record.hidden}", record.optimizer, weak, network.name, sync, gpus, samples, prediction)


def forecasts(
    works: Sequence[WorkRecord],
    device: Device,
    environment: Line,
    horizon: int,
    measured: dict[tuple[str, int], Phases],
) -> list[Forecast]:
    """All of them; `measured`: phases of a GPU by optimizer and hidden size, in place of those assumed."""
    found = []
    for work in works:
        phases = measured.get((work.optimizer, work.hidden)) or assumed_phases(device, work, environment, horizon)
        for weak in (False, True):
            for network in NETWORKS:
                for sync in SYNCS:
                    for gpus in GPUS:
                        one = forecast(work, phases, device, horizon, network, sync=sync, gpus=gpus, weak=weak)
                        found.append(one)
    return found


def curve(found: Sequence[Forecast], like: Forecast) -> dict[int, Forecast]:
    """By the number of GPUs: the forecasts that differ from `like` in nothing else."""
    key = (like.policy, like.optimizer, like.weak, like.network, like.sync)
    return {one.gpus: one for one in found if (one.policy, one.optimizer, one.weak, one.network, one.sync) == key}


def compared(found: Sequence[Forecast], one: Forecast, base: int) -> float:
    """Efficiency against `base` GPUs."""
    return efficiency(curve(found, one)[base].prediction, base, one.prediction, one.gpus, weak=one.weak)


def tables(found: Sequence[Forecast]) -> str:
    """One table for each policy, optimizer and kind of scaling."""
    lines = []
    kinds = dict.fromkeys((one.policy, one.optimizer, one.weak) for one in found)
    for policy, optimizer, weak in kinds:
        much = f"{SAMPLES:,} samples per {NODE} GPUs (weak)" if weak else f"{SAMPLES:,} samples in all (strong)"
        lines += [f"\n**{policy}, {optimizer}, {much}**: ms an iteration (efficiency against 8 GPUs)\n"]
        lines += ["| link between nodes | sync | 8 | 16 | 32 | 64 | at 64: samples/s | against 1 GPU | limited by |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        ends = [
            one for one in found if (one.policy, one.optimizer, one.weak, one.gpus) == (policy, optimizer, weak, 64)
        ]
        for end in ends:
            row = curve(found, end)
            cells = [f"{1e3 * row[8].prediction.seconds:.1f}"]
            cells += [f"{1e3 * row[n].prediction.seconds:.1f} ({compared(found, row[n], 8):.0%})" for n in (16, 32, 64)]
            cells += [f"{end.samples_per_second / 1e6:.1f} M", f"{compared(found, end, 1):.0%}", end.limits]
            lines.append(f"| {end.network} | {end.sync} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spent_at_64(found: Sequence[Forecast]) -> str:
    """Where the time goes on 64 GPUs over InfiniBand."""
    ends = [one for one in found if one.gpus == 64 and one.network == INFINIBAND]
    lines = ["| policy, optimizer | scaling | sync | " + " | ".join(TERMS.values()) + " | sum |"]
    lines.append("|---" * (len(TERMS) + 4) + "|")
    for one in ends:
        terms = " | ".join(f"{1e3 * one.prediction.terms[name]:.2f}" for name in TERMS)
        kind = "weak" if one.weak else "strong"
        name = f"{one.policy}, {one.optimizer}"
        lines.append(f"| {name} | {kind} | {one.sync} | {terms} | {1e3 * one.prediction.seconds:.1f} |")
    return "\n".join(lines)


def statement(found: Sequence[Forecast]) -> str:
    """The weak-scaling efficiency on InfiniBand, beside what others report."""
    lines = []
    for one in found:
        if one.gpus == 64 and one.network == INFINIBAND and one.weak:
            name = f"{one.policy}, {one.optimizer}, {one.sync}"
            base = curve(found, one)[NODE].prediction
            eight, alone = compared(found, one, NODE), compared(found, one, 1)
            spread = spread_for(OF_OTHERS, base, NODE, one.prediction, one.gpus)
            lines.append(
                f"- {name}: {eight:.0%} of 8 GPUs' efficiency, {alone:.0%} of one GPU's; limited by {one.limits}. It "
                f"would be {OF_OTHERS:.0%} of 8 GPUs' if a learner's rollouts varied by {spread:.0%} instead."
            )
    lines.append(f"- Others, with slower simulators: DD-PPO {OF_OTHERS:.0%} of one GPU's on 128 (arXiv 1911.00357);")
    lines.append("  Isaac Lab 84% of one L40's on 16 in 4 nodes (Performance Benchmarks, v1.4.1: 260k, 3.5 M steps/s).")
    lines.append("- More than 100 % of one GPU's: one GPU steps all of the optimizer's units, a node divides them.")
    return "\n".join(lines)

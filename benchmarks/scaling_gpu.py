"""What is assumed of GPUs and of the links between them, each number with where it is from. No torch.

Nothing in this file was measured by this project. `scaling --phases FILE` replaces the assumptions about the device by
what scaling_measure has measured on one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.scaling_model import FLOAT_BYTES, Line, Links, Phases, Work, owner_loads
from benchmarks.scaling_records import WorkRecord

NODE = 8  # GPUs of a node

# NCCL's own cost model (NVIDIA/nccl, src/graph/tuning.cc: baseLatencies, hwLatencies), microseconds, by protocol. A
# tree all-reduce costs base + 2 * ((ranks of a node - 1) * inside + log2(nodes) * between), and NCCL takes the protocol
# that is fastest for the size. `share`: of the bandwidth that the protocol can use.


@dataclass(frozen=True)
class Protocol:
    name: str
    share: float
    tree_base: float
    tree_inside: float
    tree_between: float
    ring_base: float
    ring_inside: float


PROTOCOLS = (
    Protocol("LL", 1 / 3.8, 6.8, 0.6, 5.0, 6.6, 0.6),
    Protocol("LL128", 0.92, 14.0, 1.25, 8.5, 14.0, 1.9),
    Protocol("Simple", 1.0, 8.4, 4.0, 14.0, 8.4, 3.4),
)
NVLS_LATENCY = 25.0  # microseconds, any number of GPUs under one NVLink switch (hwLatencies, NVLS)


@dataclass(frozen=True)
class Network:
    """`between`: bytes per second of one GPU to other nodes; None where all GPUs are under one NVLink switch."""

    name: str
    between: float | None
    extra_latency: float  # microseconds a hop, on top of NCCL's
    source: str


NETWORKS = (
    Network("NVLink", None, 0.0, "all GPUs under one switch, as in an NVL72 rack: a bound, no node has 64"),
    Network(
        "400 Gb/s InfiniBand", 47e9, 0.0, "one NIC a GPU; 46-48 GB/s a NIC on NDR (AddyLaddy, NVIDIA/nccl-tests #290)"
    ),
    Network(
        "100 Gb/s Ethernet",
        11.5e9 / NODE,
        20.0,
        "one NIC a node, 92 % of the line, sockets: 20 us more a hop (a guess)",
    ),
)


@dataclass(frozen=True)
class Device:
    """A GPU and its share of a host. Defaults: an H100 SXM in a node of 8 with 2 x 56 cores."""

    tflops: float = 15.0
    operator_us: float = 8.0
    lstm_step_us: float = 8.0
    sync_us: float = 30.0
    copy_gbs: float = 10.0
    env_threads: int = 12
    nvlink_gbs: float = 370.0
    spread: float = 0.02


MEANINGS = {
    "tflops": "effective TFLOP/s of all matrix products in float32 (the data sheet has 67 without tensor cores)",
    "operator_us": "host time to launch one eager torch operator: 5-25 us are reported; device time hides below",
    "lstm_step_us": "device time of one step of the fused LSTM, forwards; backwards takes twice that",
    "sync_us": "a rollout step's waiting for the device and for the environment threads",
    "copy_gbs": "GB/s between host and device, pageable memory",
    "env_threads": "threads that step one GPU's environments (14 cores a GPU), with no loss to sharing them",
    "nvlink_gbs": "GB/s of one GPU inside a node (sjeaugey, NVIDIA/nccl-tests #212: 370 of 450)",
    "spread": "standard deviation of a learner's rollout time, as a fraction; all wait for the slowest",
}


def assumed_phases(device: Device, work: WorkRecord, environment: Line, horizon: int) -> Phases:
    """A GPU's phases, from counted operators and products and the measured `environment` of one core.

    The host's launches and the device's work overlap, so the longer counts. 2 floating-point operations a weight and
    sample forwards, 6 forwards and backwards.
    """
    launch, flops = device.operator_us * 1e-6, device.tflops * 1e12
    copied = (work.observation_bytes + 16) / (device.copy_gbs * 1e9)  # and the noise, the action, the reward, the done
    sync = horizon * device.sync_us * 1e-6
    recurrent = 3 * horizon * work.minibatches * device.lstm_step_us * 1e-6
    return Phases(
        environment=Line(environment.fixed, environment.each / device.env_threads),
        inference=Line(
            sync, horizon * (2 * work.parameters / flops + copied), floor=sync + work.rollout_operators * launch
        ),
        learning=Line(recurrent, horizon * 6 * work.parameters / flops, floor=work.learning_operators * launch),
        units=tuple(
            max(operators * launch, products / flops)
            for operators, products in zip(work.unit_operators, work.unit_flops, strict=True)
        ),
    )


def all_reduce_line(network: Network, device: Device, learners: int, typical_bytes: float) -> Line:
    """Latency and seconds per byte of the protocol that is fastest for `typical_bytes`.

    Hierarchical: reduced over the NVLinks of a node, over the nodes (each GPU its share), and spread in the node again;
    2 (n - 1) / n of the bytes cross each level, as in nccl-tests' bus bandwidth.
    """
    inside, nodes = (learners, 1) if network.between is None else (min(learners, NODE), max(1, learners // NODE))
    candidates = []
    for protocol in PROTOCOLS:
        hops = (inside - 1) * protocol.tree_inside
        hops += math.log2(nodes) * (protocol.tree_between + network.extra_latency)
        latency = protocol.tree_base + 2 * hops
        per_byte = 2 * (inside - 1) / inside / (device.nvlink_gbs * 1e9)
        if network.between is not None and nodes > 1:
            per_byte += 2 * (nodes - 1) / nodes / inside / network.between
        candidates.append(Line(latency * 1e-6, per_byte / protocol.share))
        if nodes == 1 and learners > 2:
            candidates.append(Line(NVLS_LATENCY * 1e-6, per_byte))
    return min(candidates, key=lambda line: line.at(typical_bytes))


def all_gather_line(device: Device, group: int, typical_bytes: float) -> Line:
    """Over NVLink, in a ring, with the fastest protocol; over the bytes of one learner's part."""
    candidates = [
        Line(
            (protocol.ring_base + (group - 1) * protocol.ring_inside) * 1e-6,
            (group - 1) / (device.nvlink_gbs * 1e9) / protocol.share,
        )
        for protocol in PROTOCOLS
    ]
    return min(candidates, key=lambda line: line.at(typical_bytes))


def gpu_links(network: Network, device: Device, work: Work, learners: int) -> Links:
    gradient = FLOAT_BYTES * work.parameters
    part = max(owner_loads(work.unit_numbers, work.owners, work.group)) if work.owners else work.parameters
    return Links(
        all_reduce_line(network, device, learners, gradient),
        all_gather_line(device, work.group, FLOAT_BYTES * part),
    )

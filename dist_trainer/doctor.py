"""The verb `doctor`: what would break or slow down a training here, and what to do about it.

Alone it looks at its machine; under torchrun at every machine, and at what lies between each two learners.
"""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dist_trainer.distributed import World, connect, disconnect
from dist_trainer.machine import OK, SLOW, WRONG, Finding, check_folder, check_machine
from dist_trainer.verb_configs import DoctorConfig

MOST_PAIRS = 2016  # that are all measured, of 64 learners; of more, those whose ranks differ by a power of two
PING_BYTES, LOAD_BYTES = 64, 8 << 20
ROUNDS = 3
SLOW_LINK = {True: 0.3e9, False: 0.1e9}  # bytes/s, between learners of one machine, and of two
ODD = 4.0  # a link so many times slower than links of its kind are
ODD_CORE = 1.5
CLOCKS_APART_S = 2.0
SHARED_WITHIN_S = 10.0  # a file that one machine wrote must be seen by the others


@dataclass(frozen=True)
class Link:
    """Between two learners."""

    ranks: tuple[int, int]
    inside: bool  # one machine
    latency_s: float  # there and back
    bytes_per_s: float  # one way


def run(config: DoctorConfig) -> int:
    """Prints what was found. Exit status 1 if a training would break."""
    world = connect(config.device, config.timeout_s)
    try:
        findings = list(examine(config, world))
    finally:
        disconnect()
    if not world.is_first:
        return 0
    for finding in findings:
        print(finding)
    kinds = [finding.kind for finding in findings]
    print(f"\n{kinds.count(WRONG)} wrong, {kinds.count(SLOW)} slow, {kinds.count(OK)} ok", flush=True)
    return 1 if WRONG in kinds else 0


def examine(config: DoctorConfig, world: World) -> Iterator[Finding]:
    """All learners must call it; the first has all findings."""
    world.broadcast(None)  # so that all look at their clocks in the same moment
    places = world.all_values((socket.gethostname(), time.time()))
    own = list(_on_this_machine(config, world))
    for place, findings in zip(places, world.all_values(own), strict=True):
        for finding in findings:
            yield finding if world.size == world.local_size else replace(finding, what=f"{place[0]}: {finding.what}")
    if world.size == 1:
        return
    yield _clocks([at for _, at in places])
    yield _cores_alike(world.all_values(_core_seconds()), [host for host, _ in places])
    if world.local_size != world.size:
        yield _folder_is_shared(Path(config.run_dir), world)
    links = measure_links(world, [host for host, _ in places])
    yield from judge(links, [f"learner {rank} ({host})" for rank, (host, _) in enumerate(places)])


def _on_this_machine(config: DoctorConfig, world: World) -> Iterator[Finding]:
    """What each machine's first learner says of it, and each learner of its GPU."""
    on_cuda = world.device.type == "cuda"
    if world.local_rank == 0:
        yield from check_machine(world.local_size, on_cuda, world.size != world.local_size)
        yield from check_folder(Path(config.run_dir))
        yield _torch(on_cuda)
    if on_cuda:
        yield _gpu(world)


def _torch(on_cuda: bool) -> Finding:
    fact = f"{torch.__version__}, {'GPUs' if on_cuda else 'no GPU'} used"
    if not on_cuda and Path("/dev/nvidia0").exists() and not torch.cuda.is_available():
        advice = "there is an NVIDIA GPU: reinstall torch with CUDA (DIST_TRAINER_CONSTRAINTS= launch/setup.sh), or "
        return Finding(SLOW, "torch", fact, advice + "look for what is wrong with the driver (nvidia-smi)")
    return Finding(OK, "torch", fact)


def _gpu(world: World) -> Finding:
    name = f"GPU {world.local_rank}"
    try:
        product = torch.ones(256, 256, device=world.device) @ torch.ones(256, 256, device=world.device)
        if product.min().item() != 256:
            return Finding(WRONG, name, "a product of matrices is wrong", "take this GPU out of service")
    except RuntimeError as error:
        return Finding(WRONG, name, " ".join(str(error).split())[:200], "see nvidia-smi, and dmesg for Xid errors")
    free, total = torch.cuda.mem_get_info(world.device)
    fact = f"{torch.cuda.get_device_name(world.device)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    return Finding(OK, name, fact) if free > total / 2 else Finding(SLOW, name, fact, "another process uses it")


def _clocks(times: Sequence[float]) -> Finding:
    """Read one after another, when all had met."""
    apart = max(times) - min(times)
    fact = f"at most {apart:.2f} s apart"
    if apart > CLOCKS_APART_S:
        return Finding(SLOW, "clocks", fact, "logs and curves of several machines will not fit: start NTP")
    return Finding(OK, "clocks", fact)


def _core_seconds() -> float:
    """For a fixed amount of work on one core."""
    a = torch.ones(384, 384)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(4):
            a = (a @ a).clamp(0, 1)
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return min(times)


def _cores_alike(seconds: Sequence[float], hosts: Sequence[str]) -> Finding:
    usual = statistics.median(seconds)
    slow = [f"{rank} ({hosts[rank]})" for rank, each in enumerate(seconds) if each > ODD_CORE * usual]
    fact = f"the same work takes {min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms"
    if slow:
        advice = f"learners {', '.join(slow)} will keep the others waiting: shared or throttled cores?"
        return Finding(SLOW, "learners' cores", fact, advice)
    return Finding(OK, "learners' cores", fact)


def _folder_is_shared(folder: Path, world: World) -> Finding:
    """Whether a file that the first learner writes is there for all."""
    name = world.broadcast(f".dist_trainer-doctor-{os.getpid()}-{time.time_ns()}")
    if world.is_first:
        (folder / name).touch()
    world.broadcast(None)
    until = time.monotonic() + SHARED_WITHIN_S
    while not (sees := (folder / name).exists()) and time.monotonic() < until:
        time.sleep(0.1)
    everyone = world.all_values((sees, socket.gethostname()))
    if world.is_first:
        (folder / name).unlink()
    blind = sorted({host for good, host in everyone if not good})
    if blind:
        advice = "all machines must see the run folder, to resume: name a run_dir on a shared file system"
        return Finding(WRONG, "run folder", f"{folder} is not the same on {', '.join(blind)}", advice)
    return Finding(OK, "run folder", "the same on all machines")


def measure_links(world: World, hosts: Sequence[str]) -> list[Link]:
    """One after another, so that they do not share the network. All learners must call it."""
    pairs = list(itertools.combinations(range(world.size), 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [(a, b) for a, b in pairs if (b - a).bit_count() == 1]
    own = {}
    for pair in pairs:
        if world.rank in pair:
            other = pair[1] if world.rank == pair[0] else pair[0]
            own[pair] = _measure(world, other)
        world.broadcast(None)  # the next pair begins when this one is through
    links = []
    for pair, measured in sorted({k: v for part in world.all_values(own) for k, v in part.items()}.items()):
        links.append(Link(pair, hosts[pair[0]] == hosts[pair[1]], *measured))
    return links


def _measure(world: World, other: int) -> tuple[float, float]:
    """(seconds there and back, bytes/s one way), the best of a few."""
    ping = torch.zeros(PING_BYTES, dtype=torch.uint8, device=world.device)
    load = torch.zeros(LOAD_BYTES, dtype=torch.uint8, device=world.device)
    best = []
    for tensor in (ping, load):
        world.bounce_(tensor, other)  # connects, and is not timed
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            world.bounce_(tensor, other)
            tensor[:1].cpu()  # on a GPU it is done only now
            times.append(time.perf_counter() - began)
        best.append(min(times))
    return best[0], 2 * LOAD_BYTES / best[1]


def judge(links: Sequence[Link], names: Sequence[str]) -> Iterator[Finding]:
    """A line for each kind of link, and one for each that is odd."""
    for inside in (True, False):
        kind = [link for link in links if link.inside == inside]
        if not kind:
            continue
        what = "links in a machine" if inside else "links between machines"
        speeds = [link.bytes_per_s for link in kind]
        usual = statistics.median(speeds)
        fact = f"{len(kind)} pairs: {min(speeds) / 1e9:.2f} to {max(speeds) / 1e9:.2f} GB/s, "
        fact += f"{1e6 * min(link.latency_s for link in kind):.0f} us there and back at best"
        if usual < SLOW_LINK[inside]:
            advice = (
                "is it the wrong network? see the interfaces (ip addr) and set NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME"
            )
            yield Finding(SLOW, what, fact, "busy cores?" if inside else advice)
        else:
            yield Finding(OK, what, fact)
        for link in kind:
            if link.bytes_per_s * ODD < usual:
                who = " and ".join(names[rank] for rank in link.ranks)
                fact = f"{who}: {link.bytes_per_s / 1e9:.3f} GB/s where {usual / 1e9:.2f} are usual"
                yield Finding(
                    SLOW, what, fact, "everyone waits for the slowest link: look at its cable, card and switch"
                )

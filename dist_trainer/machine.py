"""What there is to say against one machine, from what the system tells: no torch, and nothing that takes long."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
SHM_BYTES = GIB  # that NCCL may want of /dev/shm
OPEN_FILES = 4096
PROBE_BYTES = 32 << 20
SLOW_DISK = 20e6  # bytes/s
FREE_DISK = GIB
INFINIBAND = Path("/sys/class/infiniband")

OK, SLOW, WRONG = "ok", "slow", "WRONG"


@dataclass(frozen=True)
class Finding:
    """`kind`: OK, SLOW (a run works, but is or may become slow) or WRONG (it would break)."""

    kind: str
    what: str
    fact: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.kind:<6}{self.what:<22}{self.fact}" + (f"\n{'':28}-> {self.advice}" if self.advice else "")


def check_machine(learners: int, on_cuda: bool, several_machines: bool) -> Iterator[Finding]:
    """Of a machine with so many learners."""
    yield cores(len(os.sched_getaffinity(0)), cpu_quota(), learners)
    yield from clock()
    yield memory()
    yield shared_memory(shutil.disk_usage("/dev/shm").free, on_cuda)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if on_cuda and several_machines and INFINIBAND.is_dir() and any(INFINIBAND.iterdir()):
        yield locked_memory(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])


def cores(allowed: int, quota: float | None, learners: int) -> Finding:
    """`allowed`: by the CPU affinity; `quota`: by the cgroup, in cores; None: no limit."""
    fact = f"{allowed} for {learners} learner(s)" + ("" if quota is None else f"; the cgroup's limit is {quota:.3g}")
    if quota is not None and quota < allowed:
        advice = (
            "threads of more cores than the limit are stopped in turns: raise it, or set torch_threads, env_threads"
        )
        return Finding(SLOW, "cores", fact, advice)
    if allowed < learners:
        return Finding(SLOW, "cores", fact, "fewer learners, or more cores (Slurm: --cpus-per-task)")
    return Finding(OK, "cores", fact)


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that the cgroup of this process may use, of version 2 or 1; None: no limit."""
    found = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        place = root / (path.lstrip("/") if not controllers else f"{controllers}{path}")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(root):
                break
            quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
            quota = quota or _read(folder / "cpu.cfs_quota_us")
            period = period or _read(folder / "cpu.cfs_period_us")
            if quota.strip().isdigit() and period.strip().isdigit():
                found.append(int(quota) / int(period))
    return min(found, default=None)


def clock() -> Iterator[Finding]:
    """Of the cores; nothing where the system does not tell, as in many virtual machines."""
    governor = _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")).strip()
    now = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*: ([\d.]+)", _read(Path("/proc/cpuinfo")), re.MULTILINE)]
    most = _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")).strip()
    fact = f"{max(now):.0f} MHz" if now else "unknown"
    fact += f" of {int(most) / 1000:.0f}" if most.isdigit() else ""
    fact += f", governor {governor}" if governor else ""
    if governor == "powersave" and not Path("/sys/devices/system/cpu/intel_pstate").exists():
        yield Finding(SLOW, "clock of the cores", fact, "cpupower frequency-set -g performance")
    elif now:
        yield Finding(OK, "clock of the cores", fact)


def memory() -> Finding:
    available = int(re.findall(r"^MemAvailable: +(\d+)", _read(Path("/proc/meminfo")), re.MULTILINE)[0]) * 1024
    fact = f"{available / GIB:.1f} GiB available"
    return Finding(OK, "memory", fact) if available > GIB else Finding(SLOW, "memory", fact, "end other processes")


def shared_memory(free: int, on_cuda: bool) -> Finding:
    fact = f"{free / GIB:.2f} GiB free"
    if free >= SHM_BYTES:
        return Finding(OK, "/dev/shm", fact)
    advice = "NCCL needs up to 1 GiB: docker run --ipc=host or --shm-size=8g; mount -o remount,size=8g /dev/shm"
    return Finding(WRONG if on_cuda else SLOW, "/dev/shm", fact, advice)


def open_files(limit: int) -> Finding:
    fact = "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
    if limit == resource.RLIM_INFINITY or limit >= OPEN_FILES:
        return Finding(OK, "open files (ulimit)", fact)
    return Finding(WRONG if limit < 256 else SLOW, "open files (ulimit)", fact, "ulimit -n 65536 (in the job script)")


def locked_memory(limit: int) -> Finding:
    if limit == resource.RLIM_INFINITY:
        return Finding(OK, "locked memory (ulimit)", "unlimited")
    advice = "InfiniBand needs ulimit -l unlimited (Slurm: PropagateResourceLimitsExcept=MEMLOCK)"
    return Finding(WRONG, "locked memory (ulimit)", f"{limit} bytes", advice)


def check_folder(folder: Path, now: Callable[[], float] = time.perf_counter) -> Iterator[Finding]:
    """Whether checkpoints can be written there, and how fast. Leaves nothing behind but the folder."""
    probe = folder / f".dist_trainer-doctor-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        began = now()
        with probe.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(os.urandom(1 << 20) * (PROBE_BYTES >> 20))
            file.flush()
            os.fsync(file.fileno())
        speed = PROBE_BYTES / max(1e-9, now() - began)
    except OSError as error:
        advice = "name another run_dir, on a file system with space, locks and the right to write"
        yield Finding(WRONG, "run folder", f"{folder}: {error.strerror}", advice)
        return
    finally:
        probe.unlink(missing_ok=True)
    fact = f"{free / GIB:.1f} GiB free, {speed / 1e6:,.0f} MB/s written and synced in {folder}"
    if free < FREE_DISK:
        yield Finding(WRONG, "run folder", fact, "free some space: checkpoints would not fit")
    elif speed < SLOW_DISK:
        yield Finding(SLOW, "run folder", fact, "checkpoints take long: another file system, or checkpoint_minutes")
    else:
        yield Finding(OK, "run folder", fact)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""How the first learner's machine is: memory, load, its GPU."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

MIB = 2**20


def system_facts(device: torch.device) -> dict[str, float]:
    """By TensorBoard's tags. What cannot be known is absent: a GPU's use needs the package nvidia-ml-py."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    facts = {
        "system/memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / MIB,
        "system/load_per_core": os.getloadavg()[0] / (os.cpu_count() or 1),
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts["system/gpu_memory_mib"] = (total - free) / MIB  # of all its processes
        facts["system/gpu_peak_mib"] = torch.cuda.max_memory_reserved(device) / MIB  # of this one
        with suppress(ModuleNotFoundError, RuntimeError):
            facts["system/gpu_use"] = torch.cuda.utilization(device) / 100
    return facts

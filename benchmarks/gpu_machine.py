"""What a benchmark ran on: device and versions, as a Markdown table.

python -m benchmarks.gpu_machine [--device auto] [--name]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("triton", "heavyball", "numpy")


def said(*command: str) -> str:
    """The first line that a command prints; "unknown" if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else "unknown"


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def gpu_facts() -> dict[str, str]:
    gpu = torch.cuda.get_device_properties(0)
    cudnn = torch.backends.cudnn.version()
    return {
        "device": f"{torch.cuda.device_count()} x {gpu.name}",
        "of each": f"{gpu.total_memory / 2**30:.1f} GiB, {gpu.multi_processor_count} multiprocessors, "
        f"compute capability {gpu.major}.{gpu.minor}, largest clock "
        + said("nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader"),
        "driver": said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "CUDA, cuDNN": f"{torch.version.cuda}, {cudnn}",
    }


def facts(on_cuda: bool) -> dict[str, str]:
    first = gpu_facts() if on_cuda else {"device": f"cpu: {processor()}"}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return first | {
        "host": f"{len(os.sched_getaffinity(0))} cores, {processor()}, {memory:.0f} GiB",
        "torch": torch.__version__,
        "others": ", ".join(f"{package} {version_of(package)}" for package in PACKAGES),
        "Python": f"{platform.python_version()}, {platform.system()} {platform.release()}",
        "commit": said("git", "describe", "--always", "--dirty"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--name", action="store_true", help="print a short name of the device alone, for a file")
    options = parser.parse_args()
    on_cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    if options.name:
        name = torch.cuda.get_device_name() if on_cuda else "cpu"
        print(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
        return
    print("| what | value |\n|---|---|")
    for what, value in facts(on_cuda).items():
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()

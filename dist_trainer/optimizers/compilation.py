"""torch.compile for heavyball's update rules: on or off, never in a mode that may differ between learners.

heavyball's own default mode, max-autotune, picks kernels by timing them, on every learner for itself: two learners may
then round differently. The mode used here does not time anything. What is compiled is kept on disk (torch's
TORCHINDUCTOR_CACHE_DIR) under file locks: of the learners that share the folder one compiles a kernel, the others
wait for it. Over several nodes that takes a folder that all of them see.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from heavyball import utils


def set_compilation(on: bool) -> None:
    """For every heavyball optimizer of this process, from its next step on."""
    utils.compile_mode = "default" if on else None


def missing_for_compilation(device: torch.device) -> str | None:
    """What torch.compile lacks on this machine, in words; None if nothing."""
    compiler = os.environ.get("CXX", "g++")  # torch looks for no other
    if not shutil.which(compiler):
        return f"there is no C++ compiler {compiler} ($CXX, or g++ where that is not set)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"Python's header {header} is missing"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is missing"
    return None

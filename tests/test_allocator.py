"""Large blocks stay with the process once the trainer has asked for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MAPPED_BLOCKS = """
import ctypes, sys
import torch
from dist_trainer.allocator import keep_freed_memory

class Info(ctypes.Structure):  # glibc's struct mallinfo2
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
before = libc.mallinfo2().hblks
blocks = [torch.zeros(16 * 2**20) for _ in range(3)]  # 64 MiB each
mapped = libc.mallinfo2().hblks - before
del blocks
print(mapped, libc.mallinfo2().fordblks >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own switches")
@pytest.mark.parametrize(("how", "mapped", "kept_mib"), [("keep", 0, range(192, 10_000)), ("leave", 3, range(192))])
def test_large_blocks_are_kept(how: str, mapped: int, kept_mib: range) -> None:
    """They are no mappings of their own, and are free for the next one when they are freed."""
    done = subprocess.run([sys.executable, "-c", MAPPED_BLOCKS, how], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, kept = map(int, done.stdout.split())
    assert found == mapped
    assert kept in kept_mib

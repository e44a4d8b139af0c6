"""glibc's allocator, told to keep the large blocks that every minibatch asks for again.

By default large blocks come fresh from the kernel, page by page, and go back when they are freed. Here they stay with
the process. Another C library, or an allocator that was preloaded, is left as it is.
"""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """True if glibc took it. For the whole process, from now on."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # One arena: the backward pass frees in another thread, and arenas of threads end at 64 MiB.
    return all(mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_ARENA_MAX, 1)))

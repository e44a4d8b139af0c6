"""What environments outside of this repository are compiled against: the C++ headers, and how.

python -m dist_trainer includes | xargs g++ -include mygame.h -o mygame.so
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path


def include_dir() -> Path:
    """The headers: `cpp_envs/` beside the package in a checkout, `include/` inside it where it was installed."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "cpp_envs"
    return checkout if (checkout / "library.h").exists() else package / "include"


def headers_digest() -> str:
    """Of the headers' text, as cpp_envs/CMakeLists.txt takes it."""
    headers = sorted(include_dir().glob("*.h"))
    lines = [f"{header.name} {hashlib.sha256(header.read_bytes()).hexdigest()}\n" for header in headers]
    return "h" + hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def compile_flags() -> list[str]:
    """That turn headers of environments into a shared library. Results must not depend on the machine: no fused
    multiply-add, no -march=native."""
    return [
        *("-std=c++20", "-O3", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-Wall", "-Wextra"),
        *("-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
        *("-I", str(include_dir()), "-include", "library.h", f"-DDIST_TRAINER_HEADERS={headers_digest()}"),
        *("-x", "c++", "/dev/null"),  # what is compiled comes by -include, or before these flags
    ]


def flags_text() -> str:
    """In one line, quoted for a shell and for xargs."""
    return shlex.join(compile_flags())

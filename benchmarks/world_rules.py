"""Writes the tables of rules into cpp_envs/MOBA.md and its like, from the numbers that the C++ plays by.

    python -m benchmarks.world_rules [--check] [WORLD ...]

benchmarks/WORLD_rules.cpp prints them; it is compiled here ($CXX, else g++). They go between the page's two marks.
`--check` writes nothing and fails if a page says something else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- written by benchmarks/world_rules.py -->\n", "<!-- to here -->\n"


def tables(world: str) -> str:
    """What benchmarks/WORLD_rules.cpp prints. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "rules"
        source = ROOT / "benchmarks" / f"{world}_rules.cpp"
        options = ["-std=c++20", "-I", str(ROOT / "cpp_envs"), "-o", str(program)]
        subprocess.run([os.environ.get("CXX", "g++"), *options, str(source)], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def page_of(world: str) -> Path:
    return ROOT / "cpp_envs" / f"{world.upper()}.md"


def rewritten(world: str) -> str:
    """The page as it should be. Raises ValueError if a mark is missing."""
    text = page_of(world).read_text()
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{page_of(world)}: {START.strip()} or {END.strip()} is missing")
    return before + start + tables(world) + end + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", nargs="*", metavar="WORLD")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found = sorted(file.name.removesuffix("_rules.cpp") for file in (ROOT / "benchmarks").glob("*_rules.cpp"))
    wrong = []
    for world in options.worlds or found:
        page = rewritten(world)
        if options.check and page != page_of(world).read_text():
            wrong.append(world)
        elif not options.check:
            page_of(world).write_text(page)
    if wrong:
        print(f"python -m benchmarks.world_rules would change the pages of {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

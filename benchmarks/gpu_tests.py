"""Runs tests and prints how many of each file passed, as a Markdown table; then what failed, and why some were skipped.

    python -m benchmarks.gpu_tests PATH ...

Exits with pytest's status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree


def outcome(case: ElementTree.Element) -> tuple[str, str]:
    """passed | failed | skipped, and why."""
    for child in case:
        if child.tag in ("failure", "error"):
            return "failed", child.get("message", "")
        if child.tag == "skipped":
            return "skipped", child.get("message", "")
    return "passed", ""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "--tb=short", f"--junitxml={path}", *sys.argv[1:]]
        status = subprocess.run(command, stdout=sys.stderr, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
        cases = list(ElementTree.parse(path).iter("testcase")) if path.exists() else []
    counts: dict[str, Counter[str]] = {}
    seconds: dict[str, float] = defaultdict(float)
    notes: Counter[str] = Counter()
    for case in cases:
        file = case.get("classname", "?")
        what, why = outcome(case)
        counts.setdefault(file, Counter())[what] += 1
        seconds[file] += float(case.get("time", "0"))
        if what != "passed":
            name = f"{file}::{case.get('name')}" if what == "failed" else file
            notes[f"{what}: {name}: {' '.join(why.split())[:300]}"] += 1
    print("| file | passed | failed | skipped | seconds |\n|---|---|---|---|---|")
    for file, count in sorted(counts.items()):
        print(f"| {file} | {count['passed']} | {count['failed']} | {count['skipped']} | {seconds[file]:.1f} |")
    for note, times in sorted(notes.items()):
        print(f"\n- {note}" + (f" ({times} tests)" if times > 1 else ""))
    sys.exit(status)


if __name__ == "__main__":
    main()

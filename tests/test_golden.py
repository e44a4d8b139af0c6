"""What every environment does, to the bit, is what golden.json says: however many threads, and across a snapshot.

Who changes an environment on purpose, or adds one, writes its entry anew: python -m tests.test_golden NAME ...
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dist_trainer import _cpp_envs
from tests.pools import ALL, Buffers, contents, make_pool, step

FILE = Path(__file__).with_name("golden.json")
STEPS, INTERRUPTED = 300, 137  # the latter in the middle of episodes


def play(name: str, pool: _cpp_envs.Pool, steps: int) -> Iterable[Buffers]:
    """What is shown after each of so many steps of random legal actions, which the pool's own noise chooses."""
    return (contents(step(name, pool)) for _ in range(steps))


def digest(shown: Iterable[Buffers]) -> str:
    """Of observations, rewards, ends, final observations, legal and resting: not of what is handed in."""
    together = hashlib.sha256()
    for buffers in shown:
        for key in sorted(buffers.keys() - {"noise", "silent", "statistics"}):
            together.update(buffers[key].tobytes())
    return together.hexdigest()[:16]


def golden() -> dict[str, str]:
    entries: dict[str, str] = json.loads(FILE.read_text())
    return entries


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("name", ALL)
def test_trajectories_are_those_on_file(name: str, threads: int) -> None:
    found = digest(play(name, make_pool(name, threads=threads), STEPS))
    assert found == golden().get(name), f"if that is meant: python -m tests.test_golden {name}"


@pytest.mark.parametrize("name", ALL)
def test_a_snapshot_in_the_middle_of_episodes_goes_on_as_if_nothing_had_been(name: str) -> None:
    before, after = make_pool(name), make_pool(name, threads=3)

    def shown() -> Iterator[Buffers]:
        yield from play(name, before, INTERRUPTED)
        assert sum(1 for _ in play(name, after, 50)) == 50  # where it was before does not matter
        after.restore(before.snapshot())
        yield from play(name, after, STEPS - INTERRUPTED)

    assert digest(shown()) == golden().get(name)


def main() -> None:
    names = sys.argv[1:] or ALL
    entries = golden() if FILE.exists() else {}
    entries |= {name: digest(play(name, make_pool(name), STEPS)) for name in names}
    FILE.write_text(json.dumps({name: entries[name] for name in sorted(entries)}, indent=2) + "\n")


if __name__ == "__main__":
    main()

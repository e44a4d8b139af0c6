"""SIGKILL at random moments, to any learner or to torchrun itself; the run ends as if nothing had happened.

    python -m tests.faults.kills [--kills 50] [--learners 2] [--nodes 1] [--seed S] [--folder DIR] [SETTING=VALUE...]

One run is trained undisturbed, and once more under kills: while processes start, connect, collect, learn and write
checkpoints (one is written in every iteration). torchrun brings the learners back from the last checkpoint by itself;
where it was torchrun that was killed, the same command with resume=auto is given again. At the end weights, optimizer,
environments, counters and curves are the same bit for bit, nothing is left in /dev/shm, no process is left behind, and
no half-written file. Exit status 1 if something is not so. About 10 s a kill on two busy cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from tests.faults.launched import Launched, wait_for
from tests.test_resume import OF_CLOCKS, assert_same_bits, curves, newest, state, written_points

ENVS, HORIZON = 64, 16
ITERATIONS_A_KILL = 12  # of the run; so many iterations at most are waited for before a kill
SHARE_OF_TORCHRUN = 0.15  # of the kills; the others are of learners
SHARE_BY_CLOCK = 0.3  # of the kills that come some time after the last one, whatever the run does then
STEP_DEADLINE_S = 180.0  # for a few iterations, a start included
SHARED_MEMORY = Path("/dev/shm")


def settings(kills: int, more: Sequence[str]) -> list[str]:
    iterations = ITERATIONS_A_KILL * (kills + 1)
    return [
        *("env=cartpole", "env.params.max_steps=20", "device=cpu", "torch_threads=1", "env_threads=1"),
        *(f"total_envs={ENVS}", f"horizon={HORIZON}", "ppo.minibatches=4", "policy.hidden_size=32"),
        *(f"total_env_steps={iterations * ENVS * HORIZON}", "checkpoint_every=1", "collective_timeout_s=60"),
        *more,
    ]


def train(folder: Path, learners: int, kills: int, more: Sequence[str]) -> Path:
    """The undisturbed run's folder."""
    run_dir = folder / "whole"
    with Launched(folder / "whole.log", learners, [*settings(kills, more), f"run_dir={run_dir}"]) as launched:
        launched.wait(60 + 3 * kills * ITERATIONS_A_KILL)
    return run_dir


def train_under_kills(
    folder: Path, learners: int, victims: Sequence[int | None], rng: random.Random, nodes: int, more: Sequence[str]
) -> Path:
    """The disturbed run's folder. `victims`: ranks of learners, one after another; None is torchrun."""
    run_dir, log, kills = folder / "killed", folder / "killed.log", len(victims)
    command, left = [*settings(kills, more), f"run_dir={run_dir}"], list(victims)
    while not finished(run_dir, kills):
        with Launched(log, learners, command, nodes) as launched:
            while left:
                wait_for_a_moment(launched, run_dir, kills, len(left), rng)
                if (rank := left[0]) is None:
                    break
                if kill(launched.learner(rank)):
                    left.pop(0)
            if left:
                left.pop(0)
                launched.kill_torchrun()
                launched.wait_until_gone()  # by themselves: nothing else ends them
            else:
                launched.wait(STEP_DEADLINE_S + kills)
        command = [*settings(kills, more), f"run_dir={run_dir}", "resume=auto"]
    return run_dir


def kill(pid: int | None) -> bool:
    """Whether there was such a process."""
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_for_a_moment(launched: Launched, run_dir: Path, kills: int, left: int, rng: random.Random) -> None:
    """Some iterations, so that the run gets on, but not so many that it could end before the last kill; or a while,
    whatever the run does then."""
    at = iteration(run_dir)
    most = max(1, min(ITERATIONS_A_KILL, ITERATIONS_A_KILL * (kills + 1) - at - 2 * left))
    by_clock = rng.random() < SHARE_BY_CLOCK
    target, until = at + (most if by_clock else rng.randint(1, most)), time.monotonic() + rng.uniform(0, 5)

    def there() -> bool:
        assert not launched.has_ended, f"ended too early:\n{launched.log.read_text()[-5000:]}"
        return iteration(run_dir) >= target or (by_clock and time.monotonic() > until)

    wait_for(there, STEP_DEADLINE_S, f"iteration {target}\n{launched.log.read_text()[-5000:]}")
    time.sleep(0 if by_clock else rng.uniform(0, 0.05))


def iteration(run_dir: Path) -> int:
    """Of the newest checkpoint; -1: there is none."""
    return newest(run_dir) if list_checkpoints(run_dir) else -1


def finished(run_dir: Path, kills: int) -> bool:
    return iteration(run_dir) == ITERATIONS_A_KILL * (kills + 1)


def check(killed: Path, whole: Path) -> None:
    """Raises AssertionError where the killed run differs from the whole one."""
    ours, theirs = list_checkpoints(killed)[-1], list_checkpoints(whole)[-1]
    assert ours.name == theirs.name, f"{ours} and {theirs}"
    assert_same_bits(state(load_file(ours)), state(load_file(theirs)))
    for tag, points in curves(whole).items():
        if not tag.startswith(OF_CLOCKS):
            assert curves(killed)[tag] == points, tag
    assert set(written_points(killed).values()) == {1}, "a point of TensorBoard's is there twice"
    half = [path for path in killed.rglob("*") if path.suffix in (".partial", ".tmp")]
    assert not half, f"half-written files: {half}"


def trial(
    folder: Path,
    learners: int,
    victims: Sequence[int | None],
    rng: random.Random,
    nodes: int = 1,
    more: Sequence[str] = (),
) -> None:
    """Raises AssertionError if the run was changed by the kills, or something is left behind."""
    before = set(SHARED_MEMORY.iterdir())
    whole = train(folder, learners, len(victims), more)
    killed = train_under_kills(folder, learners, victims, rng, nodes, more)
    check(killed, whole)
    left = set(SHARED_MEMORY.iterdir()) - before
    assert not left, f"left in {SHARED_MEMORY}: {left}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1, help="torchruns, as of several machines; killed together")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--folder", type=Path, help="to keep the runs; default: a temporary one")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="more of the training's")
    options = parser.parse_args()
    print(
        f"{options.kills} kills, {options.learners} learners, {options.nodes} node(s), seed {options.seed}", flush=True
    )
    rng = random.Random(options.seed)
    everyone = [*range(options.learners)]
    victims = [None if rng.random() < SHARE_OF_TORCHRUN else rng.choice(everyone) for _ in range(options.kills)]
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial(folder, options.learners, victims, rng, options.nodes, options.settings)
        except AssertionError as error:
            print(f"FAILED after {time.monotonic() - began:.0f} s: {error}", file=sys.stderr)
            return 1
    torchruns = victims.count(None)
    whom = f"a learner {len(victims) - torchruns} times, torchrun {torchruns} times"
    print(f"the same bits, and nothing left behind, after {time.monotonic() - began:.0f} s; killed: {whom}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the terminal shows: where the time goes, in every width, and plain lines where there is no terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from dist_trainer import stopwatch
from dist_trainer.console import Progress
from dist_trainer.dashboard import SPARKS, Dashboard, sparkline
from dist_trainer.phase_times import PHASES, PhaseTimes, own_rows
from dist_trainer.stopwatch import Phase

ROOT = Path(__file__).parents[1]


def values_of(times: PhaseTimes) -> dict[str, float]:
    losses = dict.fromkeys(("policy", "value", "entropy", "approx_kl", "clip_fraction"), 0.125)
    return {
        "env/episode_return": 123.4,
        "env/a_metric_with_a_long_name": 0.5,
        "env/episodes": 3.0,
        "optimizer/learning_rate": 0.02,
        "optimizer/undone_updates": 0.0,
        "perf/env_steps_per_second": 54_321.0,
        **{f"losses/{name}": value for name, value in losses.items()},
        **times.facts(),
    }


def times_of(*learners: dict[str, float]) -> PhaseTimes:
    rows = [own_rows(seconds, 1.0, rank, len(learners)) for rank, seconds in enumerate(learners)]
    return PhaseTimes.of([sum(column) for column in zip(*rows, strict=True)])


def test_phases_count_for_themselves() -> None:
    """Slept in: 20 ms in the outer phase itself, 60 ms in the inner one, in two parts."""
    stopwatch.time_device(torch.device("cpu"))
    began = time.perf_counter()
    with Phase("outer"):
        time.sleep(0.02)
        for _ in range(2):
            with Phase("inner"):
                time.sleep(0.03)
    passed = time.perf_counter() - began
    seconds = stopwatch.take()
    assert seconds["inner"] >= 0.06
    assert seconds["outer"] >= 0.02
    assert seconds["outer"] + seconds["inner"] == pytest.approx(passed, abs=5e-3)
    assert stopwatch.take() == {}


def test_phases_of_threads_do_not_mix() -> None:
    stopwatch.time_device(torch.device("cpu"))

    def other() -> None:
        with Phase("beside"):
            time.sleep(0.05)

    thread = threading.Thread(target=other)
    with Phase("main"):
        thread.start()
        time.sleep(0.05)
    thread.join()
    seconds = stopwatch.take()
    assert seconds["beside"] >= 0.05
    assert seconds["main"] >= 0.05  # nothing was taken off for the other thread's


def test_every_learner_finds_its_row() -> None:
    own = [{name: rank + index / 100 for index, name in enumerate(PHASES)} for rank in range(3)]
    times = times_of(*own)
    assert times.learners == own
    facts = times.facts()
    for index, name in enumerate(PHASES):
        assert facts[f"perf/{name}_seconds"] == pytest.approx(1 + index / 100)
        assert facts[f"learners/{name}_min"] == index / 100
        assert facts[f"learners/{name}_max"] == 2 + index / 100


def test_the_slowest_is_who_works_longest_not_who_waits() -> None:
    times = times_of(
        {"gradient": 0.3, "communication": 0.3}, {"gradient": 0.5}, {"gradient": 0.4, "communication": 0.2}
    )
    rank, excess = times.slowest()
    assert rank == 1
    assert excess == pytest.approx(0.25)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_dashboard_fits(width: int) -> None:
    dashboard = Dashboard("breakout  " * 12, 1e6)
    console = Console(width=width, height=40, force_terminal=True, record=True)
    console.print(dashboard)
    times = times_of({"gradient": 0.3, "inference": 0.25}, {"gradient": 0.5, "inference": 0.25})
    for _ in range(200):
        dashboard.show(500_000, 61.0, values_of(times), times)
    console.print(dashboard)
    text = console.export_text()
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "the first iteration is under way" in text
    for words in ("50 %", "54.3k/s", "123.4", "gradient", "inference", "learner 1 takes 15 % longer", "policy loss"):
        assert words in text, words
    assert "curvature" not in text  # it took no time


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([], 5) == ""
    assert sparkline([3.0, 3.0], 5) == SPARKS[0] * 2
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == SPARKS
    assert sparkline(list(range(800)), 8) == SPARKS  # the last of each hundred


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    times = times_of({"gradient": 0.5})
    with Progress(True, "title", 1e6) as progress:
        for second in range(12):
            progress.update(second * 1000, float(second), values_of(times), times, last=second == 11)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # at 0, 5 and 10 s, and the last
    assert all(line.isprintable() for line in lines)
    assert "54.3k/s" in lines[0]


def test_on_a_terminal_the_screen_is_drawn_in_place(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    settings = ["env=cartpole", "device=cpu", "total_envs=16", "horizon=8", "ppo.minibatches=4", "total_env_steps=2048"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "dist_trainer",
            "train",
            *settings,
            "policy.hidden_size=8",
            f"run_dir={tmp_path / 'run'}",
        ],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
        stdout=child,
        stderr=child,
    )
    os.close(child)
    shown = b""
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:  # how a terminal tells its end
            break
        if not block:
            break
        shown += block
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text  # the cursor is moved
    assert "100 %" in text
    assert "gradient" in text
    assert "done: 2,048 steps" in text.rstrip().splitlines()[-1]


def test_a_terminal_that_is_closed_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    """As when a connection is lost: SIGHUP, and nothing can be written any more."""
    settings = ["total_envs=16", "horizon=16", "ppo.minibatches=2", "device=cpu", "torch_threads=1"]
    command = [
        sys.executable,
        "-m",
        "dist_trainer",
        "train",
        *settings,
        "total_env_steps=1e9",
        f"run_dir={tmp_path}/run",
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, command)
    seen = b""
    while b"passed" not in seen:  # of the dashboard
        seen += os.read(terminal, 4096)
    os.close(terminal)
    deadline = time.monotonic() + 60
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended and os.waitstatus_to_exitcode(status) == 0
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("iteration_*.ckpt"))
    assert len(checkpoints) > 1 and "00000000" not in checkpoints[-1].name

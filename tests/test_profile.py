"""profile=true: the trace has the phases and the pool's threads where they were, and no run depends on it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dist_trainer import trainer
from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.cli import compose_train
from dist_trainer.config import EnvConfig
from dist_trainer.distributed import connect
from dist_trainer.envs import EnvPool
from dist_trainer.errors import ConfigError
from dist_trainer.trace_file import Cost, costs_of
from dist_trainer.validation import check_settings
from tests.test_update import differences

ROOT = Path(__file__).parents[1]
HORIZON, MINIBATCHES, ITERATIONS = 8, 2, 5
SETTINGS = [
    *("env=cartpole", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16", f"horizon={HORIZON}"),
    *(f"ppo.minibatches={MINIBATCHES}", "policy.hidden_size=8", f"total_env_steps={ITERATIONS * 16 * HORIZON}"),
    *("replay_minutes=0", "diagnostics_every=0", "histograms_every=0"),
]
PROFILED = ["profile=true", "profile_iterations=2", "profile_after=1"]
ACTING = {"environments", "inference", "copies"}
Event = dict[str, Any]


def train(run_dir: Path, *own: str) -> Path:
    config = compose_train([*SETTINGS, *own, f"run_dir={run_dir}"])[0]
    check_settings(config)
    trainer.train(config, connect("cpu", 60), run_dir, None)
    return run_dir


def final_state(run_dir: Path) -> dict[str, Any]:
    """All that the last checkpoint holds and that is no time."""
    state: dict[str, Any] = load_file(list_checkpoints(run_dir)[-1])
    del state["extra"]
    return state


def trace_of(run_dir: Path, rank: int = 0, first: int = 1) -> list[Event]:
    with gzip.open(run_dir / "profile" / f"iteration_{first}_rank_{rank}.json.gz", "rt") as file:
        events: list[Event] = json.load(file)["traceEvents"]
    return events


def marked(events: list[Event], name: str) -> list[Event]:
    """In the order in which they began."""
    found = [event for event in events if event["name"] == name and event.get("cat") == "user_annotation"]
    return sorted(found, key=lambda event: event["ts"])


def is_within(inner: Event, outer: Event, slack_us: float = 0.0) -> bool:
    begins = inner["ts"] >= outer["ts"] - slack_us
    return begins and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + slack_us


def worked(events: list[Event]) -> dict[str, list[Event]]:
    """What the pools' threads did, by the names of their tracks."""
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans: dict[str, list[Event]] = {}
    for event in events:
        if event.get("cat") == "pool":
            spans.setdefault(names[event["tid"]], []).append(event)
    return spans


def test_phases_and_threads_are_where_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one thread the caller steps the environments, inside its own phase: by another clock, so that both agree."""
    events = trace_of(train(tmp_path / "run", *PROFILED))
    iterations = marked(events, "iteration")
    assert len(iterations) == 2
    expected = {"environments": 2 * HORIZON, "inference": HORIZON, "gradient": MINIBATCHES, "optimizer": MINIBATCHES}
    for iteration in iterations:
        for name, least in expected.items():
            assert sum(is_within(event, iteration) for event in marked(events, name)) >= least, name
    [(name, spans)] = worked(events).items()
    assert name == "pool 0 worker 0"
    assert len(spans) == 2 * HORIZON
    assert all(any(is_within(span, one, 200) for one in marked(events, "environments")) for span in spans)
    shown = capsys.readouterr().out
    assert "top costs" in shown and "gradient (phase, besides operations)" in shown
    assert f"profile of 2 iteration(s): {tmp_path / 'run' / 'profile'}" in shown


def test_costs_are_without_what_is_inside() -> None:
    """outer [0, 100] holds a [10, 40], which holds b [20, 30], and another a [50, 60]; a thread beside has a [0, 5]."""
    times = [("outer", 1, 0, 100), ("a", 1, 10, 40), ("b", 1, 20, 30), ("a", 1, 50, 60), ("a", 2, 0, 5)]
    events: list[Event] = [
        {"ph": "X", "cat": "cpu_op", "name": name, "tid": thread, "ts": begin, "dur": end - begin}
        for name, thread, begin, end in times
    ]
    kernels: list[Event] = [{**event, "cat": "kernel", "name": f"{event['name']}_kernel"} for event in events]
    assert costs_of(events + kernels, on_gpu=False) == {"outer": Cost(60, 1), "a": Cost(35, 3), "b": Cost(10, 1)}
    on_gpu = costs_of(events + kernels, on_gpu=True)
    assert on_gpu == {"outer_kernel": Cost(100, 1), "a_kernel": Cost(45, 3), "b_kernel": Cost(10, 1)}


@pytest.mark.parametrize("own", [[], ["overlap=true", "env_groups=2", "env_threads=2"], ["env.workers=processes"]])
def test_no_run_depends_on_it(own: list[str], tmp_path: Path) -> None:
    plain, profiled = train(tmp_path / "plain", *own), train(tmp_path / "profiled", *own, *PROFILED)
    assert final_state(plain).keys() >= {"policy", "optimizer", "per_env"}
    assert differences(final_state(plain), final_state(profiled)) == []
    assert not (plain / "profile").exists()
    events = trace_of(profiled)
    pools = {name.rpartition(" worker")[0] for name in worked(events)}
    assert pools == ({"pool 0", "pool 1"} if "env_groups=2" in own else {"pool 0"})
    threads = {phase: {event["tid"] for event in marked(events, phase)} for phase in (*ACTING, "gradient")}
    assert all(threads.values())
    if "overlap=true" in own:  # another thread collects
        assert not threads["inference"] & threads["gradient"]


def test_every_learner_has_a_trace_and_the_log_is_plain(tmp_path: Path) -> None:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    run_dir = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "dist_trainer", "train", *SETTINGS, *PROFILED, f"run_dir={run_dir}"],
        cwd=ROOT,
        env=os.environ | {"FORCE_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout  # FORCE_COLOR makes no terminal of a log
    assert done.stdout.count("top costs") == 1
    for rank in range(2):
        events = trace_of(run_dir, rank)
        assert marked(events, "communication")
        assert len(worked(events)["pool 0 worker 0"]) == 2 * HORIZON


def test_a_run_that_ends_early_has_the_trace_of_what_there_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed near its end, it has fewer iterations left than are asked for: one, or none after the warm-up."""
    config = compose_train([*SETTINGS, "profile=true", "profile_after=4", "profile_iterations=3"])[0]
    trainer.train(config, connect("cpu", 60), tmp_path / "one", None)
    assert len(marked(trace_of(tmp_path / "one", first=4), "iteration")) == 1
    config = compose_train([*SETTINGS, "profile=true", "profile_after=9"])[0]
    trainer.train(config, connect("cpu", 60), tmp_path / "none", None)
    assert "no profile: the run ended within profile_after=9" in capsys.readouterr().out
    assert not (tmp_path / "none" / "profile").exists()


@pytest.mark.parametrize("workers", ["threads", "processes"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_pool_notes_who_worked(workers: str, count: int) -> None:
    """Only while asked to, and not before a step was sent nor after it was received."""
    config = EnvConfig(name="breakout", workers=workers)
    pool = EnvPool(config, num_envs=192, first_env=0, seed=1, threads=count)
    pool.reset()
    for _ in range(2):
        pool.send()
        pool.recv()
    assert pool.take_spans() == []
    pool.trace(True)
    steps = []
    for _ in range(5):
        began = time.monotonic_ns()
        pool.send()
        pool.recv()
        steps.append((began, time.monotonic_ns()))
    pool.trace(False)
    time.sleep(0.05)  # a thread may note its part a little later
    spans = pool.take_spans()
    pool.send()
    pool.recv()
    assert pool.take_spans() == []
    for begin, end in steps:
        ours = [span for span in spans if begin <= span.begin_ns <= end]
        workers_seen = [span.worker for span in ours]
        assert workers_seen and len(set(workers_seen)) == len(workers_seen)
        assert set(workers_seen) <= set(range(count))
        if workers == "processes" or count == 1:
            assert len(ours) == count
            assert all(span.begin_ns < span.end_ns <= end for span in ours)
    assert len(spans) == sum(begin <= span.begin_ns <= end for span in spans for begin, end in steps)


@pytest.mark.parametrize(
    ("settings", "valid"),
    [
        (["profile=true", "profile_iterations=0"], "profile_iterations=0: must be from 1 to 100"),
        (["profile=true", "profile_iterations=101"], "profile_iterations=101: must be from 1 to 100"),
        (["profile=true", "profile_iterations=6"], "profile_iterations=6: the run has 5 iterations"),
        (["profile=true", "profile_after=4"], "profile_after=4: must be at most 2"),
        (["profile=true", "profile_after=-1"], "profile_after=-1: must be at least 0"),
        (["profile_after=2"], "profile_after=2: acts only with profile=true"),
        (["profile_iterations=5"], "profile_iterations=5: acts only with profile=true"),
    ],
)
def test_settings_that_cannot_be(settings: list[str], valid: str) -> None:
    with pytest.raises(ConfigError, match=valid):
        check_settings(compose_train([*SETTINGS, *settings])[0])

"""The scripts that start learners, and what passes between them and the learners: files, signals, who is there.

What needs a cluster is in tests/slurm/run.sh.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dist_trainer import roll_call
from dist_trainer.agent import own_address, parse
from dist_trainer.errors import ConfigError
from dist_trainer.run_status import JOB, RESTART, StatusFile, read_status
from dist_trainer.stop import LOOK_EVERY_S, STOP_FILE, StopRequest

ROOT = Path(__file__).parents[1]
SETTINGS = ["env=cartpole", "device=cpu", "total_envs=24", "horizon=16", "ppo.minibatches=2", "policy.hidden_size=16"]
ENDLESS = "total_env_steps=1e9"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back the signal handlers that StopRequest takes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_asks_to_stop(handlers: None, number: signal.Signals) -> None:
    stop = StopRequest(speaks=False)
    before = stop.requested
    os.kill(os.getpid(), number)
    assert (before, stop.requested) == (False, True)


def test_file_asks_to_stop(handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    stop = StopRequest(speaks=False)
    answers = [stop.requested]
    (tmp_path / "stop").touch()
    time.sleep(LOOK_EVERY_S)
    answers.append(stop.requested)
    (tmp_path / "stop").unlink()
    answers.append(stop.requested)  # for good
    assert answers == [False, True, True]


def test_status_says_how_a_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB, "12_3")
    monkeypatch.setenv(RESTART, "4")
    assert read_status(tmp_path) is None
    with StatusFile(tmp_path, writes=True) as status:
        status.at(7)
        now = read_status(tmp_path)
        assert now and (now.state, now.iteration, now.job, now.restart) == ("running", 7, "12_3", "4")
    ended = read_status(tmp_path)
    assert ended and (ended.state, ended.iteration) == ("stopped", 7)
    with StatusFile(tmp_path, writes=True) as status:
        status.at(9, complete=True)
    ended = read_status(tmp_path)
    assert ended and (ended.state, ended.iteration) == ("complete", 9)
    with pytest.raises(ValueError, match="no"), StatusFile(tmp_path, writes=True):
        raise ValueError("no\nsuch=thing")
    ended = read_status(tmp_path)
    assert ended and (ended.state, ended.error) == ("failed", "ValueError: no such=thing")
    with StatusFile(tmp_path / "other", writes=False) as status:
        status.at(1)
    assert not (tmp_path / "other").exists()


def test_status_that_cannot_be_written_ends_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").touch()  # a file where the folder should be
    with StatusFile(tmp_path / "run", writes=True) as status:
        status.at(1)
    assert "not written" in capfd.readouterr().err


def call_the_roll(nodes: list[str], come: list[str], patience_s: float, run: str = "5.0") -> dict[str, str]:
    """What the nodes that come are told; "" if all is well."""
    listener = roll_call.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    told: dict[str, str] = {}

    def take_part(node: str, function: Callable[[], None]) -> None:
        try:
            function()
            told[node] = ""
        except roll_call.NodesMissing as error:
            told[node] = str(error)

    def caller() -> None:
        roll_call.call(listener, nodes[0], nodes, run, patience_s)

    def answerer(node: str) -> Callable[[], None]:
        return lambda: roll_call.answer("127.0.0.1", port, node, run, patience_s)

    parts = {nodes[0]: caller} | {node: answerer(node) for node in come}
    threads = [threading.Thread(target=take_part, args=part) for part in parts.items()]
    with contextlib.closing(listener):
        for thread in threads:
            thread.start()
        with socket.create_connection(("127.0.0.1", port)) as stranger:  # is not listened to
            stranger.sendall(b"GET / HTTP/1.1\n")
            for thread in threads:
                thread.join(30)
    return told


def test_all_nodes_have_come() -> None:
    assert call_the_roll(["a", "b", "c"], ["c", "b"], 20) == {"a": "", "b": "", "c": ""}


def test_missing_node_is_named_to_all() -> None:
    told = call_the_roll(["a", "b", "c"], ["b"], 1.5)
    assert told == dict.fromkeys(["a", "b"], "no sign of node c after 1.5 s")


def test_first_node_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "GRACE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(roll_call.NodesMissing, match=r"node b cannot reach the first node at 127.0.0.1 port .*refused"):
        roll_call.answer("127.0.0.1", port, "b", "5.0", 1.0)


def test_node_listens_where_it_is_told_to() -> None:
    assert own_address("localhost", "lo", alone=True) == "127.0.0.1"
    assert own_address("localhost", None, alone=False) == "127.0.0.1"
    with pytest.raises(ConfigError, match=r"--interface=nope: has no IPv4 address .*; here are: .*lo"):
        own_address("localhost", "nope", alone=True)
    with pytest.raises(ConfigError, match=r"--node=127.0.1.1: .* name the --interface"):
        own_address("127.0.1.1", None, alone=False)


def test_several_nodes_need_a_stop_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STOP_FILE, raising=False)
    with pytest.raises(ConfigError, match=STOP_FILE):
        parse(["--nodes=a,b", "--port=29500", "--learners=1", "--", "train"])
    with pytest.raises(ConfigError, match="--node=c: must be one of --nodes: a, b"):
        parse(["--nodes=a,b", "--node=c", "--learners=1", "--", "train"])


@contextlib.contextmanager
def agent(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A node's agent in a session of its own; none of its processes is left in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dist_trainer.agent", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    try:
        yield process
    finally:
        for pid in [*children(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "took too long"
        time.sleep(0.05)


def trains(run: Path) -> Callable[[], bool]:
    def has_a_checkpoint() -> bool:
        status = read_status(run)
        return status is not None and status.state == "running" and status.iteration > 0

    return has_a_checkpoint


def listeners(pids: list[int]) -> set[str]:
    """IPv4 addresses on which these processes listen; IPv6 ones as they are in /proc."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address = fields[1].split(":")[0]
                packed = bytes.fromhex(address)[::-1]
                found.add(socket.inet_ntoa(packed) if table == "tcp" else address)
    return found


def test_two_nodes_stop_together_and_go_on(tmp_path: Path) -> None:
    """Two agents on addresses of the loopback, as on two machines: a signal to one of them stops both."""
    run, logs = tmp_path / "run", tmp_path / "logs"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = ["--nodes=127.0.0.1,127.0.0.2", f"--port={port}", "--learners=1", "--patience=60"]
    work = ["--", "train", *SETTINGS, "checkpoint_every=5", f"run_dir={run}", "resume=auto"]
    environment = {STOP_FILE: str(tmp_path / "stop"), "DIST_TRAINER_LOGS": str(logs), JOB: "8", RESTART: "0"}
    with (
        agent(*common, "--node=127.0.0.1", *work, ENDLESS, **environment) as first,
        agent(*common, "--node=127.0.0.2", *work, ENDLESS, **environment) as second,
    ):
        wait_for(trains(run), first)
        pids = [first.pid, second.pid, *children(first.pid), *children(second.pid)]
        assert {address.rpartition(".")[0] for address in listeners(pids)} == {"127.0.0"}
        os.kill(second.pid, signal.SIGTERM)
        assert (first.wait(60), second.wait(60)) == (0, 0)
    status = read_status(run)
    assert status and (status.state, status.job, status.restart) == ("stopped", "8", "0")
    (tmp_path / "stop").unlink(missing_ok=True)
    with agent("--learners=2", *work, f"total_env_steps={(status.iteration + 3) * 24 * 16}", **environment) as alone:
        assert alone.wait(60) == 0
    status = read_status(run)
    assert status and status.state == "complete"
    for rank in range(2):  # over both starts
        assert (logs / f"rank_{rank:03}.log").read_text().count("--- job 8 restart 0 on ") == 2


def test_learners_stop_with_whoever_started_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with agent("--learners=2", "--follow-stdin", "--", "train", *SETTINGS, f"run_dir={run}", ENDLESS) as process:
        wait_for(lambda: read_status(run), process)
        learners = children(process.pid)
        assert len(learners) >= 2
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdin = None
    status = read_status(run)
    assert status and status.state == "stopped" and status.iteration > 0
    assert not [pid for pid in learners if Path(f"/proc/{pid}").exists()]


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    site = ROOT / "tests" / "slurm" / "no_site.sh"  # this interpreter, not .venv
    given = os.environ | {"DIST_TRAINER_SITE": str(site), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", str(ROOT / name), *arguments], capture_output=True, text=True, timeout=120, env=given | environment
    )


def test_dry_run_prints_what_would_be_submitted() -> None:
    options = ["--nodes=2", "--gpus-per-node=h100:4", "--time=1-00:00:00", "--job-name=mine"]
    done = script("launch/submit.sh", "--dry-run", *options, *SETTINGS[:2], "total_envs=256")
    assert done.returncode == 0, done.stderr
    [command] = done.stdout.splitlines()
    assert command.startswith("env DIST_TRAINER_LEARNERS=4 sbatch --partition=quiet ")
    assert " --job-name=mine slurm/train.sbatch env=cartpole device=cpu total_envs=256" in command
    assert "2 node(s) x 4 learner(s)" in done.stderr


def test_dry_run_of_a_chain_and_of_a_sweep(tmp_path: Path) -> None:
    done = script("launch/submit.sh", "--dry-run", "--chain=3", "--job-name=long", *SETTINGS)
    assert done.stdout.count("--dependency=singleton") == 3, done.stderr
    assert done.stdout.count("DIST_TRAINER_CHAIN=first") == 1
    experiments = tmp_path / "experiments"
    experiments.write_text("# comment\n\nseed=1\nseed=2 'optimizer.lr=0.01'\n")
    done = script("launch/submit.sh", "--dry-run", f"--experiments={experiments}", "--at-once=1", *SETTINGS)
    assert f"--array=0-1%1 --output=runs/%x-%A_%a.out slurm/experiments.sbatch {experiments}" in done.stdout, (
        done.stderr
    )
    done = script("launch/submit.sh", "--dry-run", "--sweep=3", "--learners=2", *SETTINGS, "sweep.trials=9")
    wanted = "--array=0-2 --output=runs/%x-%A_%a.out slurm/sweep.sbatch sweep.learners=2 env=cartpole"
    assert wanted in done.stdout and done.stdout.rstrip().endswith("sweep.trials=9"), done.stderr
    done = script("launch/submit.sh", "--dry-run", "--sweep=3", *SETTINGS, "sweep.trails=9")
    assert done.returncode == 2 and "did you mean sweep.trials?" in done.stderr
    done = script("launch/submit.sh", "--dry-run", "--benchmark=2", "optimizers=[muon]", "envs=[cartpole]", "seeds=2")
    wanted = "--array=0-1 --output=runs/%x-%A_%a.out slurm/benchmark.sbatch learners=1 optimizers="
    assert wanted in done.stdout and "2 workers" in done.stderr, done.stderr
    done = script("launch/submit.sh", "--dry-run", "--benchmark=2", "envs=[cartpool]")
    assert done.returncode == 2 and "did you mean cartpole?" in done.stderr
    experiments.write_text("seed=1\nsead=2\n")
    done = script("launch/submit.sh", "--dry-run", f"--experiments={experiments}", *SETTINGS)
    assert done.returncode == 2 and "sead=2: no such setting; did you mean seed?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nodes=3", "total_envs=64"], "total_envs=64: must be a multiple of 3 learners"),
        (["totl_envs=64"], "totl_envs=64: no such setting; did you mean total_envs?"),
        (["--time=9"], "--time=9: must be at least twice the 300 s"),
        (["--time=0:9:59"], "--time=0:9:59: must be at least twice the 300 s"),
        (["--time=9", "--signal=B:TERM@60"], "--signal=B:TERM@60: must send USR1"),
        (["--chain=2"], "--chain=2: needs --job-name"),
        (["--nodes=two"], "--nodes=two: must be a whole number"),
        (["resume=runs/old"], "resume=runs/old: a job continues what its run folder holds; give run_dir=runs/old"),
    ],
)
def test_submit_refuses_what_cannot_run(arguments: list[str], complaint: str) -> None:
    done = script("launch/submit.sh", "--dry-run", *arguments)
    assert done.returncode == 2 and complaint in done.stderr and not done.stdout, done


@pytest.mark.parametrize("limit", ["10", "10:00", "0:10:00", "0-1", "1-0:0:1", "0-0:10"])
def test_time_limits_in_all_forms(limit: str) -> None:
    done = script("launch/submit.sh", "--dry-run", f"--time={limit}")
    assert done.returncode == 0, done.stderr


def test_local_chooses_learners_that_divide_the_environments() -> None:
    done = script("launch/local.sh", "--learners=5", *SETTINGS, PYTHONPATH=str(ROOT))
    assert done.returncode == 2 and "total_envs=24: must be a multiple of 5 learners" in done.stderr, done


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    files = [*ROOT.glob("launch/*.sh"), *ROOT.glob("slurm/*"), *ROOT.glob("tests/slurm/*.sh")]
    done = subprocess.run(["shellcheck", "-x", *map(str, files)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout

"""The verb `sweep`, with real trainings and real workers: killed, stopped, crashed, hopeless; nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from dist_trainer.benchmark import plan_benchmark
from dist_trainer.errors import ConfigError
from dist_trainer.gpus import share_devices
from dist_trainer.plan_view import require_modules
from dist_trainer.run_curves import read_curve
from dist_trainer.run_status import RunStatus, read_status
from dist_trainer.sweep import Workers, _end
from dist_trainer.sweep_plan import plan_sweep
from dist_trainer.sweep_run import outcome
from dist_trainer.sweep_study import ATTEMPTS, REASON, SETTINGS, StudyFolder, open_study
from dist_trainer.sweep_suggest import suggest
from dist_trainer.sweep_worker import GAVE_UP, OVER, STOPPED, work
from dist_trainer.verb_configs import SweepConfig

ROOT = Path(__file__).parents[1]
TINY = (
    *("env=cartpole", "policy=mlp", "policy.hidden_size=16", "device=cpu", "total_envs=16", "horizon=16"),
    *("ppo.minibatches=2", "checkpoint_every=10", "torch_threads=1", "env_threads=1"),
)
SLOW = (*TINY[:1], *TINY[2:], "policy._target_=tests.slow_policy.SlowPolicy")
PATIENCE_S = 240  # the machine may have much else to do
ACT_S = {"TEST_ACT_S": "0.004"}  # an iteration takes at least 64 ms


def steps(iterations: int) -> str:
    return f"total_env_steps={16 * 16 * iterations}"


def space(folder: Path, **knobs: object) -> str:
    """With names whose dots are __."""
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump({"knobs": {name.replace("__", "."): knob for name, knob in knobs.items()}}))
    return f"sweep.space={file}"


LR = {"log": [1e-3, 1e-2]}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a sweep, or one worker of it; both are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, module: str = "dist_trainer.sweep_worker", **variables: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, "1" if module.endswith("worker") else "sweep", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        with (tmp_path / "output.log").open("ab") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def study_of(arguments: tuple[str, ...]) -> StudyFolder:
    plan = plan_sweep(arguments)
    return open_study(plan.folder, plan.definition)


def within(seconds: float, what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"took too long: {what}"
        time.sleep(0.05)


def iteration_of(folder: Path, trial: int) -> int:
    status = read_status(folder / "trials" / f"{trial:04d}" / "run1")
    return status.iteration if status else -1


def trainings_of(folder: Path) -> list[int]:
    """Processes that train in this study's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"run_dir={folder}".encode()) for word in words):
            found.append(int(path.parent.name))
    return found


def test_a_killed_worker_s_trial_is_gone_on_with_by_the_other(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(30), space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={folder}", "sweep.trials=2", "sweep.pruner=none"),
    )
    first, second = start(*arguments, **ACT_S), start(*arguments, **ACT_S)
    within(PATIENCE_S, "both to train", lambda: iteration_of(folder, 0) >= 10 and iteration_of(folder, 1) >= 0)
    study = study_of(arguments)
    victim = next(p for p in (first, second) if study.trials()[0].user_attrs["worker"].split(" ")[-2] == str(p.pid))
    victim.kill()
    victim.wait()
    survivor = second if victim is first else first
    assert survivor.wait(PATIENCE_S) == OVER, (tmp_path / "output.log").read_text()

    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert [trial.user_attrs.get(ATTEMPTS, 0) for trial in trials] == [1, 0]
    assert {trial.user_attrs["worker"].split(" ")[-2] for trial in trials} == {str(survivor.pid)}
    # Not from the beginning, and its training ended with the worker.
    origins = sorted(path.name for path in (folder / "trials/0000/run1/provenance").iterdir())
    assert origins[0].startswith("resumed_at_") and int(origins[0].rpartition("_")[2]) >= 10
    assert not trainings_of(folder)
    assert [iteration_of(folder, number) for number in range(2)] == [30] * 2


def worker_of(sweep: subprocess.Popen[bytes]) -> int:
    """The only one."""
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"sweep_worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_the_only_worker_of_a_sweep_is_replaced_when_it_dies(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    arguments = (*SLOW, steps(30), space(tmp_path, optimizer__lr=LR), f"sweep.folder={folder}", "sweep.trials=1")
    sweep = start(*arguments, module="dist_trainer", **ACT_S)
    within(PATIENCE_S, "a checkpoint", lambda: iteration_of(folder, 0) >= 10)
    os.kill(worker_of(sweep), signal.SIGKILL)
    assert sweep.wait(PATIENCE_S) == 0, (tmp_path / "output.log").read_text()
    assert "another one takes its place" in (tmp_path / "output.log").read_text()
    [trial] = study_of(arguments).trials()
    assert trial.state == TrialState.COMPLETE and trial.user_attrs[ATTEMPTS] == 1


def test_a_stopped_sweep_goes_on_as_it_would_have(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(20), space(tmp_path, optimizer__lr=LR, ppo__gamma={"near_one": [0.9, 0.99]})),
        *(f"sweep.folder={folder}", "sweep.trials=2", "sweep.startup=1", "sweep.sampler=tpe", "sweep.cost=env_steps"),
    )
    sweep = start(*arguments, "sweep.workers=1", module="dist_trainer", **ACT_S)
    within(PATIENCE_S, "the second trial", lambda: iteration_of(folder, 1) >= 0)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(PATIENCE_S) == STOPPED, (tmp_path / "output.log").read_text()
    study = study_of(arguments)
    begun = study.trials()[1]
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.WAITING]
    assert not trainings_of(folder) and iteration_of(folder, 1) < 20

    assert start(*arguments, module="dist_trainer").wait(PATIENCE_S) == 0, (tmp_path / "output.log").read_text()
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert trials[1].params == begun.params and ATTEMPTS not in trials[1].user_attrs
    assert len(list((folder / "trials/0001/run1/provenance").iterdir())) == 2
    # Whoever asks for the second gets the same: it is chosen from the first, and its number.
    plan = plan_sweep(arguments)
    assert trials[1].user_attrs[SETTINGS] == suggest(plan.space, plan.config, trials[:1], 1, {})[0]
    assert [trial.user_attrs["env_steps"] for trial in trials] == [20 * 256] * 2

    best = max(trials, key=lambda trial: trial.value or 0.0)
    shown = subprocess.run(
        [sys.executable, "-m", "dist_trainer", "train", "--cfg", "job", "--config-dir", str(folder), "tuned=best"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    found = yaml.safe_load(shown.stdout)
    assert found["env"]["name"] == "cartpole" and found["horizon"] == 16
    assert found["policy"]["_target_"] == "tests.slow_policy.SlowPolicy"
    assert found["optimizer"]["lr"] == best.user_attrs[SETTINGS]["optimizer.lr"]
    assert found["ppo"]["gamma"] == best.user_attrs[SETTINGS]["ppo.gamma"]
    words = ["optimizers=[muon]", "envs=[cartpole]", f"tuned={{muon:{folder / 'tuned/best.yaml'}}}"]
    (tuned,) = plan_benchmark(words).grid.part("tuned")
    assert tuned.search == f"2 trials, {2 * 20 * 256} steps"
    assert (folder / "pareto.png").stat().st_size > 0
    assert (folder / "trials.csv").read_text().count("complete") == 2

    # Another training is not this study's.
    with pytest.raises(ConfigError, match=r"ppo\.clip=0\.25: was 0\.3"):
        study_of((*arguments, "ppo.clip=0.25"))
    with pytest.raises(ConfigError, match="window"):
        study_of((*arguments, "sweep.window=0.5"))
    with pytest.raises(ConfigError, match=r"sweep\.reports=5: was 20"):
        study_of((*arguments, "sweep.reports=5"))


def test_a_training_of_two_learners_that_crashes_goes_on(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The second learner dies in iteration 18; from any later checkpoint than the first there are fewer steps to go."""
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(20), "checkpoint_every=5", "collective_timeout_s=10", space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={folder}", "sweep.trials=1", "sweep.learners=2", "sweep.retries=1"),
    )
    worker = start(*arguments, TEST_DIES_AT="280", **ACT_S)
    assert worker.wait(PATIENCE_S) == OVER, (tmp_path / "output.log").read_text()
    [trial] = study_of(arguments).trials()
    assert trial.state == TrialState.COMPLETE and trial.user_attrs[ATTEMPTS] == 1
    origins = [path.name for path in (folder / "trials/0000/run1/provenance").glob("resumed_at_*")]
    assert origins in (["resumed_at_5"], ["resumed_at_10"], ["resumed_at_15"])


def test_hopeless_trials_fail_with_their_reason_and_are_not_tried_again(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """16 environments are no multiple of 3 minibatches; and a rate that leaves no number finite. What works is trained
    with both seeds."""
    folder = tmp_path / "study"
    knobs = space(tmp_path, ppo__minibatches={"choice": [2, 3]}, optimizer__lr={"choice": [0.001, 1e30]})
    arguments = (
        *(*TINY, steps(20), "max_bad_updates=2", knobs),
        *(f"sweep.folder={folder}", "sweep.trials=3", "seed=5", "sweep.seeds=2", "sweep.window=1"),
    )
    study = study_of(arguments)
    wanted: list[dict[str, object]] = [
        {"ppo.minibatches": 3, "optimizer.lr": 0.001},
        {"ppo.minibatches": 2, "optimizer.lr": 1e30},
        {"ppo.minibatches": 2, "optimizer.lr": 0.001},
    ]
    for settings in wanted:
        template = create_trial(state=TrialState.WAITING, user_attrs={SETTINGS: settings})
        study.storage.create_new_trial(study.study_id, template)
    assert start(*arguments).wait(PATIENCE_S) == OVER, (tmp_path / "output.log").read_text()
    refused, diverged, good = study.trials()
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
    assert "total_envs=16" in refused.user_attrs[REASON] and "ppo.minibatches=3" in refused.user_attrs[REASON]
    assert "TrainingDiverged" in diverged.user_attrs[REASON]
    assert ATTEMPTS not in refused.user_attrs and ATTEMPTS not in diverged.user_attrs
    seeds = [yaml.safe_load((folder / f"trials/0002/run{n}/config.yaml").read_text())["seed"] for n in (1, 2)]
    curves = [read_curve(folder / f"trials/0002/run{n}", {}, "episode_return") for n in (1, 2)]
    assert seeds == [5, 6] and good.user_attrs["env_steps"] == 2 * 20 * 256
    assert good.value == pytest.approx(sum(curve.values.mean() for curve in curves) / 2)


def test_a_training_that_takes_too_long_to_stop_has_not_crashed(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(20), space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={folder}", "sweep.trials=1", "sweep.retries=0", "sweep.stop_s=0.01"),
    )
    worker = start(*arguments, TEST_ACT_S="1000")
    within(PATIENCE_S, "the training", lambda: (folder / "trials/0000/run1/config.yaml").exists())
    worker.terminate()
    assert worker.wait(PATIENCE_S) == STOPPED
    [trial] = study_of(arguments).trials()
    assert trial.state == TrialState.WAITING and ATTEMPTS not in trial.user_attrs
    assert not trainings_of(folder)


def test_a_metric_that_no_training_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    arguments = (
        *(*TINY, steps(20), space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={tmp_path / 'study'}", "sweep.trials=1", "sweep.metric=episode_retrun"),
    )
    assert work(arguments, threads=1) == OVER
    [trial] = study_of(arguments).trials()
    assert trial.state == TrialState.FAIL and "did you mean episode_return" in trial.user_attrs[REASON]


def test_a_worker_that_was_stopped_before_it_listened_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*TINY, space(tmp_path, optimizer__lr=LR), f"sweep.folder={tmp_path / 'study'}")
    plan, study = plan_sweep(arguments), study_of(arguments)
    monkeypatch.setattr("dist_trainer.sweep.Workers._start", lambda *_: subprocess.Popen(["sleep", "100"]))
    workers = Workers(plan, study, arguments)
    workers.signal(signal.SIGTERM)
    [process] = workers.processes
    process.wait(10)
    assert _end(plan, study, workers, Console(), told=True) == STOPPED
    assert _end(plan, study, workers, Console(), told=False) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that holds a study already."""
    arguments = (*TINY, space(tmp_path, optimizer__lr=LR), f"sweep.folder={tmp_path / 'study'}")
    study_of(arguments)

    def refuse(path: Path, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(ConfigError, match=r"sweep\.folder=.*: cannot be written: Read-only"):
        study_of(arguments)


def test_a_training_that_hangs_is_killed(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(20), space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={folder}", "sweep.trials=1", "sweep.retries=0", "sweep.stall_minutes=0.05"),
    )
    assert start(*arguments, TEST_ACT_S="1000").wait(PATIENCE_S) == OVER, (tmp_path / "output.log").read_text()
    [trial] = study_of(arguments).trials()
    assert trial.state == TrialState.FAIL and trial.user_attrs[REASON] == "nothing new for 0.05 minutes"
    assert not trainings_of(folder)


def test_a_trial_that_is_behind_is_pruned_and_keeps_a_checkpoint(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    arguments = (
        *(*SLOW, steps(400), space(tmp_path, optimizer__lr=LR)),
        *(f"sweep.folder={folder}", "sweep.trials=7", "sweep.reports=40"),
    )
    study = study_of(arguments)
    for _ in range(6):
        study.storage.create_new_trial(study.study_id, _finished(dict.fromkeys(range(1, 41), 400.0)))
    worker = start(*arguments, **ACT_S)
    assert worker.wait(PATIENCE_S) == OVER, (tmp_path / "output.log").read_text()
    trial = study.trials()[6]
    reports = trial.intermediate_values
    assert trial.state == TrialState.PRUNED
    assert max(reports) < 20 and trial.value == reports[max(reports)] < 400
    assert trial.user_attrs["share"] < 0.5
    status = read_status(folder / "trials/0006/run1")
    assert status and status.state == "stopped" and status.iteration >= 8 * 10


def _finished(reports: dict[int, float]) -> FrozenTrial:
    return create_trial(value=400.0, intermediate_values=reports, user_attrs={"seconds": 1.0, "env_steps": 1.0})


@pytest.mark.parametrize(
    ("code", "state", "words", "how"),
    [
        (0, "complete", "done", "complete"),
        (1, "complete", "", "complete"),  # torchrun's status after a signal
        (0, "stopped", "", "stopped"),
        (1, "failed", "", "crashed"),
        (-9, "running", "", "crashed"),  # by the kernel, for its memory
        (1, None, "Segmentation fault", "crashed"),
        (2, None, "ppo.clip=-1.0: must be above 0", "hopeless"),
        (2, None, "run_dir=x: another process is training in this folder: 7 on n1", "crashed"),
    ],
)
def test_how_a_training_ended(code: int, state: str | None, words: str, how: str) -> None:
    status = RunStatus(state, 5, "", "", "CollectiveFailed: learner 1") if state else None
    ended = outcome(code, status, words)
    assert ended.how == how
    if how == "crashed":
        wanted = {"failed": "CollectiveFailed: learner 1", "running": "killed by signal 9"}.get(str(state), words)
        assert wanted in ended.reason


def test_a_worker_gives_up_where_every_training_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would use up all trials of the study in no time, and others may have a machine that works."""
    monkeypatch.setattr("dist_trainer.sweep_trial.train", lambda *_: ("hopeless", "no memory"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    arguments = (*TINY, space(tmp_path, optimizer__lr=LR), f"sweep.folder={tmp_path / 'study'}", "sweep.trials=99")
    assert work(arguments, threads=1) == GAVE_UP
    trials = study_of(arguments).trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 10
    assert {trial.user_attrs[REASON] for trial in trials} == {"no memory"}


def test_help_names_every_setting_and_the_chosen_space() -> None:
    command = [sys.executable, "-m", "dist_trainer", "sweep", "--help", "sweep.space=psgd"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    for field in dataclasses.fields(SweepConfig):
        assert re.search(rf"^  sweep\.{field.name} +\w", shown, re.MULTILINE), f"{field.name} is not in the help"
    assert "optimizer.lstm_blocks: {choice: [gates, whole]}" in shown and "power_of_two" in shown


def test_gpus_are_shared_out_over_workers_and_their_learners() -> None:
    assert share_devices(["0", "1", "2", "3"], workers=2, learners=2) == [["0", "1"], ["2", "3"]]
    assert share_devices(["4", "6"], workers=4, learners=1) == [["4"], ["6"], ["4"], ["6"]]
    assert share_devices(["GPU-a"], workers=1, learners=2) == [["GPU-a"]]
    assert share_devices([], workers=2, learners=4) == [[], []]


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optuna.*pip install 'dist_trainer\[sweep\]'"):
        require_modules("sweep", "optuna", extra="sweep")

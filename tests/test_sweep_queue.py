"""Whose a trial is, when several processes ask at once, or disappear; and the file that all of them write."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from dist_trainer.launcher import process_name
from dist_trainer.sweep_journal import JOURNAL_FILE
from dist_trainer.sweep_queue import LOST, Queue
from dist_trainer.sweep_signs import FOLDER, SignOfLife, Watch, worker_name
from dist_trainer.sweep_study import ATTEMPTS, REASON, WORKER, StudyFolder, open_study

ELSEWHERE = "node7 1b2c3d4e pid:[4026531836] 4711 99"  # a process of another machine
ELSEWHERE_FILE = "node7-4711-99"


def queue_of(folder: Path, trials: int = 100, retries: int = 1, patience_s: float = 0.5, name: str = "") -> Queue:
    study = open_study(folder, {"train": {}})
    return Queue(study, name or worker_name(), Watch(folder, patience_s), trials, retries)


def take_all(folder: Path, trials: int) -> list[int]:
    """In a process of its own."""
    queue, taken = queue_of(folder, trials), []
    while (trial := queue.take()) is not None:
        taken.append(trial.number)
        queue.finish(trial, TrialState.COMPLETE, float(trial.number), pid=os.getpid())
    return taken


def test_many_processes_share_a_study_s_trials(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        taken = pool.starmap(take_all, [(tmp_path, 40)] * 4)
    assert sorted(number for numbers in taken for number in numbers) == list(range(40))
    trials = queue_of(tmp_path, 40).study.trials()
    assert [trial.value for trial in trials] == [float(number) for number in range(40)]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_what_was_given_back_is_taken_first_and_again_as_it_was(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    first = queue.take()
    assert first and queue.is_mine(first)
    queue.mark(first, settings={"a": 1})
    queue.give_back(first)
    assert not queue.is_mine(first)
    again = queue.take()
    assert again and again.number == 0 and again.user_attrs["settings"] == {"a": 1} and ATTEMPTS not in again.user_attrs
    other = queue.take()
    assert other and other.number == 1


def test_a_trial_that_crashes_is_tried_again_and_fails_after_the_last_attempt(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, trials=1, retries=2)
    for attempt in range(3):
        assert not queue.is_over()
        trial = queue.take()
        assert trial and trial.number == 0
        queue.crashed(trial, f"crash {attempt}")
    assert queue.take() is None and queue.is_over()
    [failed] = queue.study.trials()
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs[ATTEMPTS] == 3 and failed.user_attrs[REASON] == "crash 2"


def test_a_worker_of_this_machine_is_gone_as_soon_as_its_process_is(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        theirs = queue_of(tmp_path, name=process_name(process.pid), patience_s=60).take()
        queue = queue_of(tmp_path, trials=1, patience_s=60)
        assert theirs and queue.take() is None
    finally:
        process.kill()
        process.wait()
    trial = queue.take()
    assert trial and trial.number == 0
    assert trial.user_attrs[WORKER] == worker_name()
    assert trial.user_attrs[ATTEMPTS] == 1 and trial.user_attrs[REASON] == LOST


def test_a_worker_elsewhere_is_gone_when_its_count_has_stood_still(tmp_path: Path) -> None:
    """By the clock of who looks: the file's own time says nothing."""
    theirs = queue_of(tmp_path, name=ELSEWHERE).take()
    assert theirs
    file = tmp_path / FOLDER / ELSEWHERE_FILE
    file.parent.mkdir()
    queue = queue_of(tmp_path, trials=1, patience_s=1.0)
    end = time.monotonic() + 2.5
    count = 0
    while time.monotonic() < end:  # it counts, with a clock of last year
        count += 1
        file.write_text(str(count))
        os.utime(file, (1e9, 1e9))
        assert queue.take() is None
        time.sleep(0.3)
    stopped = time.monotonic()
    while (trial := queue.take()) is None:
        assert time.monotonic() < stopped + 20
        time.sleep(0.1)
    assert time.monotonic() - stopped > 0.6
    assert trial.number == 0 and trial.user_attrs[ATTEMPTS] == 1


def test_who_was_taken_for_gone_has_nothing_to_say_about_the_trial_any_more(tmp_path: Path) -> None:
    sleeper = queue_of(tmp_path, name=ELSEWHERE)
    theirs = sleeper.take()
    queue = queue_of(tmp_path, trials=1, patience_s=0.1)
    assert theirs and queue.take() is None
    time.sleep(0.2)
    mine = queue.take()
    assert mine and not sleeper.is_mine(theirs)
    sleeper.finish(theirs, TrialState.COMPLETE, 1.0)
    sleeper.give_back(theirs)
    sleeper.crashed(theirs, "too late")
    assert queue.is_mine(mine)
    queue.finish(mine, TrialState.COMPLETE, 2.0)
    [trial] = queue.study.trials()
    assert trial.value == 2.0 and trial.user_attrs[ATTEMPTS] == 1


def test_a_trial_that_no_worker_has_begun_is_nobody_s(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, trials=1)
    queue.study.storage.create_new_trial(queue.study.study_id)  # as Study.ask() does
    trial = queue.take()
    assert trial and trial.number == 0 and queue.is_mine(trial)


def test_signs_of_life_are_given_and_end(tmp_path: Path) -> None:
    life = SignOfLife(tmp_path)
    [file] = (tmp_path / FOLDER).iterdir()
    before = file.read_text()
    end = time.monotonic() + 20
    while file.read_text() in (before, ""):
        assert time.monotonic() < end
        time.sleep(0.1)
    life.end()
    assert not list((tmp_path / FOLDER).iterdir())


@pytest.mark.parametrize("rest", ["", '{"op_code":4,"work', "\x00" * 5000])
def test_the_journal_goes_on_after_a_writer_that_was_killed_in_mid_line(rest: str, tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    first = queue.take()
    assert first
    queue.finish(first, TrialState.COMPLETE, 1.0)
    with (tmp_path / JOURNAL_FILE).open("a") as journal:
        journal.write(rest)
    second = queue_of(tmp_path).take()
    assert second and second.number == 1
    for study in (queue.study, open_study(tmp_path, {"train": {}})):  # one that had read it before, and a new one
        assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    for line in (tmp_path / JOURNAL_FILE).read_text().splitlines():
        json.loads(line)


def test_a_study_s_folder_can_be_moved(tmp_path: Path) -> None:
    before = queue_of(tmp_path / "a").take()
    (tmp_path / "a").rename(tmp_path / "b")
    after = queue_of(tmp_path / "b").take()
    assert before and after and (before.number, after.number) == (0, 1)


def test_two_that_begin_a_study_at_once_have_the_same(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.starmap(study_id, [(tmp_path,)] * 8)
    assert len(set(names)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOURNAL_FILE, "study.yaml"]


def study_id(folder: Path) -> tuple[int, str]:
    study: StudyFolder = open_study(folder, {"train": {"a": 1}})
    return study.study_id, study.name

"""resume=auto goes on with what the folder holds, or begins there; learners that torchrun restarts do so by themselves.

A torchrun's identity is a process: here the tests give it by hand, tests/faults kills real learners.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dist_trainer import launcher, run_folder
from dist_trainer.checkpoint_file import checkpoint_path
from dist_trainer.checkpoint_search import remove_checkpoint
from dist_trainer.errors import ConfigError
from dist_trainer.plan import TrainPlan, plan_train
from dist_trainer.run_folder import lock_run_folder, write_launchers, write_run
from dist_trainer.train import claim
from tests.checkpoint_files import write_checkpoint

SMALL = ["env=cartpole", "total_envs=16", "horizon=8", "ppo.minibatches=4", "policy.hidden_size=8"]


def begin(run_dir: Path, *settings: str, checkpoints: tuple[int, ...] = ()) -> None:
    """A run's folder as its first learner leaves it; checkpoints without content."""
    config = plan_train([*SMALL, *settings], 1).config
    write_run(dataclasses.replace(config, run_dir=str(run_dir)), run_dir, None)
    for iteration in checkpoints:
        write_checkpoint(checkpoint_path(run_dir, iteration), b"x")


def auto(run_dir: Path, *settings: str, learners: int = 1) -> TrainPlan:
    return plan_train([*SMALL, "resume=auto", f"run_dir={run_dir}", *settings], learners)


def test_the_same_command_begins_and_goes_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert auto(run_dir).resume_from is None
    begin(run_dir, checkpoints=(3, 5))
    plan = auto(run_dir)
    assert plan.resume_from == checkpoint_path(run_dir, 5)
    assert plan.config.total_envs == 16 and plan.config.run_dir == str(run_dir)


def test_it_needs_to_know_the_folder() -> None:
    with pytest.raises(ConfigError, match=r"resume=auto: needs run_dir"):
        plan_train(["resume=auto"], 1)


def test_settings_may_say_again_what_the_run_is_and_change_what_may_change(tmp_path: Path) -> None:
    """What they do not say stays as it was."""
    begin(tmp_path, "optimizer.lr=0.25", "log_every=7", checkpoints=(1,))
    config = auto(tmp_path, "optimizer=muon", "seed=1", "log_every=3", "total_env_steps=999").config
    assert (config.optimizer["lr"], config.log_every, config.total_env_steps) == (0.25, 3, 999)
    for other in ("seed=2", "env=tmaze", "optimizer=adamw", "policy.hidden_size=16", "optimizer.weight_decay=0.5"):
        with pytest.raises(ConfigError, match="cannot change when a run is resumed"):
            auto(tmp_path, other)


def test_a_scaled_batch_is_not_scaled_again(tmp_path: Path) -> None:
    scaled = ["batch_scaling.reference_learners=2", "batch_scaling.lr_rule=linear", "optimizer.lr=0.01"]
    config = plan_train([*SMALL, *scaled], 4).config
    write_run(dataclasses.replace(config, run_dir=str(tmp_path)), tmp_path, None)
    write_checkpoint(checkpoint_path(tmp_path, 1), b"x")
    assert config.total_envs == 32
    for learners in (1, 4, 8):
        assert dataclasses.replace(auto(tmp_path, *scaled, learners=learners).config, run_dir=None) == config


def test_a_run_without_a_checkpoint_is_begun_again(tmp_path: Path) -> None:
    """Of its first attempt no event and no configuration is left."""
    begin(tmp_path, "seed=5")
    (tmp_path / "tensorboard" / "events.out").touch()
    plan = auto(tmp_path, "seed=6")
    assert plan.resume_from is None and plan.config.seed == 6
    plan, lock = claim(plan)
    lock.close()
    assert not (tmp_path / "config.yaml").exists() and not list((tmp_path / "tensorboard").iterdir())


def test_what_is_in_a_folder_without_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.of.others").touch()
    _, lock = claim(auto(tmp_path))
    lock.close()
    assert (tmp_path / "tensorboard" / "events.of.others").exists()


def test_the_newest_checkpoint_is_taken_once_the_folder_is_ours(tmp_path: Path) -> None:
    """A learner of the attempt before may have written one more while it ended."""
    begin(tmp_path, checkpoints=(3,))
    plan = auto(tmp_path)
    write_checkpoint(checkpoint_path(tmp_path, 4), b"x")
    plan, lock = claim(plan)
    lock.close()
    assert plan.resume_from == checkpoint_path(tmp_path, 4)


def test_the_lock_of_a_learner_that_ends_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, checkpoints=(3,))
    script = f"""
import time, pathlib
from dist_trainer.run_folder import lock_run_folder
lock = lock_run_folder(pathlib.Path({str(tmp_path)!r}))
print("locked", flush=True)
time.sleep(600)"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match=rf"another process is training in this folder: {holder.pid} on"):
            lock_run_folder(tmp_path)
        monkeypatch.setattr(run_folder, "LOCK_PATIENCE_S", 30.0)
        subprocess.Popen(["bash", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
        began = time.monotonic()
        _, lock = claim(auto(tmp_path))
        lock.close()
        assert 0.2 < time.monotonic() - began < 20


# --- restarted by torchrun: the command has no resume=auto


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes this process one that torchrun started, and that has not begun the run by itself."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    name = launcher.launcher_name()
    assert name
    return name


def begun_by(run_dir: Path, torchrun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process of this torchrun's would have."""
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "process_name", lambda pid: "host boot namespace 1 1")
        write_launchers(run_dir, ["another host's", torchrun, None])


def test_a_torchrun_is_known_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts between it and its learners do not count; without a torchrun there is none."""
    program = "from dist_trainer.launcher import launcher_name; print(launcher_name())"
    shown = {}
    for depth, command in enumerate([[sys.executable, "-c", program], ["bash", "-c", f'"$0" -c "{program}"; true']]):
        environment = os.environ | {"TORCHELASTIC_RUN_ID": "none"}
        arguments = command if depth == 0 else [*command, sys.executable]
        shown[depth] = subprocess.run(arguments, env=environment, capture_output=True, text=True).stdout.strip()
    assert shown[0] == shown[1] == launcher.process_name(os.getpid())
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launcher.launcher_name() is None


def test_restarted_learners_go_on(tmp_path: Path, torchrun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, checkpoints=(3, 5))
    command = [*SMALL, f"run_dir={tmp_path}"]
    with pytest.raises(ConfigError, match="holds a run already"):
        plan_train(command, 1)
    begun_by(tmp_path, torchrun, monkeypatch)
    assert plan_train(command, 1).resume_from == checkpoint_path(tmp_path, 5)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # from the same shell, but not by torchrun
    with pytest.raises(ConfigError, match="holds a run already"):
        plan_train(command, 1)


def test_restarted_learners_find_a_folder_named_by_time(
    tmp_path: Path, torchrun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, lock = claim(plan_train(SMALL, 1))
    lock.close()
    run_dir = Path(first.config.run_dir or "")
    assert plan_train(SMALL, 1).config.run_dir is None  # in this process: not a restart, but another run
    begun_by(run_dir, torchrun, monkeypatch)
    again = plan_train(SMALL, 1)
    assert (again.config.run_dir, again.resume_from) == (str(run_dir), None)
    begin(run_dir, checkpoints=(2,))
    assert plan_train(SMALL, 1).resume_from == checkpoint_path(run_dir, 2)
    assert plan_train(["env=tmaze", *SMALL[1:]], 1).config.run_dir is None


def test_restarted_learners_do_not_go_back_to_the_checkpoint_that_was_named(
    tmp_path: Path, torchrun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, checkpoints=(3, 5))
    named = checkpoint_path(tmp_path, 3)
    assert plan_train([f"resume={named}"], 1).resume_from == named
    begun_by(tmp_path, torchrun, monkeypatch)
    assert plan_train([f"resume={named}"], 1).resume_from == checkpoint_path(tmp_path, 5)
    remove_checkpoint(named)  # by then there may be newer ones only
    assert plan_train([f"resume={named}"], 1).resume_from == checkpoint_path(tmp_path, 5)

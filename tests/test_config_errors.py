"""A user's mistake ends the command at once, with status 2 and one line that names the field and what is valid."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from numbers import Rational
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from dist_trainer.checkpoint_file import MANIFEST, checkpoint_folder, list_checkpoints
from dist_trainer.config import TrainConfig
from dist_trainer.errors import ConfigError
from dist_trainer.plan import job_text, plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.target import make
from dist_trainer.verb_configs import EvaluateConfig

DEADLINE_S = 15.0  # generous: 0.3 to 3 s on an idle machine
SMALL = [
    "env=cartpole",
    "device=cpu",
    "torch_threads=1",
    "env_threads=1",
    "total_envs=16",
    "horizon=8",
    "ppo.minibatches=4",
    "policy.hidden_size=8",
    "total_env_steps=128",
    "normalize.warmup_steps=2",
]


def command(*arguments: str, deadline_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
    """`python -m dist_trainer ...` as a user runs it; killed if it does not end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "dist_trainer", *arguments],
        capture_output=True,
        text=True,
        timeout=deadline_s,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a checkpoint; tests leave it as it is."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    done = command("train", *SMALL, f"run_dir={run_dir}", deadline_s=60)
    assert done.returncode == 0, done.stderr
    return run_dir


def assert_refused(done: subprocess.CompletedProcess[str], field: str, *valid: str) -> None:
    """Status 2, nothing printed but one line on stderr that names the field and has these words on what is valid."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"dist_trainer: {field}="), lines[0]
    for words in valid:
        assert words in lines[0].split(": ", 2)[2], lines[0]


@pytest.mark.parametrize(
    ("settings", "field", "valid"),
    [
        (["env=breakot"], "env", ["did you mean breakout", "cartpole", "tmaze"]),
        (["env.name=solitaire"], "env.name", ["no such environment", "breakout", "cartpole"]),
        (["+env.params.gravity=9.8"], "env.params.gravity", ["max_steps"]),
        (["env.params.gravity=9.8"], "env.params.gravity", ["env.params.max_steps"]),
        (["env.params.max_steps=0"], "env.params.max_steps", ["1", "1000000"]),
        (["env.params.max_steps=many"], "env.params.max_steps", ["number"]),
        (["policy=transformer"], "policy", ["lstm", "mlp"]),
        (["policy.hidden_size=big"], "policy.hidden_size", ["128"]),
        (["policy.hidden_size=32.5"], "policy.hidden_size", ["whole number"]),
        (["optimizer=lion"], "optimizer", ["adamw", "muon", "psgd_kron"]),
        (["optimizer.learning_rate=0.1"], "optimizer.learning_rate", ["optimizer.lr"]),
        (["optimizer.lr=-1"], "optimizer.lr", ["at least 0"]),
        (["optimizer.lr=nan"], "optimizer.lr", ["at least 0"]),
        (["horizon=-3"], "horizon", ["at least 1"]),
        (["horizon=half"], "horizon", ["Integer"]),
        (["horizon=7.5"], "horizon", ["Integer"]),
        (["total_env_steps=nan"], "total_env_steps", ["at least 1"]),
        (["total_envs=100", "ppo.minibatches=16"], "total_envs", ["multiple of", "ppo.minibatches=16", "96 or 112"]),
        (["ppo.minibatches=0"], "ppo.minibatches", ["at least 1"]),
        (["ppo.gamma=1.01"], "ppo.gamma", ["from 0 to 1"]),
        (["ppo.advantage=mc"], "ppo.advantage", ["gae", "vtrace"]),
        (["ppo.gama=0.9"], "ppo.gama", ["did you mean ppo.gamma"]),
        (["total_steps=100"], "total_steps", ["did you mean total_env_steps"]),
        (["horizon.x=1"], "horizon.x", ["horizon is a single value"]),
        (["schedule.kind=step"], "schedule.kind", ["constant", "cosine", "linear"]),
        (["device=tpu"], "device", ["auto", "cpu", "cuda"]),
        (["dtype=float16"], "dtype", ["float32", "float64"]),
        (["checkpoint_minutes=0"], "checkpoint_minutes", ["above 0"]),
        (["~ppo.gamma"], "ppo.gamma", ["SETTING=VALUE"]),
        (["horizon=16,32"], "horizon", ["SETTING=VALUE"]),
        (["--gamma", "0.9"], "argument", ["SETTING=VALUE"]),
        (["policy.action_kinds=[discrete]", "env=probe_continuous"], "policy.action_kinds", ["continuous"]),
        (["resume=runs/no_such_run"], "resume", ["no such run folder or checkpoint"]),
        (["policy._target_=dist_trainer.policies.Missing", *SMALL], "policy._target_", ["import path of a class"]),
        (["optimizer._target_=heavyball.Missing", *SMALL], "optimizer._target_", ["import path of a class"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_mistake_in_a_setting(tmp_path: Path, settings: list[str], field: str, valid: list[str]) -> None:
    """And no run is left on disk."""
    run_dir = tmp_path / "run"
    where = [] if "resume" in settings[0] else [f"run_dir={run_dir}"]
    assert_refused(command("train", *settings, *where), field, *valid)
    assert not list(run_dir.glob("*.yaml"))


@pytest.mark.parametrize(
    ("arguments", "field", "valid"),
    [
        (["trian"], "verb", ["did you mean train"]),
        (["evaluate"], "checkpoint", ["required"]),
        (["evaluate", "checkpoint=runs/none"], "checkpoint", ["no such run folder or checkpoint"]),
        (["evaluate", "checkpoint=runs/none", "episodes=0"], "episodes", ["at least 1"]),
        (["evaluate", "checkpoint=runs/none", "episode=5"], "episode", ["did you mean episodes"]),
    ],
)
def test_mistake_in_another_command(arguments: list[str], field: str, valid: list[str]) -> None:
    assert_refused(command(*arguments), field, *valid)


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("in the way")
    return folder / "file" / "run"


def below_proc(_: Path) -> Path:
    return Path("/proc/run")


@pytest.mark.parametrize("place", [below_a_file, below_proc])
def test_run_folder_that_cannot_be_made(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """Root's permission bits allow both; the file system does not."""
    assert_refused(command("train", *SMALL, f"run_dir={place(tmp_path)}"), "run_dir", "cannot be")


def test_run_folder_that_holds_a_run(finished_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    done = command("train", *SMALL, f"run_dir={finished_run}")
    assert_refused(done, "run_dir", "holds a run already", f"resume={finished_run}")
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


@pytest.mark.parametrize(
    "setting", ["horizon=16", "total_envs=32", "seed=2", "env=tmaze", "policy.hidden_size=16", "dtype=float64"]
)
def test_resume_as_another_run(finished_run: Path, setting: str) -> None:
    """What is in the checkpoint cannot be asked for anew."""
    done = command("train", f"resume={finished_run}", setting)
    assert_refused(done, setting.split("=")[0], "cannot change when a run is resumed")


def test_resume_with_a_mistake_in_what_may_change(finished_run: Path) -> None:
    assert_refused(command("train", f"resume={finished_run}", "ppo.gamma=2"), "ppo.gamma", "from 0 to 1")
    assert_refused(command("train", f"resume={finished_run}", "log_evry=2"), "log_evry", "did you mean log_every")


@pytest.mark.parametrize("verb", ["train resume", "evaluate checkpoint"])
def test_damaged_checkpoints(finished_run: Path, tmp_path: Path, verb: str) -> None:
    """Missing, cut off, altered, empty."""
    arguments = verb.split()
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "config.yaml").write_bytes((finished_run / "config.yaml").read_bytes())
    wanted = [arguments[0], f"{arguments[1]}={run_dir}"]
    assert_refused(command(*wanted), arguments[1], "holds no checkpoint")

    copy = checkpoint_folder(run_dir) / "iteration_00000001.ckpt"
    shutil.copytree(list_checkpoints(finished_run)[-1], copy)
    shard = next(path for path in copy.iterdir() if path.name != MANIFEST)
    whole = shard.read_bytes()
    altered = bytearray(whole)
    altered[-1000] ^= 1
    for content, what in ((whole[:-1000], "cut off"), (altered, "checksum"), (b"", "cut off")):
        shard.write_bytes(content)
        assert_refused(command(*wanted), arguments[1], what)


@pytest.mark.parametrize(
    ("settings", "field", "late"),
    [
        (["ppo.gamma=1.5"], "ppo.gamma", "none"),
        (["ppo.gamma=1.5"], "ppo.gamma", "0"),
        (["total_envs=20", "ppo.minibatches=4"], "total_envs", "1"),
        (["policy._target_=dist_trainer.policies.Missing"], "policy._target_", "none"),
    ],
)
def test_mistake_under_torchrun(tmp_path: Path, settings: list[str], field: str, late: str) -> None:
    """Two learners end by themselves and say it once, whichever of them is late; torchrun adds a summary of its own."""
    hook = f"import os, time\nif os.environ.get('RANK') == '{late}': time.sleep(1.5)\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dist_trainer", "train"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *SMALL, *settings, f"run_dir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("dist_trainer: ")]
    assert len(ours) == 1, done.stderr
    assert ours[0].startswith(f"dist_trainer: {field}=")
    assert not re.search(r'File ".*/dist_trainer/', done.stderr), done.stderr
    assert not list((tmp_path / "run").glob("*.yaml"))


def test_mistake_of_one_learner_alone_is_told(tmp_path: Path) -> None:
    """Not only the first learner may say what is wrong: here the second alone sees a damaged machine."""
    hook = "import os\nif os.environ.get('RANK') == '1': os.environ['WORLD_SIZE'] = 'two'\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dist_trainer", "train"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *SMALL, f"run_dir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode != 0
    ours = [line for line in done.stderr.splitlines() if line.startswith("dist_trainer: WORLD_SIZE=two")]
    assert len(ours) == 1, done.stderr


def test_help_names_the_verbs() -> None:
    for arguments in ([], ["--help"], ["help"], ["-h"]):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "train " in done.stdout
        assert "evaluate " in done.stdout


def settings_of(schema: Any, prefix: str = "") -> list[str]:
    """The names of all settings, as they are written on the command line; groups of yaml files by their own name."""
    names = []
    types = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        nested = types[field.name]
        if dataclasses.is_dataclass(nested) and field.name != "env":
            names += settings_of(nested, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def test_train_help_names_every_setting() -> None:
    done = command("train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    names = settings_of(TrainConfig)
    assert {"horizon", "ppo.gamma", "schedule.kind", "normalize.clip", "policy", "optimizer"} <= set(names)
    for name in names:
        in_group = name in ("env", "policy", "optimizer")  # "env={breakout,...}"; else a line that begins with the name
        pattern = rf"^{name}=\{{" if in_group else rf"^  {re.escape(name)}\s"
        assert re.search(pattern, done.stdout, re.MULTILINE), f"{name} is not in the help"
    for choice in ("breakout", "cartpole", "lstm", "mlp", "muon", "psgd_kron"):
        assert choice in done.stdout


@pytest.mark.parametrize("arguments", ["--help", "train --help", "train --cfg job", "envs", "includes"])
def test_a_reader_who_has_had_enough(arguments: str) -> None:
    """As with `| head -1`: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "dist_trainer", *arguments.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_results_are_written_for_a_reader_who_has_had_enough(finished_run: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "dist_trainer", "evaluate", f"checkpoint={finished_run}", "episodes=2"]
    own = [f"json={tmp_path / 'score.json'}", "torch_threads=1", "env_threads=1"]
    done = subprocess.run([*words, *own], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / "score.json").read_text())["episodes"] == 2


def test_null_is_no_file(finished_run: Path) -> None:
    plan = plan_evaluate([f"checkpoint={finished_run}", "json=null", "library=null"])
    assert plan.config.json is None and plan.config.library is None
    assert plan_train(["env.library=null", "run_dir=null"], 1).config.env.library is None
    with pytest.raises(ConfigError, match="checkpoint=null: must have a value"):
        plan_evaluate(["checkpoint=null"])


def test_evaluate_help_names_every_setting() -> None:
    done = command("evaluate", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for field in dataclasses.fields(EvaluateConfig):
        assert re.search(rf"^  {field.name}\b", done.stdout, re.MULTILINE), f"{field.name} is not in the help"


def test_job_text_shows_the_resolved_configuration() -> None:
    """`--cfg job` prints every setting with the value that a run would have, and trains nothing."""
    done = command("train", "--cfg", "job", "env=tmaze", "optimizer=adamw", "ppo.gamma=0.9")
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: tmaze" in done.stdout
    assert "_target_: heavyball.AdamW" in done.stdout
    assert "  gamma: 0.9\n" in done.stdout
    for name in settings_of(TrainConfig):
        assert re.search(rf"^ *{name.rpartition('.')[2]}:", done.stdout, re.MULTILINE), f"{name} is not shown"


def test_parameters_of_the_environment_come_from_its_declaration() -> None:
    """Whether or not the yaml lists them; the resolved configuration lists them all."""
    params = plan_train(["env=breakout", "env.params.lives=3"], 1).config.env.params
    assert params == {"lives": 3, "frame_skip": 4, "max_steps": 20_000}
    assert plan_train(["env.name=tmaze", "env.params.corridor=9"], 1).config.env.params == {"corridor": 9}
    assert "    corridor: 20\n" in job_text("train", ["env=tmaze"])


TOO_MUCH = ["total_envs=1000000", "horizon=1000000", "ppo.minibatches=1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["env=breakout", "env.params.live=3"], r"env\.params\.live=3: .*did you mean env\.params\.lives\?"),
        (["env.params.max_steps=true"], r"env\.params\.max_steps=True: must be a number"),
        (["env.workers=process"], r"env\.workers=process: did you mean processes\? valid: processes, threads"),
        (["env.step_timeout_s=0"], r"env\.step_timeout_s=0\.0: must be from 0\.01 to 86400"),
        (["env.max_restarts=-1"], r"env\.max_restarts=-1: must be at least 0"),
        (["env.worker_memory_mb=0"], r"env\.worker_memory_mb=0: must be at least 1"),
        (["run_dir="], "run_dir=: must not be empty"),
        (["run_dir=a/${seed}"], "run_dir=.*must not contain"),
        (["resume="], "resume=: must not be empty"),
        (["policy.hidden_size=0"], r"policy\.hidden_size=0: must be at least 1"),
        (["policy.encoder_layers=-1"], r"policy\.encoder_layers=-1: must be at least 1"),
        (["optimizer.betas=[0.9]"], r"optimizer\.betas=.*the default is \[0\.9, 0\.99\]"),
        (["optimizer.betas=[a,b]"], r"optimizer\.betas=.*the default is \[0\.9, 0\.99\]"),
        (["optimizer.betas=0.9"], r"optimizer\.betas=.*the default is \[0\.9, 0\.99\]"),
        (
            ["optimizer=psgd_pro", "optimizer.precond_grad_accum=true", "optimizer.storage_dtype=bfloat16"],
            r"optimizer\.precond_grad_accum=True: needs storage_dtype=float32 in heavyball.PSGDPRO",
        ),
        (["optimizer=newton_psgd", "optimizer.newton_epsilon=abc"], r"newton_epsilon=abc: must be a number greater"),
        (["optimizer=newton_psgd", "optimizer.newton_product=foo"], r"newton_product=foo: .*valid: central, exact"),
        (
            ["optimizer=newton_psgd", "optimizer.newton_product=exact", "optimizer.newton_precision=bfloat16"],
            r"newton_precision=bfloat16: newton_product=exact is taken in float32",
        ),
        (["optimizer=psgd_lra", "optimizer.rank=1.5"], r"optimizer\.rank=1\.5: must be a whole number"),
        (["optimizer=psgd_kron", "optimizer.q_dtype=float64"], r"optimizer\.q_dtype=float64: needs dtype=float64"),
        (["optimizer=adamw", "precond_schedule.kind=cosine"], r"precond_schedule\.kind=cosine: .*no precond_lr"),
        (["schedule.kind=constant", "schedule.final=0.5"], r"schedule\.final=0\.5: a constant schedule has none"),
        (["optimizer.betas=null"], r"optimizer\.betas=None: must be a list"),
        (["optimizer.lstm_blocks=gate"], r"optimizer\.lstm_blocks=gate: did you mean gates\? valid: gates, whole"),
        (["optimizer.betas=[0.9,1.0]"], r"optimizer\.betas=\[0\.9, 1\.0\]: must be at least 0 and below 1"),
        (
            ["optimizer=adamw", "optimizer.groups.vectors.weight_decay=-1"],
            r"optimizer\.groups\.vectors\.weight_decay=-1: must be",
        ),
        (["optimizer=adamw", "optimizer.groups.vectors.lr=1"], r"optimizer\.groups\.vectors\.lr=1: no such setting"),
        (
            ["optimizer=psgd_kron", "optimizer.preconditioner_update_probability=0.5"],
            r"has settings of its own: optimizer\.preconditioner_update_probability\.initial",
        ),
        (
            ["optimizer=psgd_kron", "optimizer.preconditioner_update_probability.final=2"],
            r"optimizer\.preconditioner_update_probability\.final=2: must be from 0 to 1",
        ),
        (["optimizer.rate_estimate=adam"], r"optimizer\.rate_estimate=adam: .*valid: dadaptation, prodigy"),
        (["adaptive_rate.step=1"], r"adaptive_rate\.step=1\.0: must be above 1"),
        (["policy.activation=gelu"], r"policy\.activation=gelu: .*valid: relu, silu, tanh"),
        (["optimizer=sf_adamw", "optimizer.caution=true"], r"optimizer\.caution=True: no such setting"),
        (["optimizer.storage_dtype=int8"], r"optimizer\.storage_dtype=int8: .*bfloat16, float32, float64"),
        (["torch_threads=1025"], "torch_threads=1025: .*at most 1024"),
        (["env_threads=100000"], "env_threads=100000: .*at most 1024"),
        (["total_envs=99999999968"], "total_envs=99999999968: must be at most 2147483647"),
        (["horizon=1000000000"], "horizon=1000000000: with total_envs=1024 .*GiB; this machine has .*GiB"),
        (["normalize.warmup_steps=1000000000"], r"normalize\.warmup_steps=1000000000: with total_envs=1024 .*GiB"),
        (TOO_MUCH, "horizon=1000000: with total_envs=1000000 .*GiB"),
        (["env@x=tmaze"], "SETTING=VALUE"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistake_before_torch_is_imported(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_train(settings, 1)


@pytest.mark.parametrize("name", ["läufe", "a=b", "(a), [b] {c}", "$HOME", "a b", "null", "#1"])
def test_paths_are_taken_literally(finished_run: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert plan_train([f"run_dir={path}"], 1).config.run_dir == str(path)
    path.symlink_to(finished_run)
    assert plan_train([f"resume={path}"], 1).config.run_dir == str(path)
    assert plan_evaluate([f"checkpoint={path}", f"json={path}.json"]).config.json == f"{path}.json"


@pytest.mark.parametrize("arguments", [["--cfg", "job", "ppo.gamma=0.9"], ["ppo.gamma=0.9", "--cfg=job"]])
def test_job_text_in_any_position(arguments: list[str]) -> None:
    done = command("train", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  gamma: 0.9\n" in done.stdout


def test_job_text_of_what_cannot_run(finished_run: Path) -> None:
    assert_refused(command("train", "ppo.gamma=2", "--cfg", "job"), "ppo.gamma", "from 0 to 1")
    assert_refused(command("train", "--cfg", "hydra"), "--cfg", "must be job")
    assert "episodes: 7\n" in job_text("evaluate", [f"checkpoint={finished_run}", "episodes=7"])


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = command("train", "device=cuda", f"run_dir={tmp_path / 'run'}")
    assert_refused(done, "device", "learner 0 of this machine has no GPU", "device=cpu works")
    assert not list(tmp_path.iterdir())


def test_constructor_that_fails_is_one_line() -> None:
    """Whatever it raises."""
    with pytest.raises(ConfigError, match=r"policy=fractions\.Fraction: does not take the settings of policy\.\*"):
        make("policy", "fractions.Fraction", Rational, 1, 0)  # ZeroDivisionError


@pytest.mark.parametrize(
    "setting",
    [
        *("optimizer.weight_decay=0.1", "optimizer=adamw", "normalize.clip=5.0", "normalize.returns=false"),
        *("ppo.minibatches=2", "env.params.max_steps=9", "run_dir=elsewhere", "ppo={gamma: 0.9}"),
    ],
)
def test_resume_refuses_what_would_not_take_effect(finished_run: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot change when a run is resumed.*total_env_steps.*optimizer\.lr"):
        plan_train([f"resume={finished_run}", setting], 1)


def test_resume_with_what_may_change(finished_run: Path) -> None:
    resume = f"resume={finished_run}"
    changes = ["optimizer.lr=1", "ppo.gamma=0.9", "schedule.kind=linear", "total_env_steps=512", "log_every=3"]
    config = plan_train([resume, *changes], 1).config
    assert (config.optimizer["lr"], config.ppo.gamma, config.schedule.kind) == (1, 0.9, "linear")
    assert (config.total_env_steps, config.log_every, config.run_dir) == (512, 3, str(finished_run))
    with pytest.raises(ConfigError, match=r"optimizer\.lr=fast: must be a number"):
        plan_train([resume, "optimizer.lr=fast"], 1)


def test_evaluate_refuses_where_it_could_not_write(finished_run: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "none" / "score.json", Path("/proc/score.json"), tmp_path):
        with pytest.raises(ConfigError, match=f"json={re.escape(str(file))}: cannot be written"):
            plan_evaluate([f"checkpoint={finished_run}", f"json={file}"])
    plan_evaluate([f"checkpoint={finished_run}", f"json={tmp_path / 'score.json'}"])
    assert not (tmp_path / "score.json").exists()


def test_evaluate_elsewhere(finished_run: Path) -> None:
    """With other parameters of the environment, if they are such, and the policy fits."""
    run = f"checkpoint={finished_run}"
    assert plan_evaluate([run]).trained.env.params == {"max_steps": 500}
    assert plan_evaluate([run, "env.params.max_steps=9"]).trained.env.params == {"max_steps": 9}
    for setting, message in (
        ("env.params.max_steps=0", r"env\.params\.max_steps=0: must be a whole number from 1"),
        ("env.params.lives=3", r"env\.params\.lives=3: no such setting"),
        ("env.name=tmaze", r"env\.name=tmaze: no such setting"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_evaluate([run, setting])


def test_evaluate_under_a_launcher_plays_once(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    done = command("evaluate", f"checkpoint={finished_run}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_evaluate_tells_unfinished_from_below(finished_run: Path) -> None:
    settings = [f"checkpoint={finished_run}", "episodes=2", "max_steps=1", "torch_threads=1", "env_threads=1"]
    done = command("evaluate", *settings, "require_mean_return=-1", deadline_s=60)
    assert done.returncode == 1
    assert "counts only if every environment finishes" in done.stdout
    assert "below" not in done.stdout


def test_train_help_of_a_choice() -> None:
    done = command("train", "--help", "env=breakout", "optimizer=soap")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "params.lives: 5",
        "shampoo_beta",
        "precond_schedule.kind          constant | linear | cosine (default: c",
    ):
        assert words in done.stdout

"""Environments outside of the repository: made by new-env, built on their own, loaded as they are."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dist_trainer import _cpp_envs
from dist_trainer.config import EnvConfig
from dist_trainer.config_files import CONFIGS
from dist_trainer.envs import EnvPool, env_spec
from dist_trainer.errors import ConfigError
from dist_trainer.includes import compile_flags, headers_digest, include_dir
from dist_trainer.new_env import make_env
from dist_trainer.plan import plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.run_folder import write_run
from tests.checkpoint_files import write_checkpoint
from tests.test_worker_processes import children

ENVIRONMENT = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
SMALL = ["device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16", "horizon=8", "ppo.minibatches=4"]
SMALL += ["policy.hidden_size=8", "total_env_steps=256", "normalize.warmup_steps=0"]


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, env=ENVIRONMENT | environment
    )
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What new-env makes, built as it says. Its name is what a shell would trip over."""
    made = tmp_path_factory.mktemp("own") / "it's mine"
    told = run(sys.executable, "-m", "dist_trainer", "new-env", "own_walk", "--folder", made)
    assert f"--config-dir {shlex.quote(str(made))} env=own_walk" in told
    run("bash", made / "build.sh")
    return made


def config_of(folder: Path) -> EnvConfig:
    return EnvConfig("own_walk", library=str(folder / "own_walk.so"))


def test_its_own_tests_pass(folder: Path) -> None:
    assert "2 passed" in run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", folder)


def test_it_trains_under_torchrun_in_processes_and_goes_on(folder: Path, tmp_path: Path) -> None:
    train = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dist_trainer", "train"]
    own = ["--config-dir", str(folder), "env=own_walk", "env.workers=processes", "env.params.size=9"]
    run(sys.executable, *train, *own, *SMALL, f"run_dir={tmp_path / 'run'}")
    again = ["train", f"resume={tmp_path / 'run'}", "total_env_steps=512", f"env.library={folder / 'own_walk.so'}"]
    assert "512 steps" in run(sys.executable, "-m", "dist_trainer", *again)
    evaluate = ["evaluate", f"checkpoint={tmp_path / 'run'}", "episodes=5", f"library={folder / 'own_walk.so'}"]
    assert "success" in run(sys.executable, "-m", "dist_trainer", *evaluate)
    assert "own_walk" in run(sys.executable, "-m", "dist_trainer.envs", "--config-dir", folder)


def test_processes_and_threads_step_it_alike(folder: Path) -> None:
    config = config_of(folder)
    pools = [
        EnvPool(replace(config, workers=workers), num_envs=33, first_env=4, seed=9, threads=2)
        for workers in ("threads", "processes")
    ]
    for pool in pools:
        pool.reset()
    for _ in range(150):
        for pool in pools:
            pool.actions[:] = np.floor(3 * pool.noise)
            pool.send()
            pool.recv()
        assert pools[0].incoming.tobytes() == pools[1].incoming.tobytes()
    assert (pools[0].take_statistics() == pools[1].take_statistics()).all()
    assert not pools[1].take_faults()
    assert (pools[0].render(7) == pools[1].render(7)).all() and pools[0].render(7).shape == (80, 400, 3)


def step_for_long(pool: EnvPool) -> None:
    for _ in range(1000):
        pool.send()
        pool.recv()


def test_a_worker_that_starts_again_does_not_take_another_library(folder: Path) -> None:
    before = children()
    pool = EnvPool(replace(config_of(folder), workers="processes"), num_envs=8, first_env=0, seed=9, threads=1)
    pool.reset()
    [worker] = children() - before
    file = Path(str(config_of(folder).library))
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    try:
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"own_walk\.so: was built again, or is gone, since the run began"):
            step_for_long(pool)
        with pytest.raises(ConfigError, match="was built again since this process has loaded it"):
            env_spec(config_of(folder))
    finally:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


# --- What is no library that fits ------------------------------------------------------------------------------------


def build(folder: Path, source: str, *flags: str) -> Path:
    """Of C++ text, with none of dist_trainer's flags but those given."""
    (folder / "lib.cpp").write_text(source)
    run("g++", "-std=c++20", "-O0", "-shared", "-fPIC", folder / "lib.cpp", *flags, "-o", folder / "lib.so")
    return folder / "lib.so"


def pretender(abi: str) -> str:
    return (
        f'extern "C" const char* dist_trainer_abi() {{ return "{abi}"; }}\n'
        'extern "C" void* dist_trainer_registry() { __builtin_trap(); }\n'
    )


OTHERS: dict[str, Callable[[str], tuple[str, str]]] = {  # a text of theirs, and what is said of it
    "headers": lambda ours: (
        ours.replace(headers_digest(), "h0"),
        f"was built with headers=h0, here is .*{headers_digest()}",
    ),
    "standard library": lambda ours: (ours.replace("libstdc++", "libc++"), r"with standard library=libc\+\+"),
    "sizes": lambda ours: (ours.replace("sizes=8", "sizes=4"), "was built with sizes=4"),
    "more": lambda ours: (ours + "x=1;", "more than is here: x=1"),
    "less": lambda ours: (ours[: ours.index("sizes")], "was built with nothing, here is sizes"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_library_of_another_build_is_refused(what: str, tmp_path: Path) -> None:
    theirs, told = OTHERS[what](_cpp_envs.abi())
    assert theirs != _cpp_envs.abi()
    library = build(tmp_path, pretender(theirs))
    with pytest.raises(ConfigError, match=rf"env\.library={library}: .*{told}"):
        env_spec(EnvConfig("own_walk", library=str(library)))


def test_a_library_with_another_abi_is_refused(tmp_path: Path) -> None:
    make_env("other_walk", tmp_path)
    source = f'#include "{tmp_path}/other_walk.h"\n'
    library = build(tmp_path, source, "-D_GLIBCXX_USE_CXX11_ABI=0", *compile_flags(), "-O0")
    with pytest.raises(ConfigError, match=r"_GLIBCXX_USE_CXX11_ABI=0, here is .*=1: build it again"):
        env_spec(EnvConfig("other_walk", library=str(library)))


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    make_env("other_walk", tmp_path)
    source = f'#include "{tmp_path}/other_walk.h"\nREGISTER_ENV(dist_trainer::OtherWalk, "cartpole");\n'
    library = build(tmp_path, source, *compile_flags(), "-O0")
    with pytest.raises(ConfigError, match="has an environment cartpole, of which name there is another"):
        env_spec(EnvConfig("other_walk", library=str(library)))
    assert "other_walk" not in _cpp_envs.env_names()


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env\.library=.*/none\.so: no such file"):
        plan_train([*SMALL, f"env.library={tmp_path / 'none.so'}", "env.name=x"], 1)
    (tmp_path / "text.so").write_text("hello")
    with pytest.raises(ConfigError, match=r"cannot be loaded: .*text"):
        env_spec(EnvConfig("x", library=str(tmp_path / "text.so")))
    with pytest.raises(ConfigError, match="has no environments: compile it with the flags"):
        env_spec(EnvConfig("x", library=str(build(tmp_path, "int x;"))))


def test_the_module_was_built_from_these_headers() -> None:
    """What cmake and what includes.py take for the state of the headers is the same."""
    assert f"headers={headers_digest()};" in _cpp_envs.abi()
    assert (include_dir() / "library.h").exists()


# --- A run folder from a stranger ------------------------------------------------------------------------------------

EVIL = '#include <cstdio>\n__attribute__((constructor)) static void f() { fclose(fopen("%s", "w")); }\n'


def test_a_stranger_s_library_is_not_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "it ran"
    evil = build(tmp_path, EVIL % mark)
    write_run(plan_train([*SMALL, "env=cartpole"], 1).config, Path("run"), None)
    write_checkpoint(Path("run/checkpoints/iteration_00000001.ckpt"), b"x")
    text = Path("run/config.yaml").read_text()
    assert "library: null" in text
    Path("run/config.yaml").write_text(text.replace("library: null", f"library: {evil}"))
    commands: list[Callable[[], object]] = [
        lambda: plan_evaluate(["checkpoint=run"]),
        lambda: plan_train(["resume=run"], 1),
        lambda: plan_train([*SMALL, "env=cartpole", "resume=auto", "run_dir=run"], 1),
    ]
    for plan in commands:
        with pytest.raises(ConfigError, match=rf"env\.library={evil}: .*DIST_TRAINER_TRUST={evil}"):
            plan()
    # What is named instead is loaded, and what is named at all is trusted.
    named = plan_train(["resume=run", f"env.library={folder / 'own_walk.so'}"], 1)
    assert named.config.env.library == str(folder / "own_walk.so")
    monkeypatch.setenv(CONFIGS, str(folder))
    with pytest.raises(ConfigError, match="DIST_TRAINER_TRUST"):
        plan_train(["resume=run"], 1)
    assert not mark.exists()
    monkeypatch.setenv("DIST_TRAINER_TRUST", f"mine,{evil}")
    with pytest.raises(ConfigError, match="has no environments"):  # but its code ran
        plan_train(["resume=run"], 1)
    assert mark.exists()


def test_a_library_of_the_user_s_own_configs_is_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CONFIGS, str(folder))
    write_run(plan_train([*SMALL, "env=own_walk"], 1).config, Path("run"), None)
    write_checkpoint(Path("run/checkpoints/iteration_00000001.ckpt"), b"x")
    assert plan_train(["resume=run"], 1).config.env.library == str(folder / "own_walk.so")
    assert plan_train([*SMALL, "env=own_walk", "resume=auto", "run_dir=run"], 1).resume_from
    monkeypatch.delenv(CONFIGS)
    with pytest.raises(ConfigError, match="DIST_TRAINER_TRUST"):
        plan_train(["resume=run"], 1)


# --- new-env ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Walk", "2048", "a-b", "", "walk.h", "../walk"])
def test_names_that_cannot_be_one_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NAME=.*must be of small letters"):
        make_env(name, tmp_path)


@pytest.mark.parametrize("name", ["nan", "on", "null", "library", "rng", "canvas", "step_result", "pool"])
def test_names_that_mean_something_else_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="means something else in C"):
        make_env(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is an environment of that name"):
        make_env("tmaze", tmp_path)
    make_env("walk", tmp_path)
    with pytest.raises(ConfigError, match=r"has a file walk\.h already"):
        make_env("walk", tmp_path)

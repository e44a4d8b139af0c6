"""autotune: what it tries, what it chooses, and that a run with its file is the run that it measured."""

import dataclasses
from pathlib import Path

import pytest

from dist_trainer import autotune
from dist_trainer.autotune import Candidate, env_thread_candidates, group_candidates, learner_candidates, plan_autotune
from dist_trainer.cli import compose_train
from dist_trainer.config_files import config_dir
from dist_trainer.errors import ConfigError

SMALL = ["env=cartpole", "total_envs=48", "horizon=4", "ppo.minibatches=4", "policy.hidden_size=8", "device=cpu"]


def test_learners_divide_cores_and_environments() -> None:
    config = compose_train([*SMALL, "total_envs=48"])[0]
    found = learner_candidates(config, cores=12, gpus=0)
    assert [(c.learners, c.torch_threads) for c in found] == [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)]
    uneven = dataclasses.replace(config, total_envs=40)  # ten groups of a minibatch each: 1, 2, 5 or 10 learners
    assert [c.learners for c in learner_candidates(uneven, cores=12, gpus=0)] == [1, 2]
    assert [c.learners for c in learner_candidates(config, cores=12, gpus=3)] == [3]


def test_threads_and_groups_change_one_thing_at_a_time() -> None:
    best = Candidate(learners=2, torch_threads=8, env_threads=8, env_groups=1)
    assert [c.env_threads for c in env_thread_candidates(best, cores=16)] == [8, 1, 2, 4]
    assert len({dataclasses.replace(c, env_threads=8) for c in env_thread_candidates(best, cores=16)}) == 1
    config = compose_train([*SMALL, "total_envs=48"])[0]
    assert [c.env_groups for c in group_candidates(config, best)] == [1, 2, 4]
    assert [c.env_groups for c in group_candidates(dataclasses.replace(config, total_envs=20), best)] == [1, 2]


@pytest.mark.parametrize(("fastest", "lead", "chosen"), [(3, 1.5, 3), (0, 1.5, 0), (2, 1.01, 0)])
def test_the_fastest_is_chosen_unless_a_simpler_one_is_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: int, lead: float, chosen: int
) -> None:
    candidates = [Candidate(1, n, n, 1) for n in (1, 2, 3, 4)]
    speeds = {c: [100.0 * (lead if i == fastest else 1.0)] * 2 for i, c in enumerate(candidates)}
    monkeypatch.setattr(autotune, "measure", lambda candidate, plan: speeds[candidate])
    plan = plan_autotune([*SMALL, f"output={tmp_path / 'best.yaml'}"])
    assert autotune._best_of(plan, candidates, "threads") == (candidates[chosen], speeds[candidates[chosen]][0])


def test_a_run_is_measured_and_its_file_makes_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real trainer, two candidates. The file is valid beside configs/machine/default.yaml."""
    plan = plan_autotune([*SMALL, "iterations=2", f"output={tmp_path / 'best.yaml'}"])
    candidates = [Candidate(1, 1, 1, 1), Candidate(2, 1, 1, 1)]
    monkeypatch.setattr(autotune, "ROUNDS", 1)
    best, speed = autotune._best_of(plan, candidates, "learners")
    assert best in candidates and speed > 0
    autotune.write(plan, best, speed, autotune.train_command(best, plan))
    lines = plan.output.read_text().splitlines()
    assert lines[0] == (config_dir() / "machine" / "default.yaml").read_text().splitlines()[0] == "# @package _global_"
    settings = [line.replace(": ", "=") for line in lines if not line.startswith("#")]
    config = compose_train([*SMALL, *settings])[0]
    assert (config.torch_threads, config.env_threads, config.env_groups) == (1, 1, 1)
    assert f"| {best.learners} | 1 | 1 | 1 |" in capsys.readouterr().out


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    for arguments, field in (
        (["iterations=0"], "iterations"),
        ([f"output={tmp_path / 'no' / 'such' / 'folder.yaml'}"], "output"),
        (["run_dir=runs/mine"], "run_dir"),
        (["env=solitaire"], "env"),
        (["total_envs=7"], "total_envs"),
    ):
        with pytest.raises(ConfigError, match=f"^{field}="):
            plan_autotune([*SMALL, f"output={tmp_path / 'best.yaml'}", *arguments])


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    plan = plan_autotune([*SMALL, f"output={tmp_path / 'best.yaml'}"])
    with pytest.raises(autotune.RunFailed, match="total_envs=48"):
        autotune.measure(Candidate(learners=5, torch_threads=1, env_threads=1, env_groups=1), plan)

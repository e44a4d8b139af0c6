"""What a sweep tries: kinds of knobs, conditions, and what is said of a file that cannot work."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from dist_trainer.cli import parse
from dist_trainer.config_files import group_choices
from dist_trainer.errors import ConfigError
from dist_trainer.sweep_plan import as_argument, plan_sweep
from dist_trainer.sweep_space import Space, load_space, read_space

EVERY_KIND: dict[str, Any] = {
    "optimizer": {"choice": ["muon", "adamw", "psgd_kron"]},
    "optimizer.lr": [
        {"log": [0.003, 0.1], "when": {"optimizer": ["muon", "psgd_kron"]}},
        {"log": [1e-4, 2e-3], "when": {"optimizer": "adamw"}},
    ],
    "optimizer.precond_lr": {"float": [0.05, 0.5], "when": {"optimizer": "psgd_kron"}},
    "optimizer.betas": {"choice": [[0.9, 0.999], [0.95, 0.99]], "when": {"optimizer": "adamw"}},
    "ppo.gamma": {"near_one": [0.9, 0.999]},
    "ppo.update_epochs": {"int": [1, 4]},
    "horizon": {"power_of_two": [10, 100]},
    "overlap": "bool",
}


def samples(space: Space, count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_values_are_of_their_kind_and_only_where_their_condition_holds() -> None:
    found = samples(read_space(EVERY_KIND), 300)
    for values in found:
        low, high = {"adamw": (1e-4, 2e-3)}.get(values["optimizer"], (0.003, 0.1))
        assert low <= values["optimizer.lr"] <= high
        assert ("optimizer.precond_lr" in values) == (values["optimizer"] == "psgd_kron")
        assert ("optimizer.betas" in values) == (values["optimizer"] == "adamw")
        assert values["ppo.update_epochs"] in (1, 2, 3, 4) and type(values["ppo.update_epochs"]) is int
        assert values["horizon"] in (16, 32, 64)
        assert type(values["overlap"]) is bool
        assert 0.9 <= values["ppo.gamma"] <= 0.999
    assert {values["optimizer"] for values in found} == {"muon", "adamw", "psgd_kron"}
    assert {values["horizon"] for values in found} == {16, 32, 64}
    assert any(values.get("optimizer.betas") == [0.95, 0.99] for values in found)
    # Evenly in log(1 - gamma): half of them lie above 1 - sqrt(0.1 * 0.001).
    share = sum(values["ppo.gamma"] > 1 - math.sqrt(0.1 * 0.001) for values in found) / len(found)
    assert 0.4 < share < 0.6


def test_the_values_of_a_configuration_as_parameters_give_them_back() -> None:
    space = read_space(EVERY_KIND)
    base = {
        "optimizer": "adamw",
        "optimizer.lr": 1e-3,
        "optimizer.betas": [0.9, 0.999],
        "ppo.gamma": 0.99,
        "ppo.update_epochs": 1,
        "horizon": 64,
        "overlap": False,
        "ppo.clip": 0.2,
    }
    study = optuna.create_study()
    study.enqueue_trial(space.parameters_of(base))
    found = space.suggest(study.ask())
    assert found.pop("ppo.gamma") == pytest.approx(0.99)
    assert found == {name: value for name, value in base.items() if name not in ("ppo.clip", "ppo.gamma")}
    # A value outside of its range is left to the sampler.
    assert "optimizer.lr (optimizer=adamw)" not in space.parameters_of({**base, "optimizer.lr": 0.5})


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ({"ppo.gamma": {"float": [0.99, 0.9]}}, ["ppo.gamma", "[0.99, 0.9]", "LOW below HIGH"]),
        ({"ppo.gamma": {"float": [0.9]}}, ["ppo.gamma", "[LOW, HIGH]"]),
        ({"ppo.gamma": {"float": ["1e-4", 1]}}, ["ppo.gamma", "1.0e-4"]),
        ({"ppo.gamma": {"flaot": [0, 1]}}, ["flaot", "did you mean float"]),
        ({"ppo.gamma": {"near_one": [0.9, 1.0]}}, ["ppo.gamma", "below 1"]),
        ({"optimizer.lr": {"log": [0, 1]}}, ["optimizer.lr", "above 0"]),
        ({"horizon": {"power_of_two": [33, 63]}}, ["horizon", "no power of two", "32"]),
        ({"horizon": {"int": [1.5, 3]}}, ["horizon", "whole numbers"]),
        ({"horizon": {"choice": [1, 1]}}, ["horizon", "different"]),
        ({"horizon": {"int": [1, 3], "when": {"optimizer": "muon"}}}, ["when", "optimizer", "further up"]),
        (
            {"optimizer": {"choice": ["muon"]}, "horizon": {"int": [1, 3], "when": {"optimizer": "adamw"}}},
            ["horizon", "adamw", "muon"],
        ),
        ({"horizon": [{"int": [1, 3]}, {"int": [4, 5]}]}, ["horizon", "same condition"]),
        ({}, ["no knobs"]),
    ],
)
def test_a_space_that_cannot_be_sampled_is_refused(declared: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_space(declared)
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ({"ppo.gama": {"float": [0.9, 0.99]}}, ["ppo.gama", "did you mean ppo.gamma"]),
        ({"ppo.update_epochs": {"float": [1.0, 3.5]}}, ["ppo.update_epochs"]),
        ({"ppo.update_epochs": {"float": [1, 4]}}, ["ppo.update_epochs", "Integer"]),
        ({"horizon": {"log": [16, 128]}}, ["horizon", "Integer"]),
        ({"optimizer": {"int": [1, 3]}, "ppo.gama": "bool"}, ["optimizer", "must be a choice of files"]),
        ({"env": {"choice": ["cartpole", "breakout"]}}, ["env", "cannot be compared"]),
        ({"torch_threads": {"int": [1, 2]}}, ["torch_threads", "is no knob"]),
        ({"optimizer": {"choice": ["muon", "adamww"]}}, ["adamww", "did you mean adamw"]),
        # Of the optimizer that is chosen, not of the one that would be.
        ({"optimizer.precond_lr": {"float": [0.1, 0.2]}}, ["optimizer.precond_lr"]),
        ({"seed": {"int": [1, 3]}}, ["seed"]),
    ],
)
def test_a_knob_must_be_a_setting_of_this_training(declared: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump({"knobs": declared}))
    with pytest.raises(ConfigError) as error:
        plan_sweep(["env=cartpole", f"sweep.space={file}"])
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize("name", group_choices("sweep"))
def test_every_space_of_the_repository_can_be_swept(name: str) -> None:
    optimizer = ["optimizer=psgd_kron"] if name == "psgd" else []
    plan = plan_sweep(["env=cartpole", f"sweep.space={name}", "sweep.sampler=random", *optimizer])
    assert plan.space == load_space(name)[0]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("sweep.trails=3", ["sweep.trails", "did you mean sweep.trials"]),
        ("sweep.sampler=tpee", ["sweep.sampler", "did you mean tpe"]),
        ("sweep.sampler=cost", ["sweep.sampler", "total_env_steps"]),
        ("sweep.trials=0", ["sweep.trials", "at least 1"]),
        ("sweep.window=0", ["sweep.window"]),
        ("sweep.patience_s=1", ["sweep.patience_s"]),
        ("sweep.space=pp0", ["sweep.space=pp0", "did you mean ppo"]),
        ("run_dir=runs/x", ["run_dir", "sweep.folder"]),
        ("sweep.learners=3", ["total_envs"]),
    ],
)
def test_settings_of_a_sweep_are_checked_before_it_begins(setting: str, names: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        plan_sweep(["env=cartpole", setting])
    for name in names:
        assert name in str(error.value)


def test_values_survive_the_command_line() -> None:
    values = [1e-05, 3, True, None, "adamw", "it's a, {path}/x=1", [0.9, 0.999], 1.0, "1e-3", "true"]
    for value in values:
        [setting] = parse([as_argument("a.b", value)])
        assert setting.value == value and type(setting.value) is type(value)

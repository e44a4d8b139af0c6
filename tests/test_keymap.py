"""Keys of environments: what is meant by those that are down, and what a yaml may not say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dist_trainer.action_names import choice_names, dials, options
from dist_trainer.cli import load_env_config
from dist_trainer.config import EnvConfig, ViewConfig
from dist_trainer.config_files import group_files
from dist_trainer.envs import EnvSpec, env_spec
from dist_trainer.errors import ConfigError
from dist_trainer.keymap import make_keymap

FLAPS = env_spec(EnvConfig(name="quadrotors"))  # two numbers in [-1, 1]
THREE = env_spec(EnvConfig(name="pong"))  # three choices
PAIR = env_spec(EnvConfig(name="probe_masks"))  # of five and of three
CATALOGUE = [name for name in group_files("env") if not name.startswith(("probe_", "gymnasium", "envpool"))]
PRICES = {f"{price} gold" for price in (2, 4, 5, 6, 7)}  # a person sells for 3, buys for up to 8


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_environment_can_be_played(name: str) -> None:
    config = load_env_config(name)
    spec = env_spec(config)
    keymap = make_keymap(config.view, spec)
    assert keymap.entries and spec.picture
    assert config.view.turn_based == (keymap.idle is None)
    if spec.action_kind != "continuous":
        reached = {keymap.action(sorted(entry.keys)) for entry in keymap.entries} | {keymap.idle}
        for index, named in enumerate(choice_names(config.view, spec)):
            chosen = {action[index] for action in reached if action is not None}
            missing = {name for choice, name in enumerate(named) if choice not in chosen}
            assert missing <= {"wait"} | PRICES and not any(name.isdigit() for name in named)


def test_of_choices_the_last_key_counts() -> None:
    keymap = make_keymap(ViewConfig(keys={"up": 1, "down": 2}, idle=0), THREE)
    assert keymap.action([]) == (0,)
    assert keymap.action(["up"]) == (1,)
    assert keymap.action(["up", "down"]) == (2,) and keymap.action(["down", "up"]) == (1,)
    assert keymap.action(["x"]) == (0,)


def test_keys_held_together_mean_something_else() -> None:
    keymap = make_keymap(ViewConfig(keys={"1": 1, "q+1": 2}, turn_based=True), THREE)
    assert keymap.action([]) is None and keymap.action(["q"]) is None
    assert keymap.action(["1"]) == (1,) and keymap.action(["q", "1"]) == (2,) and keymap.action(["1", "q"]) == (2,)
    assert keymap.names == {"1", "q"}


def test_without_a_key_the_action_before() -> None:
    keymap = make_keymap(ViewConfig(keys={"up": 1, "down": 2}, idle="last"), THREE)
    assert keymap.action([]) == (0,) and keymap.action([], (2,)) == (2,) and keymap.action(["up"], (2,)) == (1,)


def test_components_one_by_one() -> None:
    view = ViewConfig(keys={"a": [4, None], "b": [None, 2], "c": [1, 1]}, idle=[0, 0])
    keymap = make_keymap(view, PAIR)
    assert keymap.action(["a"]) == (4, 0) and keymap.action(["a", "b"]) == (4, 2)
    assert keymap.action(["c", "b"]) == (1, 2) and keymap.action(["b", "c"]) == (1, 1)
    waiting = make_keymap(replace(view, idle=None, turn_based=True), PAIR)
    assert waiting.action(["a"]) is None and waiting.action(["a", "b"]) == (4, 2)


def test_numbers_add_up_and_are_clipped() -> None:
    keymap = make_keymap(ViewConfig(keys={"up": [0.75, 0.75], "left": [-0.5, 0.5]}, idle=[0.125, 0]), FLAPS)
    assert keymap.action([]) == (0.125, 0)
    assert keymap.action(["left"]) == (-0.375, 0.5) and keymap.action(["up", "left"]) == (0.375, 1)


@pytest.mark.parametrize(
    ("spec", "view", "field", "valid"),
    [
        (THREE, {"keys": {"lefft": 1}, "idle": 0}, "env.view.keys.lefft", "did you mean left"),
        (THREE, {"keys": {"space": 1}, "idle": 0}, "env.view.keys.space", "key of the window itself"),
        (THREE, {"keys": {"q+tab": 1}, "idle": 0}, "env.view.keys.q+tab", "key of the window itself"),
        (THREE, {"keys": {"up": 3}, "idle": 0}, "env.view.keys.up", "0 to 2"),
        (THREE, {"keys": {"up": 0.5}, "idle": 0}, "env.view.keys.up", "0 to 2"),
        (THREE, {"keys": {"up": "right"}, "idle": 0}, "env.view.keys.up", "must be a number"),
        (THREE, {"keys": {"up": True}, "idle": 0}, "env.view.keys.up", "must be a number"),
        (THREE, {"keys": {"up": 1}}, "env.view.idle", "required"),
        (THREE, {"keys": {"up": 1}, "idle": 7}, "env.view.idle", "0 to 2"),
        (THREE, {"keys": {"a+b": 1, "b+a": 2}, "idle": 0}, "env.view.keys", "twice"),
        (PAIR, {"keys": {"up": 1}, "idle": [0, 0]}, "env.view.keys.up", "a list of 2 numbers"),
        (PAIR, {"keys": {"up": [1, 0]}, "idle": [None, 0]}, "env.view.idle", "a list of 2 numbers"),
        (FLAPS, {"keys": {"up": [1, 1]}, "idle": [0, 2]}, "env.view.idle", "from -1 to 1"),
    ],
)
def test_what_a_yaml_may_not_say(spec: EnvSpec, view: dict[str, Any], field: str, valid: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_keymap(ViewConfig(**view), spec)
    assert str(caught.value).startswith(f"{field}=") and valid in str(caught.value)


def test_probabilities_by_name() -> None:
    view = ViewConfig(actions=["stay", "up"])
    logits = np.log(np.array([0.2, 0.8, 1e-20]))
    (component,) = options(view, THREE, [1], logits, np.array([True, True, False]))
    assert [option.name for option in component] == ["stay", "up", "2"]
    assert [option.probability for option in component] == pytest.approx([0.2, 0.8, 0])
    assert [option.chosen for option in component] == [False, True, False]
    assert [option.legal for option in component] == [True, True, False]
    with pytest.raises(ConfigError, match=r"env\.view\.actions=.* must be 2 lists"):
        choice_names(view, PAIR)
    left, right = dials(ViewConfig(actions=["left"]), FLAPS, [2, 0.5], np.array([0.1, 0.2, 0.0, np.log(2)]))
    assert (left.name, right.name) == ("left", "number 1") and (left.chosen, right.chosen) == (1, 0.5)
    assert (left.mean, right.mean, left.std, right.std) == pytest.approx((0.1, 0.2, 1, 2))

"""What `--help` prints: every setting with its meaning and default, read from where they are declared."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Any

from dist_trainer import config, verb_configs
from dist_trainer.cli import GROUPS_WITH_TARGET, load_env_config
from dist_trainer.config_files import GROUPS, SPACES, config_dir, group_choices, group_file
from dist_trainer.envs import load_library
from dist_trainer.pools import default_params
from dist_trainer.sweep_space import KINDS_HELP, space_file

OVERVIEW = """\
dist_trainer: PPO with an LSTM on C++ environments, on any number of learners.

  python -m dist_trainer train    [SETTING=VALUE ...]   train an agent
  python -m dist_trainer evaluate checkpoint=RUN ...    play episodes with a trained agent, print its score
  python -m dist_trainer watch    checkpoint=RUN ...    a window in which it plays; keys pause, slow down, take over
  python -m dist_trainer play     env=NAME ...          play yourself; with checkpoint=RUN beside or against its agents
  python -m dist_trainer record   checkpoint=RUN output=NAME.gif ...   a video of it, GIF or MP4
  python -m dist_trainer compare  RUN RUN ...           curves and scores of several runs, as a table and a picture
  python -m dist_trainer sweep    [SETTING=VALUE ...]   find good settings: many trainings, by any number of workers
  python -m dist_trainer benchmark optimizers=[...] envs=[...] seeds=5   who is better, on a grid of trainings
  python -m dist_trainer autotune [SETTING=VALUE ...]   find this machine's best threads and number of learners
  python -m dist_trainer doctor   [SETTING=VALUE ...]   find what would break or slow down a training here
  python -m dist_trainer envs                           list the environments, their actions and scores
  python -m dist_trainer new-env NAME                   begin an environment of your own, outside of the repository

Several learners:   torchrun --standalone --nproc-per-node=8 -m dist_trainer train env=breakout
Continue a run:     python -m dist_trainer train resume=runs/NAME
... or begin it:    python -m dist_trainer train resume=auto run_dir=runs/NAME [SETTING=VALUE ...]
Show the settings:  python -m dist_trainer train --cfg job env=tmaze optimizer=adamw
Own yaml files:     python -m dist_trainer train --config-dir DIR env=NAME   (DIR/env/NAME.yaml)
A verb's settings:  python -m dist_trainer train --help
Those of a choice:  python -m dist_trainer train --help env=breakout optimizer=soap
"""


VIEWS: dict[str, tuple[str, Any]] = {
    "watch": ("checkpoint=RUN", verb_configs.WatchConfig()),
    "play": ("env=NAME | checkpoint=RUN", verb_configs.PlayConfig()),
    "record": ("checkpoint=RUN output=NAME.gif", verb_configs.RecordConfig()),
}

WINDOW_HELP = """\
Keys in the window (needs pip install 'dist_trainer[watch]'; without a screen SDL_VIDEODRIVER=dummy):
  space        pause             .        one step
  + -          faster, slower    s        sampled or most likely actions
  tab, click   another agent     o        what it observes
  left shift   while held, you decide for the selected agent, by the keys of env.view.keys
  t            the same until pressed again
  n            next environment  esc      quit
The keys of an environment: play --help env=NAME"""


def verb_help(verb: str, arguments: Sequence[str] = ()) -> str:
    """A verb's settings; of each of train's groups those of the file that the arguments choose."""
    if verb == "evaluate":
        usage = "python -m dist_trainer evaluate checkpoint=RUN [SETTING=VALUE ...]"
        elsewhere = "and env.params.*, for other levels or sizes than those of the training"
        return f"{usage}\n\n{_settings(verb_configs.EvaluateConfig())}\n\n{elsewhere}"
    if verb in VIEWS:
        usage, settings = VIEWS[verb]
        keys = "" if verb == "record" else f"\n\n{WINDOW_HELP}"
        given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        if "env" in given:
            keys += f"\n\nThose of {given['env']}:\n{group_file('env', given['env']).read_text()}".rstrip()
        elsewhere = "and env.params.*, env.view.* of the environment (configs/env)"
        return (
            f"python -m dist_trainer {verb} {usage} [SETTING=VALUE ...]\n\n{_settings(settings)}\n\n{elsewhere}{keys}"
        )
    if verb == "compare":
        usage = "python -m dist_trainer compare RUN [RUN ...] [SETTING=VALUE ...]"
        how = "Runs that differ in nothing but their seed are one curve, with a band from the worst seed to the best."
        return f"{usage}\n\n{how}\n\n{_settings(verb_configs.CompareConfig())}"
    if verb == "sweep":
        return _sweep_help(arguments)
    if verb == "benchmark":
        usage = "python -m dist_trainer benchmark [SETTING=VALUE ...]"
        how = "The same command, here or on another machine that sees the folder, joins, or goes on with what is left."
        status = "Exit status: 0: over; 3: some runs are left; 1: all have failed; 2: a mistake"
        return f"{usage}\n\n{how}\n\n{_settings(verb_configs.BenchmarkConfig())}\n\n{status}"
    if verb == "autotune":
        usage = "python -m dist_trainer autotune [SETTING=VALUE ...]"
        return f"{usage}\n\n{_settings(verb_configs.AutotuneConfig())}\n\nand those of the training (train --help)"
    if verb == "doctor":
        return f"python -m dist_trainer doctor [SETTING=VALUE ...]\n\n{_settings(verb_configs.DoctorConfig())}"
    if verb == "envs":
        return "python -m dist_trainer envs [--config-dir DIR]\n\nAll environments in one table; it has no settings."
    if verb == "includes":
        usage = "python -m dist_trainer includes | xargs g++ -include NAME.h -o NAME.so"
        return f"{usage}\n\nThe flags that environments of your own are compiled with."
    if verb == "new-env":
        return "python -m dist_trainer new-env NAME [--folder DIR]\n\nBegins an environment of your own."
    parts = ["python -m dist_trainer train [SETTING=VALUE ...]", _settings(config.TrainConfig())]
    parts += _nested(config.TrainConfig())
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    for group in GROUPS:
        choice = given.get(group, _default_choice(group))
        lines = group_file(group, choice).read_text().splitlines()
        if group == "env":
            lines += [f"params.{name}: {value} # default" for name, value in _params(choice).items()]
        indented = "".join(f"  {line}\n" for line in lines)
        title = f"{group}={{{','.join(group_choices(group))}}}: a file in configs/{group}; here {choice}"
        own = "" if group in ("machine", "tuned") else f", with its own {group}.*"
        parts.append(f"{title}{own}\n{indented}".rstrip())
    return "\n\n".join(parts)


def _sweep_help(arguments: Sequence[str]) -> str:
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    choice = given.get("sweep.space", verb_configs.SweepConfig.space)
    lines = space_file(choice).read_text().splitlines()
    parts = [
        "python -m dist_trainer sweep [SETTING=VALUE ...] [sweep.SETTING=VALUE ...]",
        "The same command, here or on another machine that sees the folder, joins a sweep, or goes on with it.",
        _settings(verb_configs.SweepConfig(), "sweep."),
        f"sweep.space={{{','.join(group_choices(SPACES))}}}: a file in configs/{SPACES}; here {choice}",
        "\n".join(f"  {line}" for line in lines),
        "\n".join(f"  {line}" for line in KINDS_HELP.splitlines()),
        "and those of the training (train --help). Exit status: 0: over; 3: stopped; 1: failed; 2: a mistake",
    ]
    return "\n\n".join(parts)


def _params(choice: str) -> dict[str, float]:
    config = load_env_config(choice)
    load_library(config.library)
    return default_params(config.name)


def _default_choice(group: str) -> str:
    found = re.search(rf"^  - {group}: (\w+)$", (config_dir() / "train.yaml").read_text(), re.MULTILINE)
    assert found, f"configs/train.yaml names no default for {group}"
    return found.group(1)


def _settings(values: Any, prefix: str = "") -> str:
    """Every plain field of a dataclass with the comment behind it and its default."""
    source = inspect.getsource(type(values))
    comments = dict(re.findall(r"^    (\w+): .*?# (.*)$", source, re.MULTILINE))
    lines = []
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if (isinstance(value, dict) and field.name in GROUPS_WITH_TARGET) or dataclasses.is_dataclass(value):
            continue
        default = "required" if value == "???" else f"default: {value}"
        meaning = f"{comments[field.name]} " if field.name in comments else ""
        lines.append(f"  {prefix + field.name:30} {meaning}({default})")
    return "\n".join(lines)


def _nested(values: Any) -> list[str]:
    """Summary and settings of each field that is itself a dataclass with plain fields."""
    nested = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return [
        f"{(part.__doc__ or '').splitlines()[0]}\n{_settings(part, f'{name}.')}"
        for name, part in nested.items()
        if dataclasses.is_dataclass(part) and name not in GROUPS
    ]

"""What `--help` prints: every setting with its meaning and default, read from where they are declared."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_type_hints

from dist_trainer import config
from dist_trainer.cli import GROUPS, config_dir, group_choices

OVERVIEW = """\
dist_trainer: PPO with an LSTM on C++ environments, on any number of learners.

  python -m dist_trainer train    [SETTING=VALUE ...]   train an agent
  python -m dist_trainer evaluate checkpoint=RUN ...    play episodes with a trained agent, print its score

Several learners:   torchrun --standalone --nproc-per-node=8 -m dist_trainer train env=breakout
Continue a run:     python -m dist_trainer train resume=runs/NAME
Show the settings:  python -m dist_trainer train --cfg job env=tmaze optimizer=adamw
A verb's settings:  python -m dist_trainer train --help
"""


def verb_help(verb: str) -> str:
    """The settings of `train` or `evaluate`."""
    if verb == "evaluate":
        return "python -m dist_trainer evaluate checkpoint=RUN [SETTING=VALUE ...]\n\n" + _settings(
            config.EvaluateConfig
        )
    parts = ["python -m dist_trainer train [SETTING=VALUE ...]", _settings(config.TrainConfig)]
    parts += [f"{name}\n{text}" for name, text in _nested(config.TrainConfig)]
    for group in GROUPS:
        default = (config_dir() / group / f"{_default_choice(group)}.yaml").read_text()
        indented = "".join(f"  {line}\n" for line in default.splitlines())
        chosen = f"{group}={{{','.join(group_choices(group))}}}: a file in configs/{group}; by default"
        parts.append(f"{chosen}\n{indented}".rstrip())
    return "\n\n".join(parts)


def _default_choice(group: str) -> str:
    found = re.search(rf"^  - {group}: (\w+)$", (config_dir() / "train.yaml").read_text(), re.MULTILINE)
    assert found, f"configs/train.yaml names no default for {group}"
    return found.group(1)


def _settings(schema: type, prefix: str = "") -> str:
    """Every plain field of a dataclass with the comment behind it and its default."""
    source = Path(config.__file__).read_text().split(f"\nclass {schema.__name__}:", 1)[1].split("\n@dataclass", 1)[0]
    comments = dict(re.findall(r"^    (\w+): .*?# (.*)$", source, re.MULTILINE))
    lines = []
    for field in dataclasses.fields(schema):
        if field.default is dataclasses.MISSING:
            continue
        default = "required" if field.default == "???" else f"default: {field.default}"
        meaning = f"{comments[field.name]} " if field.name in comments else ""
        lines.append(f"  {prefix + field.name:30} {meaning}({default})")
    return "\n".join(lines)


def _nested(schema: type) -> list[tuple[str, str]]:
    """(summary, settings) of each field that is itself a dataclass with plain fields."""
    types = get_type_hints(schema)
    nested = {name: types[name] for name in types if dataclasses.is_dataclass(types[name]) and name not in GROUPS}
    return [((kind.__doc__ or "").splitlines()[0], _settings(kind, f"{name}.")) for name, kind in nested.items()]

"""`python -m dist_trainer envs`: all environments, what their agents see and do, and what a good score is."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dist_trainer.cli import load_env_config
from dist_trainer.config import FOREIGN_ENVS
from dist_trainer.config_files import group_files, take_config_dirs
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError
from dist_trainer.pools import env_spec
from dist_trainer.scores import EnvScore, load_scores

FOR_TESTS = "probe_"  # what their names begin with
WIDE = 100  # columns of the terminal from which on nothing is left out


def comment_of(file: Path) -> str:
    """The lines with # at the top of a yaml."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def solved_means(comment: str) -> str:
    """What follows the word "solved" in its sentence."""
    found = re.search(r"\bsolved\b(?: means)?:? *(?:at )?(.*?)(?:\.(?= |$)|;|$)", comment, re.IGNORECASE)
    return found.group(1) if found else ""


def sees(spec: EnvSpec) -> str:
    shape = " x ".join(map(str, spec.observation_shape))
    return f"{shape} {'bytes' if spec.observation_is_bytes else 'floats'}"


def does(spec: EnvSpec) -> str:
    """Choices of each component, or the number of components and their bounds."""
    if spec.action_kind == "continuous":
        bounds = {*spec.action_low}, {*spec.action_high}
        low, high = (f"{min(ends):g}" if len(ends) == 1 else "..." for ends in bounds)
        return f"{spec.action_components} in [{low}, {high}]"
    return " x ".join(map(str, spec.action_sizes)) + " choices" + (", masked" if spec.has_legal else "")


def number(value: float) -> str:
    """Three digits, or all of a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def row(name: str, file: Path, score: EnvScore | None) -> dict[str, str]:
    """Cells by their headings."""
    spec = env_spec(load_env_config(name))
    return {
        "env=": name,
        "sees": sees(spec),
        "does": does(spec),
        "agents": str(spec.num_agents),
        "score": score.metric.removeprefix("episode_") if score else "",
        "random": number(score.random) if score else "",
        "reference": number(score.reference) if score else "",
        "solved at": solved_means(comment_of(file)),
    }


def narrow(cells: dict[str, str]) -> dict[str, str]:
    """In fewer columns: without the metric's name, words beside numbers, and what is in parentheses."""
    short = {heading: text for heading, text in cells.items() if heading != "score"}
    short["sees"] = cells["sees"].replace(" x ", "x").removesuffix("s")
    short["does"] = cells["does"].replace(" x ", "x").replace(" choices", "").replace(", masked", " mask")
    short["solved at"] = re.sub(r" *\(.*?\)", "", cells["solved at"]).partition(":")[0]
    return short


def table(rows: Sequence[dict[str, str]]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    styles = {"env=": "bold", "score": "dim", "reference": "green"}
    for heading in rows[0]:
        made.add_column(
            heading,
            justify="right" if heading in ("agents", "random", "reference") else "left",
            style=styles.get(heading, ""),
            no_wrap=heading != "solved at",
        )
    for cells in rows:
        made.add_row(*cells.values())
    return made


def show(console: Console) -> None:
    """Raises ConfigError if a yaml is wrong."""
    files, scores = group_files("env"), load_scores()
    listed = {name: file for name, file in files.items() if not name.startswith((FOR_TESTS, *FOREIGN_ENVS))}
    rows = [row(name, file, scores.get(name)) for name, file in listed.items()]
    console.print(table(rows if console.width >= WIDE else [narrow(cells) for cells in rows]))
    probes = ", ".join(name for name in files if name.startswith(FOR_TESTS))
    console.print(Text("Of other engines: env=gymnasium env.id=CartPole-v1, env=envpool env.id=Pong-v5"))
    console.print(Text(f"For tests: {probes}"))
    console.print(Text("Settings of one: python -m dist_trainer train --help env=NAME"))


def run(arguments: Sequence[str]) -> int:
    if arguments:
        raise ConfigError("argument", " ".join(arguments), "envs takes none but --config-dir DIR")
    show(Console())
    return 0


def main() -> int:
    """`python -m dist_trainer.envs`."""
    try:
        return run(take_config_dirs(sys.argv[1:]))
    except ConfigError as error:
        print(f"dist_trainer: {error}", file=sys.stderr)
        return 2

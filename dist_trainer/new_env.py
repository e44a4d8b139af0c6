"""`python -m dist_trainer new-env NAME`: an environment to begin with, its yaml, its test and what builds it."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from dist_trainer.config_files import group_files
from dist_trainer.envs import env_names
from dist_trainer.errors import ConfigError
from dist_trainer.includes import include_dir

TEMPLATES = Path(__file__).with_name("templates")
FILES = {  # templates, and what they become
    "env.h.in": "{name}.h",
    "env.yaml.in": "env/{name}.yaml",
    "test_env.py.in": "test_{name}.py",
    "build.sh.in": "build.sh",
}


# What a yaml, or a setting on a command line, reads as something other than a name.
NO_NAMES = {"null", "nan", "inf", "true", "false", "yes", "no", "on", "off", "y", "n"}


def names_of_headers() -> set[str]:
    """Those that would be included, or defined, twice: the headers' own, in small letters."""
    found = set()
    for header in include_dir().glob("*.h"):
        defined = re.findall(
            r"^(?:class|struct|enum(?: class)?|concept|using|namespace) (\w+)", header.read_text(), re.M
        )
        found |= {header.stem, *(word.lower() for word in defined)}
    return found


def make_env(name: str, folder: Path) -> list[Path]:
    """Writes the files; returns them. Raises ConfigError if the name cannot be one, or a file is there already."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError("NAME", name, "must be of small letters, digits and _, and begin with a letter")
    if name in NO_NAMES or name.replace("_", "") in {word.replace("_", "") for word in names_of_headers()}:
        raise ConfigError("NAME", name, "means something else in C++ or in a yaml; choose another")
    if name in env_names() or name in group_files("env"):
        raise ConfigError("NAME", name, "there is an environment of that name; choose another")
    words = {"@name@": name, "@Name@": "".join(word.capitalize() for word in name.split("_"))}
    made = {folder / to.format(name=name): (TEMPLATES / template).read_text() for template, to in FILES.items()}
    for path in made:
        if path.exists():
            raise ConfigError("--folder", folder, f"has a file {path.relative_to(folder)} already; name another")
    try:
        for path, text in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            for placeholder, word in words.items():
                text = text.replace(placeholder, word)
            path.write_text(text)
    except OSError as error:
        raise ConfigError("--folder", folder, f"cannot be written: {error.strerror}") from None
    return list(made)


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dist_trainer new-env", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="of small letters, digits and _")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="that will hold it; default: NAME")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(options.name)
    for path in make_env(options.name, folder):
        print(f"made {path}")
    where = shlex.quote(str(folder))
    print(f"""
build it   bash {shlex.quote(str(folder / "build.sh"))}
test it    python -m pytest {where}
train it   python -m dist_trainer train --config-dir {where} env={options.name} total_env_steps=3e5""")
    return 0

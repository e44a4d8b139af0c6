"""Writes cpp_envs/CATALOGUE.md: what every environment is, looks like, and what a good score is.

    python -m benchmarks.catalogue [--check]

Everything is read from where it is declared: configs/env/NAME.yaml, the C++ struct, dist_trainer/env_scores.json and
the reference players. Pictures are drawn by the environments themselves, after PLAYED random steps, into
benchmarks/pictures/envs/, and envs.png beside it shows all at a glance. `--check` writes nothing and fails if the text
on file is another.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.image
import matplotlib.pyplot as plt

from benchmarks.env_scores import RANDOM_EPISODES
from benchmarks.reference import uniform_player
from dist_trainer.cli import load_env_config
from dist_trainer.config import FOREIGN_ENVS, EnvConfig
from dist_trainer.config_files import group_files
from dist_trainer.env_list import FOR_TESTS, comment_of, does, number, sees
from dist_trainer.envs import EnvPool, EnvSpec, default_params
from dist_trainer.scores import EnvScore, load_scores

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = ROOT / "cpp_envs" / "CATALOGUE.md"
PICTURES = ROOT / "benchmarks" / "pictures" / "envs"
CURVES = ROOT / "benchmarks" / "pictures" / "curves"  # NAME.png, where there is one
SHEET = ROOT / "benchmarks" / "pictures" / "envs.png"
SHEET_COLUMNS = 5
PLAYED = 25  # steps

HEAD = """\
# The environments

Written by `python -m benchmarks.catalogue`; the short form is `python -m dist_trainer.envs`. A score's place between
the random player and the reference, `(x - random) / (reference - random)`, compares environments. Speed:
`bash benchmarks/envs.sh`. An environment of your own: [README.md](README.md).

![all of them](../benchmarks/pictures/envs.png)
"""


def draw(name: str, config: EnvConfig) -> Path | None:
    """The picture of one environment in the middle of a random episode, if it draws itself."""
    pool = EnvPool(config, num_envs=1, first_env=0, seed=3, threads=1)
    if not pool.spec.picture:
        return None
    pool.reset()
    choose = uniform_player(pool)
    seen = [pool.render(0)]
    while len(seen) <= PLAYED:
        pool.actions[:] = choose(pool)
        pool.send()
        pool.recv()
        if (pool.terminated | pool.truncated).all():
            del seen[1 + 2 * len(seen) // 3 :]  # not the beginning of the next episode, nor quite its end
            break
        seen.append(pool.render(0))
    PICTURES.mkdir(parents=True, exist_ok=True)
    file = PICTURES / f"{name}.png"
    matplotlib.image.imsave(file, seen[-1], metadata={"Software": ""})
    return file


def draw_sheet(pictures: Mapping[str, Path]) -> None:
    """All of them at a glance."""
    rows = math.ceil(len(pictures) / SHEET_COLUMNS)
    size = (2.2 * SHEET_COLUMNS, 2.0 * rows)
    figure, axes = plt.subplots(rows, SHEET_COLUMNS, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, file) in zip(axes.flat, pictures.items(), strict=False):
        axis.imshow(matplotlib.image.imread(file))
        axis.set_title(name, fontsize=9)
    figure.savefig(SHEET, dpi=110, metadata={"Software": ""})
    plt.close(figure)


def facts(spec: EnvSpec, config: EnvConfig, score: EnvScore | None) -> list[tuple[str, str]]:
    params = default_params(config.name) | config.params
    found = [
        ("observation", sees(spec)),
        ("action", f"{does(spec)} ({spec.action_kind.replace('_', '-')})"),
        ("agents", f"{spec.num_agents}{', which may die and come back' if spec.has_resting else ''}"),
        ("metrics", ", ".join(("episode_return", "episode_length", *spec.metrics))),
        ("`env.params.*`", ", ".join(f"{key}={value:g}" for key, value in params.items()) or "none"),
    ]
    if score:
        error = f" +- {number(score.random_error)} ({RANDOM_EPISODES} episodes)"
        found.append((f"random {score.metric}", f"{number(score.random)}{error}"))
        found.append((f"reference {score.metric}", f"{number(score.reference)} +- {number(score.reference_error)}"))
        found.append(("reference player", score.player))
    return found


def link(label: str, file: Path, prefix: str = "") -> str:
    return f"{prefix}[{label}](../{file.relative_to(ROOT)})"


def entry(name: str, file: Path, score: EnvScore | None, draws: bool) -> str:
    config = load_env_config(name)
    spec = EnvPool(config, num_envs=1, first_env=0, seed=3, threads=1).spec
    picture = draw(name, config) if draws else PICTURES / f"{name}.png" if spec.picture else None
    lines = [f"## {name}", "", comment_of(file), ""]
    shown = [("a picture of it", picture), ("learning curve", CURVES / f"{name}.png")]
    pictures = [link(label, path, "!") for label, path in shown if path and (path.exists() or path == picture)]
    lines += [" ".join(pictures), ""] if pictures else []
    lines += ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in facts(spec, config, score)), ""]
    sources = [
        ("rules", ROOT / "cpp_envs" / "envs" / f"{config.name}.h"),
        ("settings", file),
        ("check", ROOT / "tests" / f"test_{name}.py"),
        ("reference", ROOT / "benchmarks" / "reference" / f"{name}.py"),
    ]
    lines.append(", ".join(link(label, path) for label, path in sources if path.exists()))
    return "\n".join([*lines, "", f"    python -m dist_trainer train env={name}", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    files = {n: f for n, f in group_files("env").items() if not n.startswith((FOR_TESTS, *FOREIGN_ENVS))}
    scores = load_scores()
    entries = [entry(name, file, scores.get(name), draws=not check) for name, file in files.items()]
    text = "\n".join([HEAD, *entries])
    if check:
        return int(text != CATALOGUE.read_text())
    CATALOGUE.write_text(text)
    draw_sheet({name: PICTURES / f"{name}.png" for name in files if (PICTURES / f"{name}.png").exists()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

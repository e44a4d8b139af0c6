"""Random and reference scores of environments, measured through the pool: writes dist_trainer/env_scores.json.

    python -m benchmarks.env_scores [NAME ...] [--check]

NAME is a yaml of configs/env whose reference player is benchmarks/reference/NAME.py; without any, all players there.
Each plays one episode in each of as many environments: 1000 at random, 100 by the reference (a player's own `EPISODES`
goes before; its `PARAMS` are the environment's parameters for both). Seeds are fixed, so that the same code writes the
same file. `--check` writes nothing and fails if the file says something else by more than four standard errors.

A score's place between the two, normalized = (x - random) / (reference - random), compares environments.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks import reference
from benchmarks.reference import play_through_pool, uniform_player
from dist_trainer.scores import EnvScore, load_scores, write_scores

SEED = 12345  # as of `evaluate`
RANDOM_EPISODES, REFERENCE_EPISODES = 1000, 100


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Six digits of each: what is left differs between machines."""
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(f"{np.mean(values):.6g}"), float(f"{error:.6g}")


def measure(name: str) -> EnvScore:
    module = importlib.import_module(f"benchmarks.reference.{name}")
    metric = getattr(module, "METRIC", "episode_return")
    params = getattr(module, "PARAMS", {})
    at_random = play_through_pool(name, uniform_player, RANDOM_EPISODES, SEED, metric=metric, params=params)
    played = module.play(getattr(module, "EPISODES", REFERENCE_EPISODES), SEED)
    player = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
    return EnvScore(metric, *mean_and_error(at_random), *mean_and_error(played), player)


def differs(old: EnvScore, new: EnvScore) -> bool:
    """By more than chance: four standard errors of the difference, and a part in 10^5."""
    for name in ("random", "reference"):
        value, other = getattr(old, name), getattr(new, name)
        error = np.hypot(getattr(old, f"{name}_error"), getattr(new, f"{name}_error"))
        if abs(value - other) > 4 * error + 1e-5 * abs(value):
            return True
    return old.metric != new.metric


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    scores = load_scores()
    wrong = []
    for name in options.names or sorted(module.name for module in pkgutil.iter_modules(reference.__path__)):
        new = measure(name)
        print(
            f"{name}: {new.metric} {new.random:g} +- {new.random_error:.2g} at random, "
            f"{new.reference:g} +- {new.reference_error:.2g} by the reference",
            flush=True,
        )
        if options.check and (name not in scores or differs(scores[name], new)):
            wrong.append(name)
        elif not options.check:
            write_scores(load_scores() | {name: new})
    if wrong:
        print(f"dist_trainer/env_scores.json says something else of {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

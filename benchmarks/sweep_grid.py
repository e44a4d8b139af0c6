"""The truth for sweep_quality.py: CartPole trained for every learning rate and entropy coefficient of a grid.

    python -m benchmarks.sweep_grid                 writes benchmarks/sweep_grid.json; about 15 minutes on one core

The rate is constant, so that the first part of a training is a shorter one: the table has a third axis, the length.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_trainer.plan import plan_train
from dist_trainer.run_curves import read_curve
from dist_trainer.train import run

FILE = Path(__file__).with_suffix(".json")
RATES = [round(10 ** (exponent / 3), 8) for exponent in range(-12, 1)]  # 1e-4 to 1
ENTROPIES = [round(10 ** (exponent / 2), 8) for exponent in range(-6, 3)]  # 1e-3 to 10
STEPS = [5120 * number for number in range(1, 13)]  # to 61,440
SEEDS = 4
WINDOW = 0.2  # as sweep.window
SETTINGS = (
    *("env=cartpole", "policy=mlp", "policy.hidden_size=32", "optimizer=adamw", "schedule.kind=constant"),
    *("total_envs=32", "horizon=32", "ppo.minibatches=4", "ppo.update_epochs=2", "device=cpu"),
    *("torch_threads=1", "env_threads=1", f"total_env_steps={STEPS[-1]}"),
)
QUICK = (
    *("replay_minutes=0", "histograms_every=0", "diagnostics_every=0", "checkpoint_minutes=1e6", "check_every=0"),
    "keep_best=false",
)


@dataclass(frozen=True)
class Grid:
    """Mean returns (rates, entropies, seeds, steps), between whose points the logarithms are interpolated."""

    returns: NDArray[np.float64]

    def score(self, rate: float, entropy: float, steps: float, seed: int | None = None) -> float:
        """Of a training with this seed; None: the mean over all seeds, which is the truth."""
        table = self.returns.mean(2) if seed is None else self.returns[:, :, seed % SEEDS]
        places = [
            np.interp(np.log(value), np.log(axis), range(len(axis)))
            for value, axis in ((rate, RATES), (entropy, ENTROPIES), (steps, STEPS))
        ]
        found = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            index = tuple(
                min(int(place) + side, size - 1) for place, side, size in zip(places, corner, table.shape, strict=True)
            )
            shares = [1 - place % 1 if side == 0 else place % 1 for place, side in zip(places, corner, strict=True)]
            found += float(np.prod(shares)) * float(table[index])
        return found


def load_grid() -> Grid:
    rows = json.loads(FILE.read_text())["returns"]
    return Grid(np.array(rows).reshape(len(RATES), len(ENTROPIES), SEEDS, len(STEPS)))


def train_one(rate: float, entropy: float, seed: int) -> list[float]:
    """The score of the trainings of each length."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"optimizer.lr={rate}", f"ppo.entropy_coef={entropy}", f"seed={seed}", f"run_dir={folder}/run"]
        with contextlib.redirect_stdout(io.StringIO()):
            run(plan_train([*SETTINGS, *QUICK, *own], 1))
        curve = read_curve(Path(folder) / "run", {}, "episode_return")
    windows = ((curve.steps > (1 - WINDOW) * end) & (curve.steps <= end) for end in STEPS)
    return [round(float(curve.values[window].mean()), 1) if window.any() else 0.0 for window in windows]


def rows() -> Iterator[list[float]]:
    for rate, entropy in itertools.product(RATES, ENTROPIES):
        for seed in range(1, SEEDS + 1):
            yield train_one(rate, entropy, seed)
        print(f"{rate:.3g} {entropy:.3g}", flush=True)


def main() -> None:
    axes = {"rates": RATES, "entropies": ENTROPIES, "steps": STEPS, "settings": SETTINGS}
    lines = ",\n".join(json.dumps(row) for row in rows())
    FILE.write_text(f'{{"axes": {json.dumps(axes)},\n"returns": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()

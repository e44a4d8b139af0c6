"""Learning curves of run folders as one picture.

python -m benchmarks.curves OUTPUT.png TAG RUN [RUN ...]      for example TAG = env/score
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main() -> None:
    output, tag, *runs = sys.argv[1:]
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for run in runs:
        events = EventAccumulator(str(Path(run) / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        points = events.Scalars(tag)
        axes.plot([p.step / 1e6 for p in points], [p.value for p in points], label=Path(run).name)
    axes.set_xlabel("environment steps (millions, all learners)")
    axes.set_ylabel(tag)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(output, dpi=150)


if __name__ == "__main__":
    main()

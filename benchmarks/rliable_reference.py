"""Makes tests/rliable.json: what rliable says of some scores, which dist_trainer/statistics.py must say as well.

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install rliable==1.2.0 "pandas<3"
    /tmp/rliable/bin/python benchmarks/rliable_reference.py

In an environment of its own, for it pins older packages. Scores are drawn from distributions of many shapes, ties and
outliers among them; intervals are from 50,000 replications, so that they are known to about a hundredth of their width.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

FILE = Path(__file__).parents[1] / "tests" / "rliable.json"
REPLICATIONS = 50_000
THRESHOLDS = np.linspace(-0.5, 2, 26)


def scores() -> dict[str, np.ndarray]:
    """(runs, tasks) by algorithm."""
    draw = np.random.default_rng(11)
    return {
        "normal": draw.normal(0.6, 0.3, (5, 8)),
        "heavy": draw.standard_t(2, (7, 8)) * 0.2 + 0.5,
        "ties": np.round(draw.uniform(0, 1.2, (5, 8)), 1),
        "bimodal": np.where(draw.uniform(size=(10, 8)) < 0.4, 0.02, 1.0) + draw.normal(0, 0.01, (10, 8)),
    }


def main() -> None:
    given = {name: np.round(x, 6) for name, x in scores().items()}
    aggregates = {
        "iqm": metrics.aggregate_iqm,
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "optimality_gap": metrics.aggregate_optimality_gap,
    }
    content: dict[str, object] = {"rliable": "1.2.0", "scores": {name: x.tolist() for name, x in given.items()}}
    for label, aggregate in aggregates.items():
        points, intervals = library.get_interval_estimates(
            given, lambda x, f=aggregate: np.array([f(x)]), reps=REPLICATIONS
        )
        content[label] = {name: [float(points[name][0]), *intervals[name][:, 0].tolist()] for name in given}
    pairs = {f"{a},{b}": (given[a], given[b]) for a in given for b in given if a != b}
    points, intervals = library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=2000)
    content["probability_of_improvement"] = {
        pair: [float(points[pair]), *np.ravel(intervals[pair]).tolist()] for pair in pairs
    }
    profiles, bands = library.create_performance_profile(given, THRESHOLDS, reps=2000)
    content["thresholds"] = THRESHOLDS.tolist()
    content["performance_profile"] = {name: [profiles[name].tolist(), *bands[name].tolist()] for name in given}
    FILE.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()

"""Ten million random steps of agents in every environment: nothing fails, and every observation is in its bounds.

    python -m tests.ten_million [--steps 1e7] [NAME ...]

The bounds are compared here, by numpy, not by the pool's own check. Prints a line for each environment; exit status 1
if one fails. Minutes; CI has shorter ones.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np

from dist_trainer import _cpp_envs
from tests.pools import ALL, make_pool, step

ROWS = 4096


def play(name: str, steps: float) -> str:
    """What is wrong; empty if nothing."""
    spec = _cpp_envs.spec(name, {})
    pool = make_pool(name, num_envs=max(1, ROWS // spec.num_agents))
    low, high = (np.float64(bound) for bound in (spec.observation_low, spec.observation_high))
    episodes = 0.0
    rows = len(pool.buffers()["rewards"])
    for index in range(math.ceil(steps / rows)):
        buffers = step(name, pool)
        seen = [buffers["observations"], buffers["final_observations"][buffers["truncated"]]]
        if any(x.size and not (x.min() >= low and x.max() <= high) for x in seen):
            return f"step {index}: an observation is not from {low:g} to {high:g}"
        if not np.isfinite(buffers["rewards"]).all():
            return f"step {index}: a reward is not finite"
        if index % 100 == 0:
            episodes += pool.take_statistics()[0]
    statistics = pool.take_statistics()
    episodes += statistics[0]
    return "" if episodes > 0 and np.isfinite(statistics).all() else f"{episodes:.0f} episodes, {statistics}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=float, default=1e7)
    parser.add_argument("names", nargs="*", default=[name for name in ALL if name != "probe_faults"])
    options = parser.parse_args()
    failed = False
    for name in options.names:
        began = time.perf_counter()
        try:
            wrong = play(name, options.steps)
        except RuntimeError as error:
            wrong = str(error)
        failed |= bool(wrong)
        print(f"{name}: {wrong or 'ok'} ({time.perf_counter() - began:.0f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

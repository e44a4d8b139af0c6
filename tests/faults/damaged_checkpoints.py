"""Every truncation and thousands of random byte flips of a real checkpoint of two learners: none may be loaded.

    python -m tests.faults.damaged_checkpoints [--flips 1000] [--seed 1]

Each damaged copy is looked at as `resume=` does (verify) and as loading does (load_file), which must both refuse it
with a ConfigError; any other exception is a failure, as is a copy that passes. Manifest and shards are cut at every
byte. The short form is in tests/test_checkpoint_file.py.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import list_checkpoints, verify
from dist_trainer.errors import ConfigError
from tests.checkpoint_files import files_of, flips, truncations
from tests.test_resume import train

SETTINGS = [
    *("env=cartpole", "optimizer=psgd_kron", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16"),
    *("horizon=8", "ppo.minibatches=4", "policy.hidden_size=4", "total_env_steps=256", "diagnostics_every=0"),
]


def refused(checkpoint: Path) -> bool:
    """By both. Raises whatever is no ConfigError."""
    for look in (verify, load_file):
        try:
            look(checkpoint)
        except ConfigError:
            continue
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_dir, copy = Path(folder) / "run", Path(folder) / "copy"
        train(2, *SETTINGS, f"run_dir={run_dir}")
        checkpoint = list_checkpoints(run_dir)[-1]
        load_file(checkpoint)
        sizes = ", ".join(f"{path.name} {path.stat().st_size} bytes" for path in files_of(checkpoint))
        print(f"{checkpoint.name}: {sizes}", flush=True)
        damages = {
            "truncations": truncations(checkpoint, copy),
            "byte flips": flips(checkpoint, copy, options.flips, random.Random(options.seed)),
        }
        for kind, copies in damages.items():
            began, count = time.monotonic(), 0
            for what, damaged in copies:
                assert refused(damaged), f"accepted: {what}"
                count += 1
            print(f"{count} {kind}: all refused ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

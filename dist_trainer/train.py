"""The verb `train`: claims the run folder, joins the other learners, trains."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from dist_trainer.allocator import keep_freed_memory
from dist_trainer.checkpoint_file import set_aside_newer
from dist_trainer.cli import TrainPlan
from dist_trainer.distributed import connect, disconnect
from dist_trainer.run_folder import claim_new_run_folder, lock_run_folder
from dist_trainer.trainer import train


def run(plan: TrainPlan) -> int:
    """Exit status."""
    config, run_dir, lock = plan.config, Path(plan.config.run_dir or ""), None
    if os.environ.get("RANK", "0") == "0":  # before the others wait for this learner
        if plan.resume_from:
            lock = lock_run_folder(run_dir)
            set_aside_newer(plan.resume_from)
        else:
            run_dir, lock = claim_new_run_folder(config, *plan.default_name)
    keep_freed_memory()
    world = connect(config.device, config.collective_timeout_s)
    try:
        # The first learner decides: the time in a folder's name, and the newest checkpoint on a shared file system,
        # may differ between learners.
        run_dir, resume_from = world.broadcast((run_dir, plan.resume_from))
        train(dataclasses.replace(config, run_dir=str(run_dir)), world, run_dir, resume_from)
    finally:
        disconnect()
        if lock:
            lock.close()
    return 0

"""The verb `train`: joins the other learners, agrees on the run folder, trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dist_trainer.cli import TrainPlan
from dist_trainer.distributed import connect, disconnect
from dist_trainer.run_folder import default_run_dir
from dist_trainer.trainer import train


def run(plan: TrainPlan) -> int:
    """Exit status."""
    config = plan.config
    world = connect(config.device, config.collective_timeout_s)
    try:
        # The first learner names the folder: a time in it may differ between learners.
        run_dir = Path(world.broadcast(config.run_dir or default_run_dir(config, *plan.default_name)))
        config = dataclasses.replace(config, run_dir=str(run_dir))
        # Learners may see the newest checkpoint at different times on a shared file system: the first one decides.
        resume_from = world.broadcast(plan.resume_from)
        train(config, world, run_dir, resume_from)
    finally:
        disconnect()
    return 0

"""The verb `train`: claims the run folder, joins the other learners, trains."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TextIO

from dist_trainer.allocator import keep_freed_memory
from dist_trainer.checkpoint_file import list_checkpoints
from dist_trainer.checkpoint_search import find_checkpoint, set_aside_newer
from dist_trainer.distributed import connect, device_of_learner, disconnect
from dist_trainer.launcher import launcher_name
from dist_trainer.plan import TrainPlan, learner_is_first
from dist_trainer.run_folder import (
    LOCK_PATIENCE_S,
    claim_begun_run_folder,
    claim_new_run_folder,
    lock_run_folder,
    write_launchers,
)
from dist_trainer.trainer import train

OF_A_MACHINE = ("torch_threads", "env_threads", "env_groups")  # what machine= sets; machines may differ


def run(plan: TrainPlan) -> int:
    """Exit status."""
    device_of_learner(plan.config.device)  # no folder for a run that cannot begin
    lock = None
    if learner_is_first():  # before the others wait for this learner
        plan, lock = claim(plan)
    keep_freed_memory()
    world = connect(plan.config.device, plan.config.collective_timeout_s)
    try:
        # The first learner decides: the time in a folder's name, and what lies on a shared file system, may differ
        # between learners.
        own = {name: value for name in OF_A_MACHINE if (value := getattr(plan.config, name)) is not None}
        plan = world.broadcast(plan)
        config = dataclasses.replace(plan.config, **own)
        run_dir = Path(config.run_dir or "")
        launchers = world.gather_values(launcher_name())
        if launchers:
            note_launchers(plan, run_dir, launchers)
        train(config, world, run_dir, plan.resume_from)
    finally:
        disconnect()
        if lock:
            lock.close()
    return 0


def claim(plan: TrainPlan) -> tuple[TrainPlan, TextIO]:
    """Locks the run's folder, which the returned plan names; with the checkpoint that is newest by then."""
    folder, checkpoint = Path(plan.config.run_dir or ""), plan.resume_from
    if checkpoint:
        lock = lock_run_folder(folder, LOCK_PATIENCE_S if plan.goes_on else 0.0)
        if plan.goes_on and list_checkpoints(folder)[-1] != checkpoint:
            checkpoint = find_checkpoint(str(folder), "resume")
        set_aside_newer(checkpoint)
    elif plan.goes_on and folder.exists():
        lock = claim_begun_run_folder(folder)
    else:
        folder, lock = claim_new_run_folder(plan.config, *plan.default_name)
    note_launchers(plan, folder, [launcher_name()])
    config = dataclasses.replace(plan.config, run_dir=str(folder))
    return dataclasses.replace(plan, config=config, resume_from=checkpoint), lock


def note_launchers(plan: TrainPlan, run_dir: Path, launchers: list[str | None]) -> None:
    """Raises OSError if it cannot; not of a run that goes on: its disk may be full, and have space again later."""
    try:
        write_launchers(run_dir, launchers)
    except OSError as error:
        if not plan.resume_from:
            raise
        warnings.warn(f"{run_dir} goes on without a note of who started it: {error}", stacklevel=2)

"""Bad updates in a row: stop, or back to the last checkpoint and on at half the rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import checkpoint_path, list_checkpoints
from dist_trainer.cli import compose_train
from dist_trainer.distributed import World
from dist_trainer.errors import ConfigError
from dist_trainer.rollback import Rollbacks
from dist_trainer.trainer import TrainingDiverged, train
from dist_trainer.validation import check_settings
from tests.learners import learners_of_sizes
from tests.test_resume import assert_same_bits, state, written_points

ITERATIONS = 3
SETTINGS = [
    *("env=cartpole", "optimizer=adamw", "device=cpu", "torch_threads=1", "env_threads=1", "total_envs=16"),
    *("horizon=8", "ppo.minibatches=4", "policy.hidden_size=16"),
    *(f"total_env_steps={ITERATIONS * 128}", "schedule.kind=constant", "diagnostics_every=0", "max_bad_updates=2"),
]
ALONE = World(0, 1, 0, 1, torch.device("cpu"))
# AdamW moves every weight by about the rate at each of the 4 steps: at 2 they are too large after the first update.
TOO_LARGE = ["optimizer.lr=2", "max_weight=4"]


def run(world: World, run_dir: Path, *settings: str) -> str:
    """How it ended."""
    config = compose_train([*SETTINGS, f"run_dir={run_dir}", *settings])[0]
    try:
        train(config, world, run_dir, None)
    except TrainingDiverged as error:
        return str(error)
    return "done"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("overlap", ["false", "true"])
def test_after_rollbacks_it_is_the_run_at_the_lower_rate(optimizer: str, overlap: str, tmp_path: Path) -> None:
    """Bit for bit, for half of a rate is exact: nothing of what went wrong is left, in the state or in the curves."""
    same = [f"optimizer={optimizer}", f"overlap={overlap}", "max_weight=4"]
    rolled = tmp_path / "rolled"
    assert run(ALONE, rolled, *same, "optimizer.lr=2", "on_bad_updates=rollback", "max_rollbacks=9") == "done"
    factor = load_file(checkpoint_path(rolled, ITERATIONS))["rollback_factor"]
    assert factor in [0.5**count for count in range(1, 10)]
    whole = tmp_path / "whole"
    assert run(ALONE, whole, *same, f"optimizer.lr={2 * factor}") == "done"
    ours, theirs = (state(load_file(checkpoint_path(path, ITERATIONS))) for path in (rolled, whole))
    assert ours.pop("rollback_factor") < theirs.pop("rollback_factor") == 1.0
    assert_same_bits(ours, theirs)
    assert set(written_points(rolled).values()) == {1}
    assert written_points(rolled) == written_points(whole)


def run_with(world: World, run_dir: Path) -> tuple[str, str]:
    """Two runs of all learners: one that finishes, and one that may not go back often enough."""
    rolling = [*TOO_LARGE, "on_bad_updates=rollback"]
    return run(world, run_dir / "done", *rolling, "max_rollbacks=9"), run(
        world, run_dir / "not", *rolling, "max_rollbacks=1"
    )


def test_all_learners_go_back_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with learners_of_sizes([2]) as worlds:
        results = worlds[2].run(run_with, tmp_path)
    assert results[0] == results[1]
    assert results[0][0] == "done"
    assert results[0][1].startswith("2 updates in a row were not finite")
    alone = tmp_path / "alone"
    assert run(ALONE, alone, *TOO_LARGE, "on_bad_updates=rollback", "max_rollbacks=9") == "done"
    contents = [load_file(checkpoint_path(path, ITERATIONS)) for path in (tmp_path / "done", alone)]
    assert contents[0]["rollback_factor"] == contents[1]["rollback_factor"]
    told = capfd.readouterr().out
    assert "back to iteration 0, on at 0.5 of the rate (rollback 1)" in told


def test_it_stops_by_default_and_when_it_cannot_help(tmp_path: Path) -> None:
    assert run(ALONE, tmp_path / "stop", *TOO_LARGE).startswith("2 updates in a row")
    assert load_file(list_checkpoints(tmp_path / "stop")[-1])["iteration"] == 0
    hopeless = ["max_weight=1e-9", "on_bad_updates=rollback", "max_rollbacks=2"]
    assert run(ALONE, tmp_path / "hopeless", *hopeless).startswith("2 updates in a row")


def test_progress_allows_more() -> None:
    """Only in a row are they bounded; to fail again where it failed before is no progress."""
    rollbacks = Rollbacks(allowed=2)
    assert rollbacks.another(10)
    rollbacks.note_good_update(10)
    assert rollbacks.another(9)
    assert not rollbacks.another(8)
    rollbacks.note_good_update(11)
    assert rollbacks.another(12) and rollbacks.another(12) and not rollbacks.another(12)
    assert rollbacks.total == 4
    assert not Rollbacks(allowed=0).another(1)


def test_settings_are_checked() -> None:
    for setting, message in (
        ("on_bad_updates=skip", "on_bad_updates=skip: valid: .*rollback"),
        ("max_rollbacks=-1", "max_rollbacks=-1: must be at least 0"),
        ("max_weight=0", "max_weight=0.0: must be above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_settings(compose_train([*SETTINGS, setting])[0])

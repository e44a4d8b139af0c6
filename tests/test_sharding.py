"""Sharded optimizers do what replicated ones do, bit for bit; who owns what; drift, and how it is repaired.

Real learners run the real trainer on given gradients: what the reduced gradient of each optimizer step is depends on
the step's number alone. Everything after the reduction must then be the same for any number of learners.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from dist_trainer import curvature, optimizers, trainer, update
from dist_trainer.checkpoint import load_file
from dist_trainer.checkpoint_file import checkpoint_path, list_checkpoints
from dist_trainer.cli import compose_train
from dist_trainer.config import TrainConfig
from dist_trainer.distributed import World
from dist_trainer.envs import env_spec
from dist_trainer.errors import ConfigError
from dist_trainer.identical import LearnersDiffer
from dist_trainer.keyed import keyed_seed
from dist_trainer.learner import Learner, make_learner, make_policy, replicated_tensors
from dist_trainer.optimizers.sharding import assign_owners, unit_costs, unit_memory, unit_operations
from dist_trainer.optimizers.state import unit_tensors
from dist_trainer.optimizers.units import Unit
from dist_trainer.ppo import GradientBucket
from dist_trainer.rollout import Rollout
from dist_trainer.validation import validate_train
from tests.learners import Learners, learners_of_sizes

MINIBATCHES, ITERATIONS, RESUMED_AFTER = 5, 10, 5
BAD = 4  # the update that gets a gradient that is not finite, or before which a bit has flipped
SETTINGS = [
    *("device=cpu", "torch_threads=1", "env_threads=1", "env=cartpole", "env.params.max_steps=20", "policy=lstm"),
    *("policy.hidden_size=8", "total_envs=60", "horizon=4", f"ppo.minibatches={MINIBATCHES}", "check_every=1"),
    *("normalize.warmup_steps=4", f"total_env_steps={ITERATIONS * 60 * 4}", "log_every=100"),
    *(f"checkpoint_every={RESUMED_AFTER}", "keep_checkpoints=100"),
]
WHOLE = "optimizer.lstm_blocks=whole"  # fewer units, for speed
MARS = ("mars=true", "caution=true")
OPTIMIZERS = {
    "psgd_kron": [],
    "psgd_pro": [WHOLE],
    "soap": [WHOLE],
    "muon": [],
    "lather": [WHOLE, "optimizer.storage_dtype=bfloat16", "optimizer.q_dtype=bfloat16"],
    "newton_psgd": [WHOLE, "optimizer.newton_every=3"],
    "muon prodigy": [f"optimizer.{x}" for x in ("rate_estimate=prodigy", "lr=1", "rate_initial=1e-3", *MARS)],
}
ALONE, REPLICATED = "1 learner", "2 learners"
SHARDED = [f"{size} learners in groups of {group}" for size, group in ((2, 2), (3, 3), (4, 4), (4, 2))]
FOUR, TWOS = SHARDED[2:]
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their size in bytes

Digests = dict[str, str]  # of tensors, by name


def numbers(place: str) -> tuple[int, int]:
    """Of learners, and of those in a group that divides the units; 0: none does."""
    found = [int(number) for number in re.findall(r"\d", place)]
    return found[0], sum(found[1:])


@dataclass
class Seen:
    """By one learner, of a run."""

    before: list[Digests] = field(default_factory=list)  # each update
    after: list[Digests] = field(default_factory=list)  # each update
    undone: list[bool] = field(default_factory=list)
    unchanged: list[bool] = field(default_factory=list)  # everything that the optimizer remembers, by the update
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of state by unit, of those that have any state
    owned: list[str] = field(default_factory=list)  # units
    flipped: str = ""
    printed: str = ""
    error: str = ""

    @property
    def weights(self) -> list[Digests]:
        return [{name: text for name, text in one.items() if name.startswith("policy.")} for one in self.after]


def given(what: str, step: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(keyed_seed(0, what, step)))


def run(world: World, config: TrainConfig, run_dir: Path, resumed_at: int = 0, flip: str = "", rank: int = -1) -> Seen:
    """Trains on given gradients and Hessian-vector products, from the run's checkpoint of `resumed_at` if there is.

    On the learner `rank` a bit of a tensor flips, whose name matches `flip`; "nan" is a gradient that is not finite.
    """
    seen, steps, real_learn = Seen(), itertools.count(resumed_at * MINIBATCHES), update.learn

    def reduce(bucket: GradientBucket, _: World, __: torch.dtype | None) -> Tensor:
        step = next(steps)
        bucket.flat.copy_(given("gradient", step, bucket.flat))
        return bucket.flat.fill_(torch.nan) if flip == "nan" and step == BAD * MINIBATCHES + 2 else bucket.flat

    def product(_: Any, gradient: Callable[[], Tensor], __: Any, seed: int) -> tuple[Tensor, Tensor]:
        """The seed is keyed by the optimizer step. One learner has it all, so that the sum over them is exact."""
        like = gradient()
        vector = given("probe", seed, like)
        return vector, vector * given("curvature", 0, like) * world.is_first

    def learn(learner: Learner, rollout: Rollout) -> update.Update:
        seen.before.append({name: digest(tensor) for name, tensor in tensors_of(learner).items()})
        before = digest(optimizers.capture(learner.optimizer))
        result = real_learn(learner, rollout)
        seen.after.append({name: digest(tensor) for name, tensor in tensors_of(learner).items()})
        seen.undone.append(result.undone)
        seen.unchanged.append(before == digest(optimizers.capture(learner.optimizer)))
        units = learner.optimizer.units
        state = {unit.name: unit_tensors(unit).values() for unit in units if any(unit.inner.state.values())}
        seen.sizes = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in state.items()}
        seen.owned = [unit.name for unit in learner.optimizer.own_units]
        seen.flipped += flip_a_bit(learner, flip) if (learner.iteration, world.rank) == (BAD - 1, rank) else ""
        return result

    printed = io.StringIO()
    with (
        mock.patch.object(GradientBucket, "reduce", reduce),
        mock.patch.object(curvature, "finite_difference_product", product),
        mock.patch.object(trainer, "learn", learn),
        contextlib.redirect_stdout(printed),
    ):
        try:
            trainer.train(config, world, run_dir, checkpoint_path(run_dir, resumed_at) if resumed_at else None)
        except (LearnersDiffer, ConfigError) as error:
            seen.error = f"{type(error).__name__}: {error}"
    seen.printed = printed.getvalue()
    return seen


def tensors_of(learner: Learner) -> dict[str, Tensor]:
    return replicated_tensors(learner) | optimizers.named_tensors(learner.optimizer)


def digest(value: Any) -> str:
    """Of types, keys in any order, and every bit."""
    if isinstance(value, Tensor):
        raw = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
    if isinstance(value, dict):
        return str(sorted((str(key), digest(item)) for key, item in value.items()))
    return str([type(value), *map(digest, value)]) if isinstance(value, list | tuple) else repr(value)


def flip_a_bit(learner: Learner, pattern: str) -> str:
    """In place; returns the tensor's name."""
    tensors = {name: tensor for name, tensor in tensors_of(learner).items() if re.search(pattern, name)}
    name = list(tensors)[len(tensors) // 2]
    element = tensors[name].detach()[(-1,) * tensors[name].dim()]
    element.view(INTEGERS[element.element_size()]).bitwise_xor_(1)
    return name


class Runs:
    """Each is made once; what its learners have seen, by rank."""

    def __init__(self, worlds: dict[int, Learners], folder: Path):
        self.worlds, self.folder, self.done = worlds, folder, dict[tuple[str, str], list[Seen]]()

    def __call__(self, optimizer: str, place: str) -> list[Seen]:
        if (optimizer, place) not in self.done:
            self.done[optimizer, place] = self.start(optimizer, place, self.folder_of(optimizer, place))
        return self.done[optimizer, place]

    def folder_of(self, optimizer: str, place: str) -> Path:
        return self.folder / f"{optimizer} {place}"

    def start(self, optimizer: str, place: str, run_dir: Path, *arguments: Any, more: str = "") -> list[Seen]:
        size, group = numbers(place)
        settings = ["optimizer.sync=sharded"] if group else []  # by default all of a machine are a group
        settings += [f"optimizer.shard_group={group}"] if group and group < size else []
        settings += [f"optimizer={optimizer.split()[0]}", *OPTIMIZERS[optimizer], *more.split()]
        config = compose_train([*SETTINGS, *settings])[0]
        return self.worlds[size].run(run, config, run_dir, *arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with learners_of_sizes([1, 2, 3, 4]) as worlds:
        yield Runs(worlds, tmp_path_factory.mktemp("runs"))


def united(learners: list[Digests]) -> Digests:
    """Weights and optimizer state of all learners, who hold the same bits of whatever they hold in common."""
    found: Digests = {}
    for own in learners:
        assert all(found.get(name, text) == text for name, text in own.items())
        found |= own
    return {name: text for name, text in found.items() if name.startswith(("policy.", "optimizer/"))}


@pytest.mark.parametrize("place", [REPLICATED, *SHARDED])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_and_state_are_those_of_a_learner_alone(runs: Runs, optimizer: str, place: str) -> None:
    """Bit for bit, after every update of 50 steps, and all of them move."""
    (alone,), learners = runs(optimizer, ALONE), runs(optimizer, place)
    assert len(learners) == numbers(place)[0]
    for seen in learners:
        assert len(seen.after) == ITERATIONS and not any(seen.undone)
        assert seen.weights == alone.weights
    for index in range(ITERATIONS):
        assert united([seen.after[index] for seen in learners]) == united([alone.after[index]])
    start, end = alone.before[0], alone.weights[-1]
    assert end and all(start[name] != text for name, text in end.items())


def test_optimizers_differ(runs: Runs) -> None:
    """Without this, the test above would pass with gradients that nothing is made of."""
    ends = [runs(optimizer, ALONE)[0].weights[-1] for optimizer in OPTIMIZERS]
    for name in ends[0]:
        assert len({end[name] for end in ends}) == len(OPTIMIZERS)


@pytest.mark.parametrize("place", SHARDED)
@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap", "muon"])
def test_a_learner_keeps_its_share_of_the_state(runs: Runs, optimizer: str, place: str) -> None:
    (alone,), learners, group = runs(optimizer, ALONE), runs(optimizer, place), numbers(place)[1]
    share = sum(alone.sizes.values()) / group + max(alone.sizes.values())
    for seen in learners:
        assert set(seen.sizes) == set(seen.owned)  # of other units, nothing
        assert seen.sizes == {name: alone.sizes[name] for name in seen.owned}
        assert 0 < sum(seen.sizes.values()) <= share
    for first in range(0, len(learners), group):
        assert sorted(itertools.chain(*(seen.owned for seen in learners[first : first + group]))) == sorted(alone.owned)
    assert [seen.owned for seen in learners] == [seen.owned for seen in learners[:group]] * (len(learners) // group)


@pytest.mark.parametrize("learners", [1, 2, 3])
def test_owners_are_near_the_best(learners: int) -> None:
    """Of all ways to divide up to 7 units; at most 4/3 of the best for the slowest learner."""
    draw = random.Random(learners)
    for _ in range(40):
        costs = [draw.choice([1.0, 10.0, 100.0]) * draw.uniform(1, 3) for _ in range(draw.randint(1, 7))]

        def slowest(owners: tuple[int, ...], costs: list[float] = costs) -> float:
            return max(sum(c for c, of in zip(costs, owners, strict=True) if of == rank) for rank in range(learners))

        owners = assign_owners(costs, learners)
        assert owners == assign_owners(list(costs), learners)
        best = min(map(slowest, itertools.product(range(learners), repeat=len(costs))))
        assert best <= slowest(tuple(owners)) * (1 + 1e-12) <= best * 4 / 3
        assert len(set(owners)) == min(len(costs), learners)
    assert assign_owners([1.0, 5.0, 1.0, 5.0], 2) == [0, 0, 1, 1]  # the first of equals first
    assert assign_owners([], learners) == []


def unit_of(*shape: int) -> Unit:
    weights = [nn.Parameter(torch.zeros(shape))]
    return Unit("", weights, [slice(0)], torch.optim.SGD(weights), 1.0, None, 0.0)


def test_operations_grow_with_the_cubes_of_the_sides_and_state_with_their_squares() -> None:
    def operations(*shape: int) -> int:
        return unit_operations(unit_of(*shape))

    assert [operations(1), operations(7), operations(14)] == [1, 7, 14]
    assert operations(3, 5) == 15 + (15 * 3 + 3**3) + (15 * 5 + 5**3)
    assert operations(3, 5) == operations(5, 3) and operations(3, 5, 2) == operations(3, 10)
    assert operations(400, 800) == pytest.approx(8 * operations(200, 400), rel=0.01)
    assert unit_memory(unit_of(7)) == 7 and unit_memory(unit_of(3, 5)) == 15 + 9 + 25


def test_costs_are_shares_of_work_and_of_memory() -> None:
    units = [unit_of(30, 20), unit_of(10, 5), unit_of(40)]
    costs = unit_costs(units)
    assert sum(costs) == pytest.approx(2)
    for measure in (unit_operations, unit_memory):  # each counts
        assert all(cost > measure(unit) / sum(map(measure, units)) for cost, unit in zip(costs, units, strict=True))


@pytest.mark.parametrize("hidden", [128, 1120])
@pytest.mark.parametrize("learners", [2, 4, 8])
def test_work_and_memory_of_a_real_policy_are_both_balanced(hidden: int, learners: int) -> None:
    """Of either, nobody has more than an equal share and the largest unit."""
    settings = ["env=breakout", "policy=lstm", f"policy.hidden_size={hidden}", "optimizer=psgd_kron"]
    config = compose_train(settings)[0]
    policy = make_policy(config, env_spec(config.env), torch.device("cpu"))
    units = optimizers.make_optimizer(config.optimizer, policy).units
    owners = assign_owners(unit_costs(units), learners)
    for measure in (unit_operations, unit_memory):
        total, largest = sum(map(measure, units)), max(map(measure, units))
        loads = [sum(measure(u) for u, of in zip(units, owners, strict=True) if of == rank) for rank in range(learners)]
        assert max(loads) <= total / learners + largest


READERS = [(FOUR, reader) for reader in (ALONE, REPLICATED, SHARDED[0])]


@pytest.mark.parametrize(("writer", "reader"), [*READERS, (ALONE, FOUR)])
@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap", "muon prodigy"])
def test_checkpoints_resume_in_any_place(runs: Runs, tmp_path: Path, optimizer: str, writer: str, reader: str) -> None:
    (alone,) = runs(optimizer, ALONE)
    runs(optimizer, writer)
    shutil.copytree(runs.folder_of(optimizer, writer), tmp_path / "run")
    for seen in runs.start(optimizer, reader, tmp_path / "run", RESUMED_AFTER):
        assert seen.weights == alone.weights[RESUMED_AFTER:]


@pytest.mark.parametrize("optimizer", ["psgd_kron", "soap", "muon prodigy"])
def test_checkpoints_do_not_know_who_owned_what(runs: Runs, optimizer: str) -> None:
    contents = []
    for place in (ALONE, REPLICATED, *SHARDED):
        owned = {name for seen in runs(optimizer, place) for name in seen.owned}
        content = load_file(checkpoint_path(runs.folder_of(optimizer, place), RESUMED_AFTER))["optimizer"]
        assert content["units"].keys() == owned
        contents.append(digest(content))
    assert len(set(contents)) == 1


DRIFT = [  # place, rank, optimizer, what flips there, who is named
    ("3 learners", 1, "muon prodigy", "^policy", [1]),
    ("3 learners", 2, "muon prodigy", "^optimizer/.*/0/", [2]),
    ("3 learners", 1, "muon prodigy", "^optimizer/rate/[rs]", [1]),
    (SHARDED[1], 1, "muon prodigy", "^optimizer/rate/[rs]", [1]),
    (TWOS, 2, "muon prodigy", "^policy", [2]),
    (TWOS, 3, "muon prodigy", "previous_gradient", [3]),
    (TWOS, 3, "soap", "Q", [1, 3]),
]


@pytest.mark.parametrize(("place", "rank", "optimizer", "pattern", "named"), DRIFT)
def test_drift_is_found_or_repaired(
    runs: Runs, tmp_path: Path, place: str, rank: int, optimizer: str, pattern: str, named: list[int]
) -> None:
    """A bit on one learner: every learner stops, and says where; or all go on as if it had not been."""
    stopped = runs.start(optimizer, place, tmp_path / "stop", 0, pattern, rank)
    expected = f"different values of {stopped[rank].flipped} (1 of "
    for seen in stopped:
        assert expected in seen.error and seen.error.startswith("LearnersDiffer") and len(seen.after) == BAD
        assert seen.error.endswith(f"{' (there is none)' if len(named) == 2 else ''}: ranks {named}")

    (alone,) = runs(optimizer, ALONE)
    repaired = runs.start(optimizer, place, tmp_path / "resync", 0, pattern, rank, more="on_drift=resync")
    said = re.escape(expected) + ".*" + re.escape(f"ranks {named}; made equal again")
    assert re.search(f"iteration {BAD}: .*{said}", repaired[0].printed)
    for seen in repaired:
        assert len(seen.after) == ITERATIONS and not seen.error
        assert seen.weights == alone.weights
    for index in range(BAD, ITERATIONS):
        assert united([seen.before[index] for seen in repaired]) == united([alone.before[index]])


@pytest.mark.parametrize("on_drift", ["stop", "resync"])
@pytest.mark.parametrize(("every", "found_after"), [(1, BAD), (100, RESUMED_AFTER)])
@pytest.mark.parametrize(("optimizer", "place"), [("psgd_kron", SHARDED[1]), ("soap", SHARDED[0]), ("lather", FOUR)])
def test_a_bit_of_state_that_has_no_copy_is_found(
    runs: Runs, tmp_path: Path, optimizer: str, place: str, every: int, found_after: int, on_drift: str
) -> None:
    """At the next check, or before the next checkpoint: every learner stops and says where it was."""
    more = f"on_drift={on_drift} check_every={every}"
    stopped = runs.start(optimizer, place, tmp_path, 0, "^optimizer/.*(Q|GG|exp_avg)", 1, more=more)
    for seen in stopped:
        assert seen.error.startswith(f"LearnersDiffer: rank 1: {stopped[1].flipped} changed by itself")
        assert len(seen.after) == found_after


@pytest.mark.parametrize("on_drift", ["stop", "resync"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("optimizer", "place", "pattern"),
    [
        ("psgd_kron", SHARDED[0], "^policy"),
        ("muon prodigy", TWOS, "^policy"),
        ("muon prodigy", SHARDED[1], "previous_gradient"),
    ],
)
def test_a_bit_that_an_update_has_spread_is_found_where_it_was(
    runs: Runs, tmp_path: Path, optimizer: str, place: str, pattern: str, rank: int, on_drift: str
) -> None:
    """Owners hand their wrong weight on, the others' is overwritten: no comparison of learners could show it. No
    checkpoint holds what came of it, and nobody has the right value any more."""
    more = f"on_drift={on_drift} check_every=100 checkpoint_every=3"
    stopped = runs.start(optimizer, place, tmp_path, 0, pattern, rank, more=more)
    for seen in stopped:
        assert seen.error.startswith(f"LearnersDiffer: rank {rank}: {stopped[rank].flipped} changed by itself")
        assert len(seen.after) == 6  # updates; the first checkpoint after BAD
    assert load_file(list_checkpoints(tmp_path)[-1])["iteration"] == 3


@pytest.mark.parametrize(("optimizer", "place"), [("psgd_kron", FOUR), ("muon prodigy", TWOS)])
def test_an_undone_update_leaves_no_trace(runs: Runs, tmp_path: Path, optimizer: str, place: str) -> None:
    """Of a gradient that is not finite in the middle of the fifth update; the others go on."""
    for seen in runs.start(optimizer, place, tmp_path / "run", 0, "nan"):
        assert seen.undone == [index == BAD for index in range(ITERATIONS)]
        assert seen.unchanged == seen.undone
        assert seen.weights[BAD] == seen.weights[BAD - 1] != seen.weights[BAD + 1]


@pytest.mark.parametrize(("place", "size", "valid"), [(FOUR, 3, "1, 2, 4"), (SHARDED[1], 2, "1, 3")])
def test_groups_must_divide_the_learners(runs: Runs, tmp_path: Path, place: str, size: int, valid: str) -> None:
    for seen in runs.start("muon", place, tmp_path / "run", more=f"optimizer.shard_group={size}"):
        expected = f"must divide {numbers(place)[0]} learners; valid: {valid}"
        assert seen.error.endswith(f"optimizer.shard_group={size}: {expected}")


def group_of_machines(world: World, machines: list[int]) -> list[int]:
    """The ranks that this learner shares its optimizer with, on machines with so many learners each."""
    local = [size for size in machines for _ in range(size)]
    config = compose_train([*SETTINGS, "optimizer=muon", "optimizer.sync=sharded"])[0]
    shards = make_learner(config, replace(world, local_size=local[world.rank])).optimizer.shards
    assert shards
    return list(shards.group.members) or list(range(world.size))


@pytest.mark.parametrize(("machines", "size"), [([4], 4), ([2, 2], 2), ([3, 1], 1), ([1, 1, 1, 1], 1)])
def test_groups_stay_within_machines_of_any_sizes(runs: Runs, machines: list[int], size: int) -> None:
    for rank, members in enumerate(runs.worlds[4].run(group_of_machines, machines)):
        assert members == list(range(rank - rank % size, rank - rank % size + size))


def test_sync_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.sync=shared: .*did you mean sharded"):
        validate_train(compose_train([*SETTINGS, "optimizer=muon", "optimizer.sync=shared"])[0], 1)
    with pytest.raises(ConfigError, match=r"optimizer.sync.*no such setting"):
        compose_train([*SETTINGS, "optimizer=adamw", "optimizer.sync=sharded"])

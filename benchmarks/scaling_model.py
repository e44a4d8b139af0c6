"""The scaling model: what an iteration costs, from what its parts cost. Pure arithmetic; no torch.

An iteration is a rollout, an update of M minibatches, each with one all-reduce of the gradient and one optimizer step,
and a few small messages. A learner's phases are lines over its rows; a collective is a line over its bytes (alpha +
beta * bytes). Where more learners than cores share a machine their work is added up and divided by the cores.

Units: seconds and bytes. W learners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

FLOAT_BYTES = 4  # weights and gradients are float32


@dataclass(frozen=True)
class Line:
    """max(floor, fixed + each * x) seconds."""

    fixed: float
    each: float
    floor: float = 0.0

    def at(self, x: float) -> float:
        return max(self.floor, self.fixed + self.each * x)


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """The line through (x, seconds) with the least squares of relative errors; neither of its parts is negative.

    Relative: a message of 24 bytes counts as much as one of 4 MB.
    """
    s1 = sum(1 / y**2 for _, y in points)
    sx = sum(x / y**2 for x, y in points)
    sxx = sum(x * x / y**2 for x, y in points)
    t1, tx = sum(1 / y for _, y in points), sum(x / y for x, y in points)
    determinant = s1 * sxx - sx * sx
    if len({x for x, _ in points}) < 2:
        return Line(t1 / s1, 0.0)
    fixed, each = (t1 * sxx - tx * sx) / determinant, (s1 * tx - sx * t1) / determinant
    if fixed < 0:
        return Line(0.0, tx / sxx)
    if each < 0:
        return Line(t1 / s1, 0.0)
    return Line(fixed, each)


def worst_error(line: Line, points: Sequence[tuple[float, float]]) -> float:
    """The largest relative error of the line at the points it should go through."""
    return max(abs(line.at(x) - y) / y for x, y in points)


@dataclass(frozen=True)
class Phases:
    """One learner's work in an iteration. Lines over its rows."""

    environment: Line
    inference: Line
    learning: Line  # all minibatches, without optimizer steps
    units: tuple[float, ...]  # seconds of one step of each of the optimizer's units


def slowed(phases: Phases, factor: float) -> Phases:
    """Everything takes `factor` times as long."""

    def line(a: Line) -> Line:
        return Line(factor * a.fixed, factor * a.each, factor * a.floor)

    return Phases(
        line(phases.environment),
        line(phases.inference),
        line(phases.learning),
        tuple(factor * unit for unit in phases.units),
    )


def crowding(learners: int, cores: float) -> float:
    """Learners that take turns on a core."""
    return max(1.0, learners / cores)


@dataclass(frozen=True)
class Links:
    """Lines over bytes. `all_gather`: within a shard group, over the bytes of one learner's part."""

    all_reduce: Line
    all_gather: Line


def links_over_learners(measured: Mapping[int, Line]) -> tuple[Line, Line]:
    """From a collective's line at several W: alpha and beta as lines over W - 1, proportional to it if there is one."""
    if len(measured) == 1:
        ((w, line),) = measured.items()
        return Line(0.0, line.fixed / (w - 1)), Line(0.0, line.each / (w - 1))
    alpha = fit_line([(w - 1, max(line.fixed, 1e-9)) for w, line in measured.items()])
    beta = fit_line([(w - 1, max(line.each, 1e-15)) for w, line in measured.items()])
    return alpha, beta


@dataclass(frozen=True)
class Work:
    """What an iteration consists of. `owners`: of each unit; None if the optimizer is replicated."""

    minibatches: int
    parameters: int
    unit_numbers: tuple[int, ...]
    small_messages: tuple[int, ...]  # bytes of every other collective
    owners: tuple[int, ...] | None = None
    group: int = 1  # learners that share the units


@dataclass(frozen=True)
class Prediction:
    """Seconds of an iteration by what they are spent on."""

    environment: float
    inference: float
    stragglers: float  # waiting for the learner with the slowest rollout
    learning: float
    optimizer: float
    gradient_latency: float
    gradient_bandwidth: float
    weights_gather: float
    small_messages: float

    @property
    def terms(self) -> dict[str, float]:
        return asdict(self)

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())

    @property
    def limiting(self) -> str:
        return max(self.terms, key=self.terms.__getitem__)


def owner_loads(values: Sequence[float], owners: Sequence[int], group: int) -> list[float]:
    """What each learner of a group has of the units' values."""
    loads = [0.0] * group
    for value, owner in zip(values, owners, strict=True):
        loads[owner] += value
    return loads


def shared_seconds(loads: Sequence[float], cores: float) -> float:
    """Until the last of the learners with these loads is done, if those still at work share the cores evenly."""
    seconds, done = 0.0, 0.0
    for index, load in enumerate(sorted(loads)):
        seconds += (load - done) * crowding(len(loads) - index, cores)
        done = load
    return seconds


def expected_maximum(learners: int) -> float:
    """Of so many standard normal numbers (Blom's approximation), in standard deviations."""
    return NormalDist().inv_cdf((learners - 0.375) / (learners + 0.25)) if learners > 1 else 0.0


def predict(
    phases: Phases,
    work: Work,
    links: Links,
    *,
    rows: int,
    learners: int,
    cores: float = float("inf"),
    spread: float = 0.0,
) -> Prediction:
    """An iteration of `learners` with `rows` agents each.

    Args:
        cores: that all learners share; infinite where each has a device of its own.
        spread: standard deviation of a learner's rollout time, as a fraction.
    """
    crowd = crowding(learners, cores)
    environment, inference = phases.environment.at(rows) * crowd, phases.inference.at(rows) * crowd
    gradient = FLOAT_BYTES * work.parameters
    communicates = learners > 1
    latency = links.all_reduce.fixed if communicates else 0.0
    transfer = links.all_reduce.at(gradient) - latency if communicates else 0.0
    gather = 0.0
    if work.owners is not None and work.group > 1:
        loads = owner_loads(phases.units, work.owners, work.group)
        step = shared_seconds(loads * (learners // work.group), cores)
        fullest = max(owner_loads(work.unit_numbers, work.owners, work.group))
        gather = links.all_gather.at(FLOAT_BYTES * fullest)
    else:
        step = sum(phases.units) * crowd
    return Prediction(
        environment=environment,
        inference=inference,
        stragglers=spread * expected_maximum(learners) * (environment + inference),
        learning=phases.learning.at(rows) * crowd,
        optimizer=work.minibatches * step,
        gradient_latency=work.minibatches * latency,
        gradient_bandwidth=work.minibatches * transfer,
        weights_gather=work.minibatches * gather,
        small_messages=sum(links.all_reduce.at(size) for size in work.small_messages) if communicates else 0.0,
    )


def efficiency(base: Prediction, base_learners: int, other: Prediction, learners: int, *, weak: bool) -> float:
    """Samples per second and learner, relative to `base`. Weak scaling: every learner has as many samples as there."""
    share = 1.0 if weak else base_learners / learners
    return base.seconds / other.seconds * share


def spread_for(target: float, base: Prediction, base_learners: int, other: Prediction, learners: int) -> float:
    """The spread of rollouts at which weak scaling would have the efficiency `target`; infinite if none does.

    Both times grow in proportion to the spread, by the expected maxima of their learners.
    """
    rollouts = [one.environment + one.inference for one in (base, other)]
    without = [one.seconds - one.stragglers for one in (base, other)]
    slopes = [
        rollout * expected_maximum(count) for rollout, count in zip(rollouts, (base_learners, learners), strict=True)
    ]
    grows = target * slopes[1] - slopes[0]
    return (without[0] - target * without[1]) / grows if grows > 0 else float("inf")

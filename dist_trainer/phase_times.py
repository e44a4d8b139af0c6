"""The learners' phase times, in the one all-reduce of the iteration: each writes into a row of its own, so that the sum
is a table of all.

Legend: W learners, P phases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PHASES = ("environments", "inference", "copies", "gradient", "curvature", "optimizer", "communication")
WAITING = "communication"  # who is slow keeps the others waiting there, and waits least


def own_rows(seconds: Mapping[str, float], iteration_seconds: float, rank: int, size: int) -> list[float]:
    """(W x (P + 1)) numbers: this learner's phases and its whole iteration, zeros for the others."""
    own = [*(seconds.get(name, 0.0) for name in PHASES), iteration_seconds]
    return [0.0] * len(own) * rank + own + [0.0] * len(own) * (size - rank - 1)


@dataclass(frozen=True)
class PhaseTimes:
    """Of one iteration, in seconds."""

    learners: list[dict[str, float]]  # (W,) by phase
    iteration: float  # the first learner's

    @staticmethod
    def of(rows: Sequence[float]) -> PhaseTimes:
        """From the sum over all learners of what own_rows gave."""
        width = len(PHASES) + 1
        table = [rows[start : start + width] for start in range(0, len(rows), width)]
        return PhaseTimes([dict(zip(PHASES, row, strict=False)) for row in table], table[0][-1])

    def mean(self, name: str) -> float:
        return sum(learner[name] for learner in self.learners) / len(self.learners)

    def busy(self, rank: int) -> float:
        """What the learner's own work took: everything but waiting for the others, and sending."""
        return sum(seconds for name, seconds in self.learners[rank].items() if name != WAITING)

    def slowest(self) -> tuple[int, float]:
        """The rank whose own work took longest, and how much longer than the mean, as a fraction."""
        busy = [self.busy(rank) for rank in range(len(self.learners))]
        mean = sum(busy) / len(busy)
        rank = max(range(len(busy)), key=busy.__getitem__)
        return rank, (busy[rank] / mean - 1 if mean > 0 else 0.0)

    def facts(self) -> dict[str, float]:
        """By TensorBoard's tags."""
        values = {f"perf/{name}_seconds": self.mean(name) for name in PHASES}
        values["perf/other_seconds"] = max(0.0, self.iteration - sum(self.learners[0].values()))
        if len(self.learners) > 1:
            for name in PHASES:
                every = [learner[name] for learner in self.learners]
                values |= {f"learners/{name}_min": min(every), f"learners/{name}_max": max(every)}
            values["learners/slowest"], values["learners/slowest_excess"] = self.slowest()
        return values

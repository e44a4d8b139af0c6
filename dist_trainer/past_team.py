"""One step of acting in which a past policy decides for some of the rows of a group.

The policy of today acts for all rows; then the past one's actions, and what it remembers, take their place in its own:
so that a checkpoint of the group's recurrent state holds everybody's.

Legend: N rows of the group, K of them the past policy's, L x H recurrent state.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from dist_trainer.acting import ActingStep
from dist_trainer.device_link import Incoming
from dist_trainer.normalize import ObservationNormalizer
from dist_trainer.policies import Policy


class PastTeam:
    """`rows` (K,) of those that `main` acts for. `policy` and `normalizer` change in place when another one plays."""

    def __init__(
        self, main: ActingStep, policy: Policy, normalizer: ObservationNormalizer, rows: Tensor, *, graph: bool
    ):
        self.rows, self._main = rows.to(main.state.device), main
        self._seen = {f.name: x for f in fields(Incoming) if (x := getattr(main.incoming, f.name)) is not None}
        incoming = Incoming(**{name: x.index_select(0, self.rows) for name, x in self._seen.items()})
        self._step = ActingStep(policy, normalizer, incoming, graph=graph)

    def prepare(self) -> None:
        self._step.prepare()

    def run(self) -> None:
        """In place of `main.run()`."""
        for name, seen in self._seen.items():
            torch.index_select(seen, 0, self.rows, out=getattr(self._step.incoming, name))
        self._step.state.copy_(self._main.state.index_select(1, self.rows))
        self._step.run()
        self._main.run()
        self._main.decision.actions.index_copy_(0, self.rows, self._step.decision.actions)
        self._main.state.index_copy_(1, self.rows, self._step.state)

"""One step of acting for one group of environments: what their pool says goes in, actions come out.

The step is a plain function of tensors that stay where they are, so that on a GPU it can be recorded once as a CUDA
graph and then replayed: one launch instead of some fifty. Without a graph the very same function runs as it is.

Legend: N agent rows of the group, C action components, L x H recurrent state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dist_trainer.device_link import Incoming
from dist_trainer.errors import ConfigError
from dist_trainer.normalize import FrozenNormalizer, ObservationNormalizer
from dist_trainer.policies import Policy, acting

WARM_UP = 3  # steps before one is recorded: libraries set themselves up in the first


@dataclass
class Decision:
    actions: Tensor  # (N, C)
    log_probs: Tensor  # (N,)
    values: Tensor  # (N,)


class ActingStep:
    """Acts on `incoming`, which others fill. Owns the recurrent state."""

    decision: Decision  # of the last run; valid until the next

    def __init__(self, policy: Policy, normalizer: ObservationNormalizer, incoming: Incoming, *, graph: bool):
        self.policy, self.incoming, self.graph = policy, incoming, graph
        rows, *shape = incoming.observations.shape
        self.normalize = FrozenNormalizer(normalizer, rows, tuple(shape), incoming.observations.device)
        # (L, N, H) after the last step, or, once that has been seen to, before this one
        self.state = policy.initial_state(rows)
        self._recorded: torch.cuda.CUDAGraph | None = None
        self._recorded_of: object = None

    def prepare(self) -> None:
        """Takes over the normalizer's statistics, and records the graph if there is none of the policy as it is.
        Before the first run, and whenever policy or statistics may have changed."""
        self.normalize.refresh()
        if self.graph and self._recorded_of != self._identity():
            self._record()

    def run(self) -> None:
        """One step: `state` and `decision` are the next ones."""
        if self._recorded:
            self._recorded.replay()
        else:
            self._step()

    def value(self) -> Tensor:
        """(N,) of what is to be acted on next, without acting: the state stays, reset where episodes have ended."""
        forget_(self.state, self.incoming.terminated | self.incoming.truncated)
        before = self.state.clone()
        self.run()
        self.state.copy_(before)
        return self.decision.values

    def _step(self) -> None:
        incoming = self.incoming
        forget_(self.state, incoming.terminated | incoming.truncated)
        parameters, values, self.state = acting(self.policy, self.normalize(incoming.observations), self.state)
        parameters = self.policy.action_head.restrict(parameters, incoming.legal)
        actions, log_probs = self.policy.action_head.sample_with_log_prob(parameters, incoming.noise)
        self.decision = Decision(actions, log_probs, values)

    def _step_in_place(self) -> None:
        state = self.state
        self._step()
        self.state = state.copy_(self.state)

    def _record(self) -> None:
        """Raises ConfigError if the policy does what no graph can hold."""
        before = self.state.clone()
        self._recorded, here, aside = None, torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._step_in_place()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, as of NCCL and of offloading, may go on with what they do.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step_in_place()
        except RuntimeError as error:
            what = f"{type(self.policy).__name__} cannot act in a CUDA graph ({' '.join(str(error).split())[:200]})"
            raise ConfigError("cuda_graphs", True, f"{what}; cuda_graphs=false acts without") from error
        self._recorded, self._recorded_of = graph, self._identity()
        self.state.copy_(before)

    def _identity(self) -> object:
        """What a graph holds besides the numbers: where the weights lie, and in what precision they are applied."""
        tensors = [*self.policy.parameters(), *self.policy.buffers()]
        return self.policy.precision, self.policy.training, [tensor.data_ptr() for tensor in tensors]


def forget_(state: Tensor, ended: Tensor) -> None:
    """Zeroes the state (L, N, H) of the rows whose episode has ended (N,), in place."""
    if state.device.type == "cpu":  # few rows: less than a pass over all
        state.index_fill_(1, ended.nonzero().squeeze(1), 0)
    else:  # the same work whatever ended, and no wait to find out
        state.masked_fill_(ended[:, None], 0)

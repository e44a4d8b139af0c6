"""What an agent may do, by name, and how likely its policy is to do it: for whoever looks on.

Legend: C action components, P action parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_trainer.config import ViewConfig
from dist_trainer.envs import EnvSpec
from dist_trainer.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """A choice of one component."""

    name: str
    probability: float | None  # None: nobody says
    chosen: bool
    legal: bool


@dataclass(frozen=True)
class Dial:
    """A continuous component."""

    name: str
    low: float
    high: float
    chosen: float
    mean: float | None  # of the policy's normal distribution, and its standard deviation
    std: float | None


def choice_names(view: ViewConfig, spec: EnvSpec) -> list[list[str]]:
    """Of each discrete component the names of its choices; numbers where the yaml has none. Raises ConfigError if
    `actions` is not of the form that these actions need."""
    parts = view.actions if len(spec.action_sizes) > 1 else [view.actions]
    if view.actions and (len(parts) != len(spec.action_sizes) or not all(isinstance(part, list) for part in parts)):
        valid = f"must be {len(spec.action_sizes)} lists of names, one for each component"
        raise ConfigError("env.view.actions", view.actions, valid)
    parts = parts if view.actions else [[] for _ in spec.action_sizes]
    return [
        [str(part[index]) if index < len(part) else str(index) for index in range(size)]
        for part, size in zip(parts, spec.action_sizes, strict=True)
    ]


def number_names(view: ViewConfig, spec: EnvSpec) -> list[str]:
    """Of each continuous component. Raises ConfigError if there are too many."""
    if len(view.actions) > len(spec.action_low):
        raise ConfigError("env.view.actions", view.actions, f"there are {len(spec.action_low)} numbers to name")
    names = [str(name) for name in view.actions]
    return names + [f"number {index}" for index in range(len(names), len(spec.action_low))]


def agent_name(view: ViewConfig, spec: EnvSpec, agent: int) -> str:
    if agent < len(view.agents):
        return str(view.agents[agent])
    return f"agent {agent} of {spec.num_agents}" if spec.num_agents > 1 else "agent"


def options(
    view: ViewConfig,
    spec: EnvSpec,
    actions: Sequence[float],
    parameters: NDArray[np.generic] | None,
    legal: NDArray[np.bool_] | None,
) -> list[list[Option]]:
    """Of each discrete component of one agent. `actions` (C,), `parameters` (P,) logits, `legal` (P,)."""
    shares = None if parameters is None or len(parameters) != sum(spec.action_sizes) else parameters.astype(np.float64)
    found, first = [], 0
    for names, chosen in zip(choice_names(view, spec), actions, strict=True):
        where = slice(first, first + len(names))
        first += len(names)
        part = None if shares is None else softmax(shares[where])
        found.append(
            [
                Option(
                    name=name,
                    probability=None if part is None else float(part[index]),
                    chosen=index == int(chosen),
                    legal=legal is None or bool(legal[where][index]),
                )
                for index, name in enumerate(names)
            ]
        )
    return found


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def dials(
    view: ViewConfig, spec: EnvSpec, actions: Sequence[float], parameters: NDArray[np.generic] | None
) -> list[Dial]:
    """Of the continuous components of one agent. `actions` (C,), `parameters` (2 C,): means, log deviations."""
    count = len(spec.action_low)
    known = parameters is not None and len(parameters) == 2 * count
    means, logs = np.split(parameters.astype(np.float64), 2) if known and parameters is not None else (None, None)
    return [
        Dial(
            name=name,
            low=spec.action_low[index],
            high=spec.action_high[index],
            chosen=min(max(float(actions[index]), spec.action_low[index]), spec.action_high[index]),  # as pools do
            mean=None if means is None else float(means[index]),
            std=None if logs is None else float(np.exp(logs[index])),
        )
        for index, name in enumerate(number_names(view, spec))
    ]

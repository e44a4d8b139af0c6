"""Optimal control of what moves in a plane of states, by backward induction over the corners of a grid.

Between corners the value is interpolated linearly. With a finer grid it comes as near to the optimum as one likes, so
that reference players made of it are bounds for learners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# (states x (S,), states y (S,), action) -> next x (S,), next y (S,), reward (S,), whether the episode is over (S,)
Model = Callable[[Array, Array, float], tuple[Array, Array, Array, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    corners: int
    wraps: bool = False  # low and high are the same place, and the last corner lies one step before it

    def values(self) -> Array:
        return np.linspace(self.low, self.high, self.corners, endpoint=not self.wraps)

    def place(self, x: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """The corners on both sides of x, and how far from the first one it is (0 to 1)."""
        step = (self.high - self.low) / (self.corners if self.wraps else self.corners - 1)
        at = (x - self.low) / step
        if not self.wraps:
            at = np.clip(at, 0, self.corners - 1)
        below = np.floor(at).astype(np.int64)
        if not self.wraps:
            below = np.minimum(below, self.corners - 2)
        return below % self.corners, (below + 1) % self.corners, at - below


@dataclass(frozen=True)
class Plan:
    x: Axis
    y: Axis
    model: Model
    actions: Sequence[float]
    values: Array  # (x corners, y corners): of a state with all steps before it

    def interpolated(self, x: Array, y: Array) -> Array:
        left, right, across = self.x.place(x)
        lower, upper, up = self.y.place(y)
        v = self.values
        low = (1 - across) * v[left, lower] + across * v[right, lower]
        high = (1 - across) * v[left, upper] + across * v[right, upper]
        result: Array = (1 - up) * low + up * high
        return result

    def action_values(self, x: Array, y: Array) -> Array:
        """(actions, S)"""
        rows = []
        for action in self.actions:
            next_x, next_y, reward, over = self.model(x, y, action)
            rows.append(reward + np.where(over, 0, self.interpolated(next_x, next_y)))
        return np.array(rows)

    def best_actions(self, x: Array, y: Array) -> NDArray[Any]:
        """(S,) the action of the highest value."""
        return np.array(self.actions)[self.action_values(x, y).argmax(0)]


def plan(x: Axis, y: Axis, model: Model, actions: Sequence[float], steps: int) -> Plan:
    """The values with `steps` left to go, after which nothing counts."""
    grid_x, grid_y = (side.ravel() for side in np.meshgrid(x.values(), y.values(), indexing="ij"))
    shape = (x.corners, y.corners)
    now = Plan(x, y, model, actions, np.zeros(shape))
    for _ in range(steps):
        now = Plan(x, y, model, actions, now.action_values(grid_x, grid_y).max(0).reshape(shape))
    return now

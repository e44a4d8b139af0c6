"""One environment that somebody watches or plays: who acts, what has happened so far. Knows no window.

Legend: A agents, C action components, P action parameters.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dist_trainer.action_names import agent_name
from dist_trainer.config import EnvConfig
from dist_trainer.envs import EnvPool, statistics_names
from dist_trainer.keymap import Action, KeyMap, make_keymap
from dist_trainer.player import Choice, Player

VALUES_KEPT = 240  # steps


class Session:
    """A policy acts for all agents, or nobody does; a person may act for one, the selected one.

    The policy looks at every step, also where a person decides: when the agent is handed back, it remembers all that
    the agent saw.
    """

    def __init__(
        self,
        config: EnvConfig,
        make_player: Callable[[EnvPool], Player] | None,
        *,
        seed: int,
        show: int = 0,
        greedy: bool = False,
        always: bool = False,
    ):
        """`make_player`: None if there is no policy. `show`: the global id of the environment. `greedy`: as of Player.
        `always`: a person decides for the selected agent all the time. Raises ConfigError as EnvPool and make_keymap
        do."""
        self.config = dataclasses.replace(config, workers="threads")
        self._make_player, self._seed, self.show, self.always = make_player, seed, show, always
        self.taken = False  # a person decides for now
        self.selected = 0
        self.greedy = greedy
        self.begin(show)

    def begin(self, show: int) -> None:
        """The first episode of environment `show`."""
        self.show = show
        self.pool = EnvPool(self.config, num_envs=1, first_env=show, seed=self._seed, threads=1)
        self.pool.keep_ends()
        self.pool.reset()
        self.spec = self.pool.spec
        self.keymap: KeyMap = make_keymap(self.config.view, self.spec)
        self.player = self._make_player(self.pool) if self._make_player else None
        agents = self.spec.num_agents
        self.returns, self.lengths = np.zeros(agents), np.zeros(agents, np.int64)  # (A,) of the episodes in progress
        self.rewards = np.zeros(agents)  # (A,) of the last step
        self.last_return: list[float | None] = [None] * agents  # of each agent's episode before this one
        self.steps = self.episodes = 0  # of the environment
        self.values: deque[NDArray[np.float64]] = deque(maxlen=VALUES_KEPT)  # (A,) each
        self.before: list[Action | None] = [None] * agents  # what each agent did
        self.ended: dict[str, float] | None = None  # the episode that the last step ended: its mean statistics
        self.message = ""
        self._look()

    @property
    def deciding(self) -> bool:
        """Whether a person decides for the selected agent."""
        return bool(self.keymap.entries) and (self.always or self.taken)

    @property
    def waits(self) -> bool:
        """Whether nothing can go on without the person's choice."""
        return self.deciding and self.config.view.turn_based and not self.forced and not self.resting(self.selected)

    @property
    def forced(self) -> bool:
        """Whether the selected agent has no choice: players in turn that can only wait."""
        legal = self.legal(self.selected)
        return legal is not None and int(legal.sum()) == len(self.spec.action_sizes)

    @property
    def name(self) -> str:
        """Of the selected agent."""
        return agent_name(self.config.view, self.spec, self.selected)

    def legal(self, agent: int) -> NDArray[np.bool_] | None:
        """(P,) what the agent may choose next; None: anything."""
        return self.pool.legal[agent] if self.spec.has_legal else None

    def resting(self, agent: int) -> bool:
        return bool(self.spec.has_resting and self.pool.resting[agent])

    def actions(self) -> NDArray[np.float64]:
        """(A, C) of the next step if no person interferes."""
        if self.choice is not None:
            return self.choice.actions.numpy().astype(np.float64)
        return np.stack([self._without_policy(agent) for agent in range(self.spec.num_agents)])

    def step(self, held: Sequence[str] = ()) -> bool:
        """One step. `held`: names of the keys that are down, in the order in which they were pressed. False, and no
        step, if a person must choose first, or has chosen what is not legal where the others wait."""
        actions = self.actions()
        self.message = ""
        if self.deciding and not self.resting(self.selected) and not self.forced:
            meant = self.keymap.action(held, self.before[self.selected])
            legal = meant is not None and self._is_legal(self.selected, meant)
            if meant is not None and not legal:
                self.message = "that is not legal now"
            if self.config.view.turn_based and not legal:
                return False
            if meant is not None and legal:
                actions[self.selected] = meant
        self.before = [tuple(map(float, row)) for row in actions]
        self.pool.actions[:] = actions
        self.pool.send()
        self.pool.recv()
        self._count()
        self._look()
        return True

    def select(self, agent: int) -> None:
        """Another agent; it takes the hold along. Agents are numbered round."""
        self.selected = agent % self.spec.num_agents

    def select_at(self, x: float, y: float) -> None:
        """The agent nearest to that point of the picture."""
        places = self.pool.places(0)
        if places is None:
            self.message = "this environment does not say where its agents are: tab selects the next"
            return
        distances = np.hypot(*(places - np.array([x, y])).T)
        distances[places[:, 0] < 0] = np.inf
        if np.isfinite(distances).any():
            self.select(int(distances.argmin()))

    def set_greedy(self, greedy: bool) -> None:
        """From the next choice on."""
        self.greedy = greedy
        if self.player:
            self.player.greedy = greedy

    def picture(self) -> NDArray[np.uint8]:
        """(height, width, 3). After a step that ended an episode its last state."""
        return self.pool.render(0, at_end=self.ended is not None)

    def _look(self) -> None:
        """The policy chooses for what is seen now, once for every step."""
        self.choice: Choice | None = None
        if self.player:
            self.player.greedy = self.greedy
            self.choice = self.player.choose()
            self.values.append(self.choice.values.numpy().astype(np.float64))

    def _count(self) -> None:
        pool, ended = self.pool, self.pool.terminated | self.pool.truncated
        self.steps += 1
        self.rewards = pool.rewards.astype(np.float64)
        self.returns += self.rewards
        self.lengths += 1
        for agent in np.flatnonzero(ended):
            self.last_return[agent] = float(self.returns[agent])
        self.returns[ended], self.lengths[ended] = 0, 0
        self.ended = None
        if pool.ends(0) > self.episodes:
            count, *sums = pool.take_statistics()
            self.ended = {name: x / count for name, x in zip(statistics_names(self.spec), sums, strict=True)}
            self.episodes += 1
            self.steps = 0
            self.values.clear()
            self.before = [None] * self.spec.num_agents

    def _without_policy(self, agent: int) -> NDArray[np.float64]:
        """(C,) the idle action, or, where that is none or not legal, any, by the pool's noise."""
        idle = self.keymap.idle
        if idle is not None and not self.keymap.repeats and self._is_legal(agent, idle):
            return np.array(idle)
        noise = self.pool.noise[agent].astype(np.float64)
        if self.spec.action_kind == "continuous":
            low, high = np.array(self.spec.action_low), np.array(self.spec.action_high)
            return np.asarray(low + (high - low) * noise)
        legal, chosen, first = self.legal(agent), [], 0
        for size, share in zip(self.spec.action_sizes, noise, strict=True):
            possible = np.arange(size) if legal is None else np.flatnonzero(legal[first : first + size])
            chosen.append(float(possible[int(share * len(possible))]))
            first += size
        return np.array(chosen)

    def _is_legal(self, agent: int, action: Action) -> bool:
        legal, first = self.legal(agent), 0
        if legal is None:
            return True
        for size, value in zip(self.spec.action_sizes, action, strict=True):
            if not legal[first + int(value)]:
                return False
            first += size
        return True

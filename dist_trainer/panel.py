"""What is drawn beside an environment's picture: value, actions with their probabilities, return, observation.

On any surface: a window's, or one in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pygame
from numpy.typing import NDArray

from dist_trainer.action_names import Dial, Option, choice_names, dials, options
from dist_trainer.keymap import KeyMap
from dist_trainer.session import Session

# The colours of the pictures (cpp_envs/palette.h).
BACKGROUND = (18, 24, 38)
PANEL = (30, 39, 58)
GRID = (45, 57, 81)
DIM = (92, 108, 138)
FAINT = (137, 151, 178)
TEXT = (233, 238, 247)
AGENT = (76, 201, 240)
GOLD = (255, 209, 102)
DANGER = (242, 95, 92)

WIDTH, MARGIN = 330, 16
ROW = 22  # pixels of a line
CHART = 56
FEW_NUMBERS = 24  # of an observation, to be shown as such
MOST_OPTIONS = 12

Color = tuple[int, int, int]


def load_font(size: int, bold: bool = False) -> pygame.font.Font:
    """pygame's own, which is there on every machine."""
    pygame.font.init()
    font = pygame.font.Font(None, size)
    font.set_bold(bold)
    return font


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass
class Mode:
    """What is not the session's own: how it is looked at."""

    paused: bool = False
    speed: float = 1.0
    shows_observation: bool = False


class Panel:
    """Draws from top to bottom; `y` is where the next line begins."""

    def __init__(self, surface: pygame.Surface):
        self.surface = surface
        self.left, self.right = MARGIN, surface.get_width() - MARGIN
        self.y = MARGIN
        self.plain, self.small, self.large = load_font(22), load_font(19), load_font(34)

    def draw(self, session: Session, mode: Mode) -> None:
        self.surface.fill(PANEL)
        self.y = MARGIN
        self._head(session, mode)
        self._score(session)
        if session.choice is not None:
            self._value(session)
        self._actions(session)
        if mode.shows_observation:
            self._observation(session.pool.observations[session.selected], session.config.view.planes)

    def _text(
        self, text: str, x: int, color: Color = TEXT, font: pygame.font.Font | None = None, right: bool = False
    ) -> int:
        """At this height; returns its width. `right`: it ends at x. What is too long for the panel is cut off."""
        font = font or self.plain
        room = x - self.left if right else self.right - x
        while len(text) > 1 and font.size(text)[0] > room:
            text = text[:-1]
        image = font.render(text, True, color)
        self.surface.blit(image, (x - image.get_width() if right else x, self.y))
        return image.get_width()

    def _title(self, text: str) -> None:
        self.y += 10
        self._text(text.upper(), self.left, FAINT, self.small)
        self.y += ROW - 2

    def _head(self, session: Session, mode: Mode) -> None:
        self._text(session.config.name, self.left, TEXT, self.large)
        speed = f"{mode.speed:g}x"
        self._text("PAUSED" if mode.paused else speed, self.right, DANGER if mode.paused else FAINT, right=True)
        self.y += 32
        where = f"environment {session.show}   episode {session.episodes + 1}   step {session.steps}"
        self._text(where, self.left, FAINT, self.small)
        self.y += ROW + 4
        who, color = ("YOU", GOLD) if session.deciding else ("POLICY", AGENT) if session.player else ("NOBODY", FAINT)
        tag = self.plain.render(who, True, BACKGROUND)
        box = pygame.Rect(self.left, self.y, tag.get_width() + 16, ROW + 4)
        pygame.draw.rect(self.surface, color, box, border_radius=6)
        self.surface.blit(tag, (box.x + 8, box.y + 6))
        self.y += 6
        how = "" if session.deciding or not session.player else "  greedy" if session.greedy else "  sampled"
        resting = "  rests" if session.resting(session.selected) else ""
        self._text(session.name + how + resting, box.right + 10)
        self.y += ROW

    def _score(self, session: Session) -> None:
        self._title("return")
        agent, last = session.selected, session.last_return[session.selected]
        value = last if session.ended is not None and last is not None else float(session.returns[agent])
        self._text(short(value), self.left, TEXT, self.large)
        self._text(f"last step {short(float(session.rewards[agent]))}", self.right, FAINT, self.small, right=True)
        self.y += 14
        if last is not None:
            self._text(f"episode before {short(last)}", self.right, FAINT, self.small, right=True)
        self.y += 14

    def _value(self, session: Session) -> None:
        """Of the selected agent, and what it was in the steps before."""
        self._title("value")
        history = [float(values[session.selected]) for values in session.values]
        self._text(short(history[-1]), self.left, AGENT, self.large)
        box = pygame.Rect(self.left + 100, self.y - ROW + 4, self.right - self.left - 100, CHART)
        pygame.draw.rect(self.surface, BACKGROUND, box, border_radius=4)
        low, high = min(history), max(history)
        if len(history) > 1:
            span = max(high - low, 1e-6)
            step = (box.width - 8) / (len(history) - 1)
            points = [
                (box.x + 4 + index * step, box.bottom - 5 - (value - low) / span * (box.height - 10))
                for index, value in enumerate(history)
            ]
            pygame.draw.aalines(self.surface, AGENT, False, points)
        self.y = box.bottom

    def _actions(self, session: Session) -> None:
        agent, view, spec = session.selected, session.config.view, session.spec
        chosen = session.actions()[agent].tolist() if session.choice is not None else session.before[agent]
        chosen = list(chosen) if chosen is not None else [-1.0] * spec.action_components
        parameters = session.choice.parameters[agent].numpy() if session.choice is not None else None
        self._title("actions" if session.choice is not None else "your actions")
        if spec.action_kind == "continuous":
            for dial in dials(view, spec, chosen, parameters):
                self._dial(dial)
            return
        keys = key_of_choices(session.keymap, choice_names(view, spec)[0]) if len(spec.action_sizes) == 1 else {}
        most = max(3, MOST_OPTIONS // len(spec.action_sizes))
        for component in options(view, spec, chosen, parameters, session.legal(agent)):
            shown = component
            if len(component) > most:  # what is chosen, and the likeliest, or those that are possible; in their order
                ranked = sorted(component, key=lambda o: (o.chosen, o.legal, o.probability or 0), reverse=True)
                shown = [option for option in component if option in ranked[:most]]
            for option in shown:
                self._option(option, "" if session.choice is not None else keys.get(option.name, ""))
            if len(shown) < len(component):
                self._text(f"and {len(component) - len(shown)} others", self.left, FAINT, self.small)
                self.y += ROW
            self.y += 4

    def _option(self, option: Option, key: str) -> None:
        """`key`: which one it is chosen by, where nobody says how likely it is."""
        color = DIM if not option.legal else TEXT if option.chosen else FAINT
        if option.chosen:
            pygame.draw.circle(self.surface, GOLD, (self.left + 3, self.y + 7), 3)
        self._text(option.name, self.left + 12, color, self.small)
        bar = pygame.Rect(self.left + 120, self.y, self.right - self.left - 170, 13)
        if option.probability is not None:
            pygame.draw.rect(self.surface, GRID, bar, border_radius=4)
            filled = pygame.Rect(bar.x, bar.y, round(bar.width * option.probability), bar.height)
            if filled.width > 0:
                pygame.draw.rect(self.surface, AGENT, filled, border_radius=4)
        share = "not now" if not option.legal else key if option.probability is None else f"{option.probability:.0%}"
        self._text(share, self.right, color, self.small, right=True)
        self.y += ROW

    def _dial(self, dial: Dial) -> None:
        """Range, what is likely (mean and standard deviation), and what is chosen."""
        self._text(dial.name, self.left, TEXT, self.small)
        self._text(short(dial.chosen), self.right, TEXT, self.small, right=True)
        self.y += ROW - 4
        bar = pygame.Rect(self.left, self.y, self.right - self.left, 12)
        pygame.draw.rect(self.surface, GRID, bar, border_radius=4)

        def x(value: float) -> float:
            share = (value - dial.low) / (dial.high - dial.low)
            return bar.x + bar.width * min(max(share, 0.0), 1.0)

        if dial.mean is not None and dial.std is not None:
            first, last = x(dial.mean - dial.std), x(dial.mean + dial.std)
            pygame.draw.rect(self.surface, AGENT, pygame.Rect(first, bar.y, max(2, last - first), bar.height))
        pygame.draw.circle(self.surface, GOLD, (x(dial.chosen), bar.centery), 7)
        self.y += 22

    def _observation(self, seen: NDArray[np.generic], planes: list[int]) -> None:
        """Few numbers as such, many as cells: dark is 0, blue above, red below. `planes`: as in ViewConfig."""
        shape = " x ".join(map(str, seen.shape))
        self._title(f"observation ({shape})")
        flat = seen.astype(np.float64).reshape(-1)
        if flat.size <= FEW_NUMBERS:
            for index, value in enumerate(flat):
                column = index % 3 * (self.right - self.left) // 3
                self._text(f"{value:.3g}", self.left + column, TEXT, self.small)
                self.y += ROW - 4 if index % 3 == 2 else 0
            return
        room = pygame.Rect(self.left, self.y, self.right - self.left, self.surface.get_height() - self.y - MARGIN)
        cells = _in_planes(flat, planes, room.width / max(1, room.height)) if planes else _cells(seen)
        side = max(1, min(room.width // cells.shape[1], room.height // cells.shape[0]))
        largest = np.nanmax(np.abs(cells)) or 1.0
        shares = np.nan_to_num(np.abs(cells)[..., None] / largest)  # (rows, columns, 1)
        ends = np.where(cells[..., None] >= 0, np.array(AGENT), np.array(DANGER))
        colors = (np.array(BACKGROUND) + shares * (ends - np.array(BACKGROUND))).astype(np.uint8)
        colors[np.isnan(cells)] = PANEL
        image = pygame.surfarray.make_surface(colors.swapaxes(0, 1))
        size = (cells.shape[1] * side, cells.shape[0] * side)
        self.surface.blit(pygame.transform.scale(image, size), room.topleft)


def key_of_choices(keymap: KeyMap, names: list[str]) -> dict[str, str]:
    """By the name of a choice of the only component."""
    return {
        names[int(entry.action[0])]: "+".join(sorted(entry.keys, key=lambda key: (key.isdigit(), key)))
        for entry in keymap.entries
        if entry.action[0] is not None
    }


def _in_planes(flat: NDArray[np.float64], planes: list[int], shape: float) -> NDArray[np.float64]:
    """(rows, columns): planes of this size with a line (nan) between them, as many beside each other as fill a room of
    this shape (width / height) best; then what is left over."""
    height, width = planes
    count = len(flat) // (height * width)
    most = range(1, count + 1)
    across = min(most, key=lambda n: max(n * (width + 1) / shape, -(-count // n) * (height + 1)))
    down = -(-count // across)
    cells = np.full((down * (height + 1), across * (width + 1)), np.nan)
    for index in range(count):
        y, x = index // across * (height + 1), index % across * (width + 1)
        cells[y : y + height, x : x + width] = flat[index * height * width :][: height * width].reshape(height, width)
    rest = flat[count * height * width :]
    if len(rest) > cells.shape[1] or not len(rest):
        return cells
    return np.concatenate([cells, np.pad(rest, (0, cells.shape[1] - len(rest)), constant_values=np.nan)[None]])


def _cells(seen: NDArray[np.generic]) -> NDArray[np.float64]:
    """(rows, columns): an image's own, the mean of its channels; a vector's in as many columns as are nearly square."""
    values = seen.astype(np.float64)
    if values.ndim >= 2:
        while values.ndim > 2:
            values = values.mean(0 if values.shape[0] <= values.shape[-1] else -1)
        return values
    columns = int(np.ceil(np.sqrt(2 * values.size)))
    rows = -(-values.size // columns)
    return np.pad(values, (0, rows * columns - values.size)).reshape(rows, columns)

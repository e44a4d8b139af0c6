"""A session as one picture: the environment, enlarged by a whole factor, and the panel beside it."""

from __future__ import annotations

import numpy as np
import pygame
from numpy.typing import NDArray

from dist_trainer.panel import BACKGROUND, FAINT, GOLD, MARGIN, TEXT, WIDTH, Mode, Panel, load_font
from dist_trainer.session import Session

LEAST_HEIGHT = 560  # the panel needs it
LARGEST = (800, 860)  # of the picture, in a window
HELP_ROW = 20
MESSAGE = 48  # below the picture
RING = 13  # pixels around the selected agent


def whole_factor(picture: tuple[int, int], room: tuple[int, int]) -> int:
    """The largest by which a picture (height, width) fits into a room (width, height), at least 1."""
    height, width = picture
    return max(1, min(room[0] // width, room[1] // height))


class Stage:
    """Where everything is; draws it on any surface of its `size`."""

    def __init__(self, picture: tuple[int, int], factor: int, hints: tuple[str, ...] = ()):
        """`picture`: (height, width) in the environment's own pixels. `hints`: shown below."""
        self.factor = factor
        self.shown = (picture[1] * factor, picture[0] * factor)
        self._font, self._large = load_font(19), load_font(28)
        self.help_lines = help_lines = wrapped(hints, self._font, self.shown[0] + WIDTH - 2 * MARGIN)
        height = max(self.shown[1] + MESSAGE, LEAST_HEIGHT)
        strip = len(help_lines) * HELP_ROW + (12 if help_lines else 0)
        self.size = (self.shown[0] + WIDTH, height + strip)
        self.corner = (0, (height - MESSAGE - self.shown[1]) // 2)
        self._bottom = height
        self._panel = Panel(pygame.Surface((WIDTH, height)))

    def in_picture(self, position: tuple[int, int]) -> tuple[float, float] | None:
        """A place on the stage in the picture's own pixels; None beside it."""
        x, y = position[0] - self.corner[0], position[1] - self.corner[1]
        if not (0 <= x < self.shown[0] and 0 <= y < self.shown[1]):
            return None
        return x / self.factor, y / self.factor

    def draw(self, surface: pygame.Surface, session: Session, mode: Mode) -> None:
        surface.fill(BACKGROUND)
        image = pygame.surfarray.make_surface(session.picture().swapaxes(0, 1))
        surface.blit(pygame.transform.scale(image, self.shown), self.corner)
        self._mark(surface, session)
        self._tell(surface, session)
        self._panel.draw(session, mode)
        surface.blit(self._panel.surface, (self.shown[0], 0))
        for index, line in enumerate(self.help_lines):
            text = self._font.render(line, True, FAINT)
            surface.blit(text, (MARGIN, self._bottom + 8 + index * HELP_ROW))

    def _mark(self, surface: pygame.Surface, session: Session) -> None:
        """A ring around the selected one of many agents."""
        places = session.pool.places(0) if session.spec.num_agents > 1 and session.ended is None else None
        if places is None or places[session.selected, 0] < 0:
            return
        center = places[session.selected] * self.factor + np.array(self.corner)
        color = GOLD if session.deciding else TEXT
        pygame.draw.circle(surface, color, center.tolist(), RING * max(1, self.factor * 2 // 3), 2)

    def _tell(self, surface: pygame.Surface, session: Session) -> None:
        """Below the picture: how the episode ended, or what is the matter."""
        text = session.message
        if session.ended is not None:
            value = session.ended["episode_return"] if session.spec.num_agents == 1 else None
            own = session.last_return[session.selected] if value is None else value
            text = f"episode over: return {own:.4g}, {session.ended['episode_length']:.0f} steps"
        elif not text and session.waits:
            text = "your turn"
        if not text:
            return
        image = self._large.render(text, True, BACKGROUND)
        if image.get_width() > self.shown[0] - 32:
            image = self._font.render(text, True, BACKGROUND)
        box = image.get_rect().inflate(24, 14)
        box.center = (self.shown[0] // 2, self.corner[1] + self.shown[1] + MESSAGE // 2)
        pygame.draw.rect(surface, GOLD, box, border_radius=8)
        surface.blit(image, image.get_rect(center=box.center))


def wrapped(hints: tuple[str, ...], font: pygame.font.Font, width: int) -> list[str]:
    """In as few lines as they need, none wider than so many pixels where a hint alone is not."""
    lines: list[str] = []
    for hint in hints:
        longer = f"{lines[-1]}    {hint}" if lines else hint
        if lines and font.size(longer)[0] <= width:
            lines[-1] = longer
        else:
            lines.append(hint)
    return lines


def pixels(surface: pygame.Surface) -> NDArray[np.uint8]:
    """(height, width, 3) bytes."""
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))

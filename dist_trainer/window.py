"""The window of `watch` and `play`: keys and clicks, the pace, the screen. What they mean is session.py's."""

from __future__ import annotations

import os

import pygame

from dist_trainer.errors import ConfigError
from dist_trainer.panel import Mode
from dist_trainer.session import Session
from dist_trainer.stage import LARGEST, Stage, whole_factor

SCREEN_RATE = 60  # pictures per second
END_SECONDS = 1.2  # for which the end of an episode is shown
SLOWEST, FASTEST = 1 / 16, 64.0
MARGINS = (420, 220)  # of the screen, beside and around the picture
HINTS = (
    *("space: pause", ". one step", "+ - speed", "o: observation", "s: sampled or greedy", "n: next environment"),
    "esc: quit",
)
TAKE_OVER = ("hold left shift: take over", "t: keep it")
MOST_KEYS = 10  # of the environment's own that are told


def hints(session: Session) -> tuple[str, ...]:
    """What keys there are."""
    told = list(HINTS)
    if session.spec.num_agents > 1:
        told.append("tab or click: another agent")
    names = list(session.config.view.keys)
    if names:
        told += TAKE_OVER if session.player else ()
        more = " ... (see its yaml)" if len(names) > MOST_KEYS else ""
        told.append(f"to act: {' '.join(names[:MOST_KEYS])}{more}")
    return tuple(told)


def find_screen() -> None:
    """Raises ConfigError if there is none, unless drawing without one was asked for."""
    asked = os.environ.get("SDL_VIDEODRIVER", "")
    instead = "SDL_VIDEODRIVER=dummy draws without one, and record writes a video"
    try:
        pygame.display.init()  # not pygame.init(): that would look for a sound card, too
    except pygame.error as error:
        raise ConfigError("SDL_VIDEODRIVER", asked, f"no screen ({error}); {instead}") from None
    if not asked and pygame.display.get_driver() == "offscreen":  # what SDL falls back to
        pygame.display.quit()
        raise ConfigError("SDL_VIDEODRIVER", asked, f"no screen was found; {instead}")


class Window:
    """One turn: handle(event) for all there are, advance(seconds), draw()."""

    def __init__(self, session: Session, fps: float):
        """`fps`: steps per second at speed 1. Raises ConfigError if there is no screen."""
        assert session.spec.picture is not None
        find_screen()
        self.session, self.fps, self.mode = session, fps, Mode()
        screen = pygame.display.get_desktop_sizes()[0]
        room = (min(LARGEST[0], screen[0] - MARGINS[0]), min(LARGEST[1], screen[1] - MARGINS[1]))
        self.stage = Stage(session.spec.picture, whole_factor(session.spec.picture, room), hints(session))
        self.surface = pygame.display.set_mode(self.stage.size)
        pygame.display.set_caption(f"{session.config.name} - dist_trainer")
        self.closed = False
        self.steps = 0  # since the window was opened
        self._down: list[str] = []  # keys, in the order in which they were pressed
        self._tapped: list[str] = []  # pressed and released since the last step
        self._due = 0.0  # steps
        self._shown_end = 0.0  # seconds

    def run(self, most_steps: int | None = None) -> None:
        """Until it is closed, or after so many steps."""
        clock = pygame.time.Clock()
        while not self.closed and (most_steps is None or self.steps < most_steps):
            for event in pygame.event.get():
                self.handle(event)
            self.advance(clock.tick(SCREEN_RATE) / 1000)
            self.draw()
            pygame.display.flip()

    def handle(self, event: pygame.event.Event) -> None:
        if event.type == pygame.QUIT:
            self.closed = True
        elif event.type == pygame.WINDOWFOCUSLOST:  # nobody will say that keys are released
            self._down.clear()
            self.session.taken = False
        elif event.type == pygame.KEYDOWN:
            self._press(pygame.key.name(event.key))
        elif event.type == pygame.KEYUP:
            self._release(pygame.key.name(event.key))
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            place = self.stage.in_picture(event.pos)
            if place is not None:
                self.session.select_at(*place)

    def advance(self, seconds: float) -> None:
        """As many steps as belong into this time."""
        session = self.session
        if self.mode.paused:
            return
        if session.ended is not None and self._shown_end < END_SECONDS / max(1.0, self.mode.speed):
            self._shown_end += seconds
            return
        if session.ended is not None and session.config.view.turn_based and session.deciding:
            return  # who plays looks at it for as long as he wants
        if session.waits:
            self._due = 0
            return
        self._due += seconds * self.fps * self.mode.speed
        most = max(1, int(self.fps * self.mode.speed / SCREEN_RATE) + 1)  # a slow machine falls behind
        for _ in range(min(int(self._due), most)):
            self._step()
            self._due -= 1
            if session.ended is not None or session.waits:
                self._due = 0
                break
        self._due = min(self._due, 1)

    def draw(self) -> None:
        self.stage.draw(self.surface, self.session, self.mode)

    def _step(self) -> None:
        held = [*self._down, *(name for name in self._tapped if name not in self._down)]
        if self.session.step(held):
            self.steps += 1
            self._shown_end = 0
        self._tapped.clear()

    def _press(self, name: str) -> None:
        session, mode = self.session, self.mode
        match name:
            case "escape":
                self.closed = True
            case "space":
                mode.paused = not mode.paused
            case ".":
                mode.paused = True
                self._step()
            case "+" | "=" | "[+]":
                mode.speed = min(FASTEST, mode.speed * 2)
            case "-" | "[-]":
                mode.speed = max(SLOWEST, mode.speed / 2)
            case "tab":
                session.select(session.selected + 1)
            case "o":
                mode.shows_observation = not mode.shows_observation
            case "s":
                session.set_greedy(not session.greedy)
            case "n":
                session.begin(session.show + 1)
                self._due = self._shown_end = 0
            case "left shift":
                session.taken = True
            case "t":
                session.always = not session.always or session.player is None
            case _ if name in session.keymap.names:
                self._press_action(name)

    def _press_action(self, name: str) -> None:
        self._down.append(name)
        self._tapped.append(name)
        session = self.session
        if session.config.view.turn_based and session.deciding and not self.mode.paused:
            if session.ended is not None:
                session.ended = None  # it has been seen; the next episode's first picture comes
                self._tapped.clear()
            elif session.waits:
                self._step()

    def _release(self, name: str) -> None:
        if name == "left shift":
            self.session.taken = False
        elif name in self._down:
            self._down.remove(name)

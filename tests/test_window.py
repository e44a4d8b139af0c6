"""The window of `watch` and `play`, driven by events as a person's keys and clicks make them, without a screen."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pygame
import pytest
import torch
from numpy.typing import NDArray

from dist_trainer.action_names import choice_names
from dist_trainer.cli import compose_train
from dist_trainer.errors import ConfigError
from dist_trainer.panel import key_of_choices
from dist_trainer.session import Session
from dist_trainer.stage import Stage, pixels, whole_factor
from dist_trainer.window import END_SECONDS, Window
from tests.test_session import learner_of, players, remembered


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


class Person:
    """Presses keys and clicks; the events go through pygame's queue."""

    def __init__(self, window: Window):
        self.window = window

    def press(self, *names: str) -> None:
        self._send([pygame.event.Event(pygame.KEYDOWN, key=pygame.key.key_code(name)) for name in names])

    def release(self, *names: str) -> None:
        self._send([pygame.event.Event(pygame.KEYUP, key=pygame.key.key_code(name)) for name in names])

    def tap(self, *names: str) -> None:
        for name in names:
            self.press(name)
            self.release(name)

    def click(self, x: float, y: float) -> None:
        self._send([pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(round(x), round(y)))])

    def wait(self, steps: float) -> int:
        """For as long as so many steps take at speed 1; how many have been made."""
        before = self.window.steps
        for _ in range(round(steps * 4)):
            self.window.advance(1 / self.window.fps / 4)
        return self.window.steps - before

    def _send(self, events: list[Any]) -> None:
        for event in events:
            pygame.event.post(event)
        for event in pygame.event.get():
            self.window.handle(event)


def open_window(*settings: str, always: bool = False, policy: bool = True, fps: float = 20) -> tuple[Window, Person]:
    if policy:
        learner = learner_of(*settings)
        session = Session(learner.config.env, players(learner), seed=3, always=always)
    else:
        session = Session(compose_train(settings)[0].env, None, seed=3, always=always)
    window = Window(session, fps)
    return window, Person(window)


def decider(window: Window) -> str:
    return "you" if window.session.deciding else "policy"


def seen_in(window: Window) -> NDArray[np.uint8]:
    window.draw()
    return pixels(window.surface)


def test_pace_pause_and_single_steps() -> None:
    window, person = open_window("env=pong")
    assert person.wait(10) == 10
    person.tap("space")
    paused = seen_in(window)
    assert person.wait(10) == 0
    person.tap(".", ".")
    assert window.steps == 12 and (seen_in(window) != paused).any()
    person.tap("space")
    assert person.wait(4) == 4
    person.tap("=")
    assert window.mode.speed == 2 and person.wait(4) == 8
    person.tap("-", "-")
    assert window.mode.speed == 0.5 and person.wait(4) == 2
    person.tap(".")
    assert window.mode.paused and person.wait(3) == 0
    person.tap("escape")
    assert window.closed


def test_a_slow_machine_does_not_make_up_for_what_it_missed() -> None:
    window, _ = open_window("env=pong", fps=60)
    window.advance(30)
    assert window.steps <= 2


def test_take_over_and_hand_back_by_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's memory in the end is that of who saw every step: no matter who decided."""
    window, person = open_window("env=pong", fps=20)
    session = window.session
    seen, done = [session.pool.observations.copy()], []
    step = session.step

    def noted(held: Any = ()) -> bool:
        stepped = step(held)
        seen.append(session.pool.observations.copy())
        done.append(int(session.pool.actions[0, 0]))
        return stepped

    monkeypatch.setattr(session, "step", noted)
    person.wait(3)
    person.press("left shift", "up")
    assert decider(window) == "you" and person.wait(4) == 4
    person.release("up")
    person.press("down")
    person.wait(3)
    person.release("down")
    person.wait(2)
    person.release("left shift")
    assert decider(window) == "policy"
    assert done[3:] == [1] * 4 + [2] * 3 + [0] * 2
    person.wait(5)
    assert session.player is not None and len(seen) == 18
    own = remembered(learner_of("env=pong"), [torch.from_numpy(x) for x in seen])
    torch.testing.assert_close(session.player.state, own, rtol=0, atol=0)


def test_a_tap_between_two_steps_counts() -> None:
    window, person = open_window("env=pong", policy=False, always=True, fps=5)
    person.tap("up")
    person.wait(1)
    assert window.session.pool.actions[0, 0] == 1
    person.wait(1)
    assert window.session.pool.actions[0, 0] == 0


def test_keys_are_not_stuck_when_the_window_loses_them() -> None:
    window, person = open_window("env=pong")
    person.press("left shift", "up")
    window.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert decider(window) == "policy"
    person.press("left shift")
    person.wait(1)
    assert window.session.pool.actions[0, 0] == 1  # pressed before the first step; nobody holds it now
    person.wait(1)
    assert window.session.pool.actions[0, 0] == 0


def test_other_agents_by_key_and_by_click() -> None:
    window, person = open_window("env=quadrotors", "env.params.agents=4")
    person.tap("tab")
    assert window.session.selected == 1
    before = seen_in(window)
    person.tap("tab", "tab", "tab")
    assert window.session.selected == 0 and (seen_in(window) != before).any()
    places = window.session.pool.places(0)
    assert places is not None
    for agent in (2, 3, 1):
        corner = np.array(window.stage.corner)
        person.click(*(places[agent] * window.stage.factor + corner))
        assert window.session.selected == agent
    person.click(window.stage.size[0] - 5, 5)  # beside the picture
    assert window.session.selected == 1
    person.press("left shift", "up")
    person.wait(1)
    np.testing.assert_allclose(window.session.pool.actions[1], [0.5, 0.5])


def test_what_else_is_to_be_seen() -> None:
    window, person = open_window("env=maze")
    plain = seen_in(window)
    person.tap("o")
    observed = seen_in(window)
    assert (observed != plain).any()
    person.tap("o")
    assert (seen_in(window) == plain).all()
    person.tap("s")
    assert window.session.greedy and (seen_in(window) != plain).any()
    assert window.session.player is not None and window.session.player.greedy
    person.tap("n")
    assert window.session.show == 1 and (seen_in(window) != plain).any()


def test_in_turn_a_press_is_a_step() -> None:
    window, person = open_window("env=game2048", policy=False, always=True)
    session = window.session
    assert person.wait(20) == 0 and session.waits
    names = ("left", "right", "up", "down")
    for number in range(1, 6):
        legal = int(session.pool.legal[0].argmax())
        person.press(names[legal])
        assert session.pool.actions[0, 0] == legal and person.wait(5) == 0  # held, it is one step
        person.release(names[legal])
        assert window.steps == number


def test_against_the_agent_in_turn() -> None:
    """You are blue, the policy is gold; after the end the picture stays until a key is pressed."""
    window, person = open_window("env=connect4", always=True, fps=10)
    session = window.session
    for _ in range(60):
        while not session.waits and session.ended is None:
            assert person.wait(1) == 1 and session.pool.actions[0, 0] == 7  # blue waits
        if session.ended is not None:
            break
        column = int(session.pool.legal[0, :7].argmax())
        person.tap(str(column + 1))
    assert session.ended is not None
    ended = seen_in(window)
    assert person.wait(100) == 0 and (seen_in(window) == ended).all()
    stones = session.steps
    person.tap("1")
    assert (window.session.ended, window.session.steps, stones) == (None, 0, 0)  # seen, not yet played
    assert (seen_in(window) != ended).any()


def test_the_end_of_an_episode_is_shown_for_a_while() -> None:
    window, person = open_window("env=cartpole", fps=50)
    while window.session.ended is None:
        person.wait(1)
    steps = window.steps
    assert person.wait(END_SECONDS * 50 * 0.9) == 0
    assert person.wait(20) > 5 and window.steps > steps


def test_pictures_are_enlarged_by_whole_factors() -> None:
    assert whole_factor((240, 320), (800, 860)) == 2
    assert whole_factor((490, 464), (800, 860)) == 1 and whole_factor((2000, 2000), (800, 860)) == 1
    assert whole_factor((10, 30), (90, 100)) == 3
    window, _ = open_window("env=pong", policy=False)
    stage = Stage(window.session.picture().shape[:2], 3)
    surface = pygame.Surface(stage.size)
    stage.draw(surface, window.session, window.mode)
    shown = pixels(surface)[stage.corner[1] :, : stage.shown[0]][: stage.shown[1]]
    assert (shown == window.session.picture().repeat(3, 0).repeat(3, 1)).all()


@pytest.mark.parametrize("name", ["acrobot", "execution", "tetris", "probe"])
def test_it_is_drawn_whatever_the_actions_are(name: str) -> None:
    settings = ["env=quadrotors", "env.view.actions=[a]", "env.params.agents=1"] if name == "probe" else [f"env={name}"]
    window, person = open_window(*settings)
    person.tap("o")
    person.wait(3)
    assert len(np.unique(seen_in(window).reshape(-1, 3), axis=0)) > 20


def test_without_a_screen_nobody_waits_for_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(ConfigError, match=r"SDL_VIDEODRIVER=nonsense: no screen .*record writes a video"):
        open_window("env=pong", policy=False)
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.setattr(pygame.display, "init", lambda: None)
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    with pytest.raises(ConfigError, match="no screen was found"):
        open_window("env=pong", policy=False)


def test_alone_the_panel_names_the_keys() -> None:
    window, _ = open_window("env=tetris", policy=False, always=True)
    keys = key_of_choices(window.session.keymap, choice_names(window.session.config.view, window.session.spec)[0])
    assert keys["column 10 turn 0"] == "0" and keys["column 1 turn 2"] == "w+1" and len(keys) == 40

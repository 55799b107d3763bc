"""Keyboards and gamepads: what a person does becomes the protocol's commands."""

import contextlib
import os
import pty
import threading
import types

import pytest

from sop_jax.actors.operator.commands import HandBack, Mark, Move, Ready, Take
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.desk import Desk
from sop_jax.actors.operator.desk_address import DeskAddress
from sop_jax.actors.operator.device import DeskClosedError, operate
from sop_jax.actors.operator.gamepad import Gamepad, open_gamepad
from sop_jax.actors.operator.keyboard import Keyboard, terminal_keys
from sop_jax.actors.operator.link import ConsoleLink
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.records import EpisodeEnd, Outcome

REST = Move("right")


@pytest.fixture
def keyboard():
    pressed = []
    clock = ManualClock()
    board = Keyboard(lambda: "".join(pressed), clock)

    def press(keys):
        pressed[:] = keys
        commands = board.poll()
        pressed.clear()
        return commands

    board.press, board.clock = press, clock
    return board


def test_keys_move_for_a_moment(keyboard):
    assert keyboard.press("wr") == [Move("right", (0.125, 0.0, 0.125))]
    keyboard.clock.advance_s(0.2)
    assert keyboard.press("w") == [Move("right", (0.125, 0.0, 0.125))]
    keyboard.clock.advance_s(0.2)
    assert keyboard.press("") == [Move("right", (0.125, 0.0, 0.0))]  # w was repeated, r was not.
    keyboard.clock.advance_s(0.2)
    assert keyboard.press("") == [REST]
    assert keyboard.press("ws") == [REST]  # They cancel.


def test_keys_command_and_mark(keyboard):
    commands = keyboard.press("tboYNx")
    assert commands == [Take(), HandBack(), Ready(), Mark(Outcome.SUCCESS), Mark(Outcome.FAILURE), REST]
    assert keyboard.press(" ") == [Move("right", gripper=1.0), REST]
    assert keyboard.press("1 ") == [Move("left", gripper=1.0), Move("left")]
    assert keyboard.press("2 ") == [Move("right", gripper=0.0), REST]
    assert keyboard.press("+++++++q") == [Move("right", angular=(0.0, 0.0, 1.2))]


def test_a_terminal_gives_its_keys_and_is_left_as_it_was():
    leader, follower = pty.openpty()
    with os.fdopen(follower, "r") as stream, terminal_keys(stream) as keys:
        assert keys() == ""
        os.write(leader, b"wt")
        assert keys() == "wt"
    os.close(leader)
    with open(os.devnull) as nothing, pytest.raises(MissingDependencyError, match="needs a terminal"):
        terminal_keys(nothing).__enter__()


class FakePad:
    """As much of SDL as is used: `axes` and `buttons` hold what differs from rest, by SDL's names."""

    name = "fake pad"

    def __init__(self):
        self.axes, self.buttons, self.is_there, self.quits, self.count = {}, set(), True, [], 1
        names = ["LEFTX", "LEFTY", "RIGHTX", "RIGHTY"]
        buttons = [
            "A",
            "B",
            "X",
            "Y",
            "LEFTSHOULDER",
            "RIGHTSHOULDER",
            "START",
            "BACK",
            "DPAD_UP",
            "DPAD_DOWN",
            "DPAD_LEFT",
            "DPAD_RIGHT",
        ]
        self.sdl = types.SimpleNamespace(
            display=types.SimpleNamespace(init=lambda: None),
            event=types.SimpleNamespace(pump=lambda: None),
            quit=lambda: self.quits.append("sdl"),
            **{f"CONTROLLER_AXIS_{name}": name for name in names},
            **{f"CONTROLLER_BUTTON_{name}": name for name in buttons},
        )
        self.controller = types.SimpleNamespace(
            init=lambda: None,
            quit=lambda: self.quits.append("controller"),
            get_count=lambda: self.count,
            is_controller=lambda number: True,
            Controller=lambda number: self,
        )

    def get_axis(self, name):
        return self.axes.get(name, 0)

    def get_button(self, name):
        return name in self.buttons

    def attached(self):
        return self.is_there


def test_a_gamepads_sticks_and_buttons():
    fake = FakePad()
    pad = Gamepad(fake.sdl, fake.controller)
    assert pad.name == "fake pad"
    fake.axes = {"LEFTY": -32768, "LEFTX": 16384, "RIGHTY": 3000, "RIGHTX": -32768}
    fake.buttons = {"DPAD_UP", "DPAD_LEFT"}
    assert pad.poll() == [Move("right", (0.125, -0.0625, 0.0), (-0.6, 0.6, 0.6))]
    fake.axes, fake.buttons = {}, {"X"}
    assert pad.poll() == [Take(), REST]
    assert pad.poll() == [REST]  # Held down, it is said once.
    fake.buttons = {"Y", "BACK", "LEFTSHOULDER"}
    assert pad.poll() == [HandBack(), Ready(), Move("left")]
    fake.buttons = {"A"}
    assert pad.poll() == [Move("left", gripper=1.0), Move("left")]
    fake.buttons = {"START"}
    pad.poll()
    fake.buttons = {"START", "B"}
    assert pad.poll() == [Mark(Outcome.FAILURE), Move("left")]
    fake.buttons = {"START", "A"}
    assert pad.poll() == [Mark(Outcome.SUCCESS), Move("left")]
    fake.is_there = False
    assert pad.poll() == []
    pad.close()
    assert fake.quits == ["controller", "sdl"]


def test_without_a_gamepad_or_without_sdl_it_says_so(monkeypatch):
    fake = FakePad()
    fake.count = 0
    with pytest.raises(MissingDependencyError, match="no gamepad was found"):
        Gamepad(fake.sdl, fake.controller)
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    with pytest.raises(MissingDependencyError, match="pip install pygame-ce"):
        open_gamepad()


class Script:
    """A device that says one thing per poll, then stops."""

    def __init__(self, stop, *commands):
        self._stop, self._commands = stop, list(commands)

    def poll(self):
        if not self._commands:
            self._stop.set()
        return self._commands.pop(0) if self._commands else []

    def close(self):
        pass


def test_a_device_takes_over_moves_and_says_when_it_rests():
    stop, heard = threading.Event(), []
    console = Console("g1-1", WallClock())
    console.begin_episode("fold", "fold it", 30.0)
    obey, console_notes = console.obey, []
    console.obey = lambda command: (heard.append(command), obey(command))
    moving = Move("right", (0.1, 0.0, 0.0))
    with Desk() as desk, contextlib.closing(ConsoleLink(console, desk.address, WallClock())):
        waiting = [[]] * 20  # a second, in which the robot calls in
        script = [
            *waiting,
            [Take(), REST],
            [REST],
            [moving],
            [moving],
            [REST],
            [REST],
            [Move("right", gripper=1.0), REST],
        ]
        operate(desk.address, "g1-1", Script(stop, *script, *[[]] * 6), stop, console_notes.append)
        stop.clear()
        operate(desk.address, "g1-9", Script(stop, [Take()], *[[]] * 6), stop, console_notes.append)
        wrong = DeskAddress(desk.address.host, desk.address.port, "wrong")
        stop.clear()
        with pytest.raises(DeskClosedError, match="wrong token"):
            operate(wrong, "g1-1", Script(stop, *[[Take()]] * 100), stop, console_notes.append)
    assert heard[0] == Take()
    # Rest is said once; motions that a busy machine overtakes with newer ones need not arrive.
    assert heard[-2:] == [REST, Move("right", gripper=1.0)]
    assert all(command == moving for command in heard[1:-2])
    assert console_notes == ["not possible now: g1-9 has no line to this desk"]


def test_a_device_judges_the_episode_that_the_desk_told_of():
    stop, heard, expected = threading.Event(), [], Mark(Outcome.SUCCESS, episode=2)
    console = Console("g1-1", WallClock())
    for _ in range(2):
        console.end_episode(EpisodeEnd(Outcome.SUCCESS))
    console.begin_episode("fold", "fold it", 30.0)
    console.obey = heard.append
    with Desk() as desk, contextlib.closing(ConsoleLink(console, desk.address, WallClock())):
        for _ in range(20):  # until the robot has called in and was told of
            if expected in heard:
                break
            stop.clear()
            operate(desk.address, "g1-1", Script(stop, *[[]] * 10, [Mark(Outcome.SUCCESS)], *[[]] * 4), stop, str)
    assert heard[-1] == expected

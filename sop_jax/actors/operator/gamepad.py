"""A gamepad as a device, through SDL (pygame-ce), which is imported when one is opened and not before."""

import importlib
import os
from collections.abc import Sequence
from typing import Any, final

from sop_jax.actors.operator.axes import HandAxes
from sop_jax.actors.operator.commands import Command, HandBack, Mark, Ready, Take
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.records import Outcome

DEAD_ZONE = 0.15
HELP = (
    "X take over, Y hand back, A gripper, shoulders left or right hand, left stick forward and sideways, right stick up and "
    "turn, cross tips and rolls; Start and A success, Start and B failure, Back: scene is set; Ctrl-C ends"
)
_FULL = 32768.0
_STICKS = (("x", "LEFTY", -1), ("y", "LEFTX", -1), ("z", "RIGHTY", -1), ("yaw", "RIGHTX", -1))
_CROSS = (("pitch", "DPAD_UP", "DPAD_DOWN"), ("roll", "DPAD_RIGHT", "DPAD_LEFT"))
_BUTTONS = ("A", "B", "X", "Y", "LEFTSHOULDER", "RIGHTSHOULDER", "START", "BACK")


@final
class Gamepad:
    """Implements `device.Device` over the first gamepad that SDL knows the layout of.

    `sdl` is the `pygame` module and `controller` its `_sdl2.controller` (or what stands in for them in tests). Not
    thread-safe, and for the main thread: SDL wants its events pumped there.
    """

    def __init__(self, sdl: Any, controller: Any):
        self._sdl = sdl
        self._controller = controller
        sdl.display.init()
        controller.init()
        known = [number for number in range(controller.get_count()) if controller.is_controller(number)]
        if not known:
            self.close()
            raise MissingDependencyError(
                "no gamepad was found: plug one in, and look whether its file in /dev/input opens"
            )
        self._pad = controller.Controller(known[0])
        self._hands = HandAxes()
        self._down: set[str] = set()

    @property
    def name(self) -> str:
        return str(self._pad.name)

    def poll(self) -> Sequence[Command]:
        self._sdl.event.pump()
        before, self._down = self._down, {name for name in _BUTTONS if self._is_down(name)}
        pressed = [name for name in _BUTTONS if name in self._down - before]
        commands = [command for name in pressed if (command := self._press(name)) is not None]
        if not self._pad.attached():
            return commands  # Motions that aren't repeated run out by themselves.
        return [*commands, self._hands.move(self._axes())]

    def close(self) -> None:
        self._controller.quit()
        self._sdl.quit()

    def _press(self, name: str) -> Command | None:
        if "START" in self._down and name in "AB":
            return Mark(Outcome.SUCCESS if name == "A" else Outcome.FAILURE)
        if name in ("LEFTSHOULDER", "RIGHTSHOULDER"):
            self._hands.hand = "left" if name == "LEFTSHOULDER" else "right"
        if name == "A":
            return self._hands.toggle_gripper()
        return {"X": Take(), "Y": HandBack(), "BACK": Ready()}.get(name)

    def _axes(self) -> dict[str, float]:
        axes = {axis: sign * self._stick(name) for axis, name, sign in _STICKS}
        axes |= {axis: float(self._is_down(up)) - float(self._is_down(down)) for axis, up, down in _CROSS}
        return axes

    def _stick(self, name: str) -> float:
        value = self._pad.get_axis(getattr(self._sdl, f"CONTROLLER_AXIS_{name}")) / _FULL
        return 0.0 if abs(value) < DEAD_ZONE else value

    def _is_down(self, name: str) -> bool:
        return bool(self._pad.get_button(getattr(self._sdl, f"CONTROLLER_BUTTON_{name}")))


def open_gamepad() -> Gamepad:
    """The first gamepad. Raises MissingDependencyError without SDL or without one."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window: a gamepad needs none
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        return Gamepad(importlib.import_module("pygame"), importlib.import_module("pygame._sdl2.controller"))
    except ImportError as error:
        raise MissingDependencyError(
            f"a gamepad needs SDL: pip install pygame-ce ({error}); the operator's page reads gamepads without it"
        ) from error

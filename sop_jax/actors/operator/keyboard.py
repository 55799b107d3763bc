"""A terminal's keyboard as a device. The keys are the page's; two more mark the episode."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from typing import IO, final

from sop_jax.actors.operator.axes import HandAxes
from sop_jax.actors.operator.commands import Command, HandBack, Mark, Ready, Take
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.records import Outcome

HOLD_S = 0.3
"""A terminal tells presses and repeats, no releases: a motion goes on for so long after its key was last heard."""

MOVES = {
    "w": ("x", 1), "s": ("x", -1), "a": ("y", 1), "d": ("y", -1), "r": ("z", 1), "f": ("z", -1),
    "q": ("yaw", 1), "e": ("yaw", -1), "i": ("pitch", 1), "k": ("pitch", -1), "j": ("roll", -1), "l": ("roll", 1),
}  # fmt: skip
HELP = (
    "t take over, b hand back, Y success, N failure, o scene is set; 1 2 left or right hand, space gripper; "
    "w s a d r f move, q e turn, i k tip, j l roll; + - speed; Ctrl-C ends"
)


@final
class Keyboard:
    """Implements `device.Device` over a terminal's keys (anything that gives the pressed characters, in tests)."""

    def __init__(self, read_keys: Callable[[], str], clock: Clock):
        self._read_keys = read_keys
        self._clock = clock
        self._hands = HandAxes()
        self._heard_ns: dict[str, int] = {}

    def poll(self) -> Sequence[Command]:
        commands = [command for key in self._read_keys() if (command := self._press(key)) is not None]
        now_ns = self._clock.now_ns()
        held = [MOVES[key] for key, heard_ns in self._heard_ns.items() if now_ns - heard_ns <= HOLD_S * 1e9]
        axes: dict[str, float] = {}
        for axis, sign in held:
            axes[axis] = axes.get(axis, 0.0) + sign
        return [*commands, self._hands.move(axes)]

    def close(self) -> None:
        self._heard_ns.clear()

    def _press(self, key: str) -> Command | None:
        if key in MOVES:
            self._heard_ns[key] = self._clock.now_ns()
        elif key in "12":
            self._heard_ns.clear()
            self._hands.hand = "left" if key == "1" else "right"
        elif key in "+-":
            self._hands.share = min(1.0, max(0.1, self._hands.share + (0.1 if key == "+" else -0.1)))
        elif key == " ":
            return self._hands.toggle_gripper()
        return {
            "t": Take(), "b": HandBack(), "o": Ready(), "Y": Mark(Outcome.SUCCESS), "N": Mark(Outcome.FAILURE),
        }.get(key)  # fmt: skip


@contextlib.contextmanager
def terminal_keys(stream: IO[str] = sys.stdin):
    """A function that gives the keys pressed since its last call; the terminal is as it was afterwards.

    Raises:
        MissingDependencyError: there is no terminal.
    """
    if not stream.isatty():
        raise MissingDependencyError("the keyboard needs a terminal, and standard input isn't one")
    number = stream.fileno()
    before = termios.tcgetattr(number)

    def read_keys() -> str:
        ready, _, _ = select.select([number], [], [], 0)
        return os.read(number, 64).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield read_keys
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)

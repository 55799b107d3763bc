"""`sop operate`: a keyboard or a gamepad drives one robot, through the operator's desk."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Literal

from sop_jax.actors.operator import gamepad, keyboard
from sop_jax.actors.operator.desk_address import parse_link
from sop_jax.actors.operator.device import Device, operate
from sop_jax.cli.arguments import parse
from sop_jax.cli.operator_options import LINK_VARIABLE
from sop_jax.cli.output import note, print_json
from sop_jax.cli.stopping import StopRequests
from sop_jax.specs.clock import WallClock
from sop_jax.specs.identifiers import check_name


@dataclasses.dataclass(frozen=True)
class OperateArguments:
    """A device in a person's hands at one robot. The link that `sop act --operator` printed must be in the environment
    variable SOP_OPERATOR_LINK: it holds a token, which has no place on a command line. Ctrl-C ends it: the robot holds."""

    robot_id: str
    """Which robot."""

    device: Literal["keyboard", "gamepad"] = "keyboard"
    """keyboard: this terminal's. gamepad: the first one that SDL finds (needs pygame-ce)."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(OperateArguments, argv, "operate")
    address = parse_link(os.environ.get(LINK_VARIABLE, ""))
    check_name("robot_id", arguments.robot_id)
    stop = threading.Event()
    with _open(arguments.device) as device, StopRequests(on_request=stop.set):
        num_commands = operate(address, arguments.robot_id, device, stop, note)
    if arguments.json:
        print_json({"robot_id": arguments.robot_id, "num_commands": num_commands})
    return 0


@contextlib.contextmanager
def _open(name: str) -> Iterator[Device]:
    with contextlib.ExitStack() as stack:
        if name == "gamepad":
            pad = stack.enter_context(contextlib.closing(gamepad.open_gamepad()))
            note(f"{pad.name}: {gamepad.HELP}")
            yield pad
        else:
            keys = stack.enter_context(keyboard.terminal_keys())
            note(keyboard.HELP)
            yield stack.enter_context(contextlib.closing(keyboard.Keyboard(keys, WallClock())))

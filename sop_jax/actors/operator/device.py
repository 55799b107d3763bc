"""A person's device at one robot: what it says goes over a line to the desk, like what the page says."""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from sop_jax.actors.operator.commands import Command, Move, OfEpisode, read_object, write_command
from sop_jax.actors.operator.desk_address import PING_S, PONG_S, DeskAddress
from sop_jax.specs.errors import SopError

PERIOD_S = 0.05


class DeskClosedError(SopError):
    """The desk hung up, or isn't there."""


class Device(Protocol):
    """Something in a person's hands. `poll` gives what happened since the last call, and the motion that goes on now."""

    def poll(self) -> Sequence[Command]: ...

    def close(self) -> None: ...


def operate(
    address: DeskAddress, robot_id: str, device: Device, stop: threading.Event, note: Callable[[str], None]
) -> int:
    """Passes on what a device says, twenty times a second, until `stop`; returns how many commands that were.

    That a motion is over is said once. Judgements and marks go out with the episode that the desk told of last, so that they
    don't meet one that began meanwhile.

    Raises:
        DeskClosedError: there is no desk, it doesn't know the token, or it hung up.
    """
    hello = {"type": "hello", "token": address.token, "role": "person"}
    try:
        with connect(
            address.socket_url, compression=None, proxy=None, ping_interval=PING_S, ping_timeout=PONG_S
        ) as line:
            line.send(json.dumps(hello))
            episodes: dict[str, int] = {}
            listener = threading.Thread(
                target=_listen, args=(line, note, episodes), name="operator-device", daemon=True
            )
            listener.start()
            was_moving, num_sent = False, 0
            while not stop.wait(PERIOD_S):
                if not listener.is_alive():
                    why = line.close_reason or "without a word"
                    raise DeskClosedError(f"the operator's desk at {address.socket_url} hung up: {why}")
                commands = device.poll()
                is_moving = any(isinstance(command, Move) and _moves(command) for command in commands)
                for command in commands:
                    if not isinstance(command, Move) or is_moving or was_moving or command.gripper is not None:
                        line.send(write_command(_with_episode(command, episodes.get(robot_id)), robot_id))
                        num_sent += 1
                was_moving = is_moving
            return num_sent
    except (OSError, WebSocketException) as error:
        raise DeskClosedError(f"no line to the operator's desk at {address.socket_url}: {error}") from error


def _moves(command: Move) -> bool:
    return any(command.linear) or any(command.angular)


def _with_episode(command: Command, episode: int | None) -> Command:
    return dataclasses.replace(command, episode=episode) if isinstance(command, OfEpisode) else command


def _listen(line: ClientConnection, note: Callable[[str], None], episodes: dict[str, int]) -> None:
    """Notes refusals, and keeps in `episodes` which one each robot is at."""
    try:
        while True:
            message = line.recv()
            if not isinstance(message, str):
                continue
            told = read_object(message)
            if told["type"] == "refused":
                note(f"not possible now: {told.get('why', '')}")
            elif told["type"] == "robots":
                episodes.update({robot["robot_id"]: robot["num_episodes"] for robot in told["robots"]})
    except ConnectionClosed:
        pass

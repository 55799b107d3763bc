"""A robot's line to the desk: it calls out, so a robot needs no open port."""

import contextlib
import json
import threading
from collections.abc import Callable
from typing import final

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from sop_jax.actors.operator.commands import BadMessageError, parse_command, read_object
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.desk_address import PING_S, PONG_S, DeskAddress
from sop_jax.actors.operator.pictures import PictureHead, join_picture
from sop_jax.episodes.images import encode_image
from sop_jax.specs.clock import Clock

STATUS_PERIOD_S = 0.1
RETRY_S = 1.0
_LISTEN_S = 0.02
_QUALITY = 80


@final
class ConsoleLink:
    """Keeps one console connected, on a thread of its own, until `close`.

    Statuses go out ten times a second, pictures as they come while somebody watches; commands are obeyed as they arrive. A
    line that drops is taken up again every second: meanwhile motions run out, and the robot goes on as it was told last.
    """

    def __init__(self, console: Console, desk: DeskAddress, clock: Clock, note: Callable[[str], None] = lambda _: None):
        self._console = console
        self._desk = desk
        self._clock = clock
        self._note = note
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operator-link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        was_told = False
        while not self._closing.is_set():
            try:
                with connect(
                    self._desk.socket_url, compression=None, proxy=None, open_timeout=5, close_timeout=1,
                    ping_interval=PING_S, ping_timeout=PONG_S,
                ) as connection:  # fmt: skip
                    self._greet(connection)
                    was_told = False
                    self._talk(connection)
            except (OSError, WebSocketException, BadMessageError) as error:
                if not was_told:
                    self._note(f"no line to the operator's desk at {self._desk.socket_url}: {error}; trying again")
                was_told = True
            self._console.watched = False
            self._closing.wait(RETRY_S)

    def _greet(self, connection: ClientConnection) -> None:
        hello = {"type": "hello", "token": self._desk.token, "role": "robot", "robot": self._console.status.robot_id}
        connection.send(json.dumps(hello))
        answer = read_object(connection.recv(timeout=5))
        if answer["type"] != "welcome":
            raise BadMessageError(f"the desk refused this robot: {answer.get('why', answer)}")

    def _talk(self, connection: ClientConnection) -> None:
        next_status_ns, shown = 0, -1
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                self._obey(connection.recv(timeout=_LISTEN_S))
            if (now_ns := self._clock.now_ns()) >= next_status_ns:
                next_status_ns = now_ns + round(STATUS_PERIOD_S * 1e9)
                connection.send(self._console.status.to_json())
            if self._console.watched:
                shown = self._send_pictures(connection, shown)

    def _obey(self, text: str | bytes) -> None:
        message = read_object(text)
        if message["type"] == "watched":
            self._console.watched = message.get("by", 0) != 0
            return
        try:
            self._console.obey(parse_command(message))
        except BadMessageError as error:
            self._note(f"the desk sent something else than a command: {error}")

    def _send_pictures(self, connection: ClientConnection, shown: int) -> int:
        number, images = self._console.pictures
        if number == shown:
            return shown
        robot_id = self._console.status.robot_id
        for camera, image in images.items():
            jpeg = encode_image(image, _QUALITY)
            connection.send(join_picture(PictureHead(robot_id, camera, number), jpeg))
        return number

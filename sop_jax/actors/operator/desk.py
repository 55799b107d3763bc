"""The desk: one page for many robots, and the lines that robots, people and devices call in on."""

import asyncio
import contextlib
import hmac
import importlib.resources
import json
import threading
import time
from collections.abc import Callable
from typing import Self, final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from sop_jax.actors.operator.commands import BadMessageError, read_object
from sop_jax.actors.operator.desk_address import PING_S, PONG_S, DeskAddress, new_token
from sop_jax.actors.operator.room import Guest, Room
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.specs.identifiers import check_name

HOST = "127.0.0.1"
REPORT_PERIOD_S = 0.1
_HELLO_S = 5.0
_MAX_MESSAGE_BYTES = 2**21
_BAD_MESSAGE = 4400
_WRONG_TOKEN = 4401
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/driving.js": ("driving.js", "text/javascript; charset=utf-8"),
}
_SAFETY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@final
class Desk:
    """Serves the page and its lines on a thread of its own, from construction to `close`.

        with Desk(port=8790) as desk:
            print(desk.address.link)             # opens the page; the token is in it

    The page holds no secret and goes to anybody; a line opens to whoever knows the token, which is made afresh here unless
    one is given. Nothing is encrypted, so leave it on loopback, or behind a tunnel. Port 0 takes a free one.

    Raises:
        ConfigError: the port can't be had, or is none.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = HOST,
        token: str | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ):
        self._host, self._port = host, port
        self._token = token or new_token()
        self._room = Room(now_ns)
        self._failure: Exception | None = None
        self._is_open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="operator-desk", daemon=True)
        self._thread.start()
        self._is_open.wait()
        if self._failure is not None:
            self._thread.join()
            raise ConfigError(
                f"the operator's desk can't listen on {host}:{port}: {self._failure}; choose another port (0 .. 65535, 0 "
                "takes a free one), and a host that is this computer's"
            ) from self._failure

    @property
    def address(self) -> DeskAddress:
        return DeskAddress(self._host, self._port, self._token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:  # a port beyond 65535 is an OverflowError, a host can be a UnicodeError
                if self._is_open.is_set():
                    raise
                self._failure = error
            finally:
                self._is_open.set()

    async def _serve(self) -> None:
        server = serve(
            self._answer, self._host, self._port, process_request=_give_page, compression=None,
            max_size=_MAX_MESSAGE_BYTES, server_header=None, ping_interval=PING_S, ping_timeout=PONG_S,
        )  # fmt: skip
        async with server as listening:
            self._port = _port_of(listening)
            self._is_open.set()
            while not self._closing.is_set():
                self._room.report()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), REPORT_PERIOD_S)

    async def _answer(self, connection: ServerConnection) -> None:
        guest: Guest | None = None
        sending: asyncio.Task[None] | None = None
        try:
            guest = self._admit(await asyncio.wait_for(connection.recv(), _HELLO_S))
            self._room.enter(guest)
            await connection.send(json.dumps({"type": "welcome"}))
            sending = asyncio.create_task(_send(guest, connection))
            async for message in connection:
                if isinstance(message, bytes):
                    self._room.hear_picture(guest, message)
                else:
                    self._room.hear(guest, read_object(message))
        except _WrongTokenError:
            await connection.close(_WRONG_TOKEN, "wrong token")
        except BadMessageError as error:
            await connection.close(_BAD_MESSAGE, str(error).encode("ascii", "replace")[:100].decode())
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            if guest is not None:
                self._room.leave(guest)
            if sending is not None:
                sending.cancel()

    def _admit(self, text: str | bytes) -> Guest:
        message = read_object(text)
        token, role, robot = message.get("token"), message.get("role"), message.get("robot", "")
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(errors="replace"), self._token.encode()):
            raise _WrongTokenError("wrong token")
        if message["type"] != "hello" or role not in ("robot", "person", "device"):
            raise BadMessageError(f"expected a hello of a robot, person or device, got {role!r}")
        try:
            return Guest(role, check_name("robot_id", robot) if role == "robot" else "")
        except SopError as error:
            raise BadMessageError(str(error)) from error


class _WrongTokenError(SopError):
    """Somebody who doesn't know the token."""


async def _send(guest: Guest, connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        await guest.outbox.drain(connection)


def _give_page(connection: ServerConnection, request: Request) -> Response | None:
    del connection
    if request.path == "/line":
        return None
    if request.path not in _PAGE:
        return Response(404, "Not Found", Headers({"Content-Length": "0", "Connection": "close"}), b"")
    name, kind = _PAGE[request.path]
    body = importlib.resources.files("sop_jax.actors.operator").joinpath("page", name).read_bytes()
    head = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close", **_SAFETY})
    return Response(200, "OK", head, body)


def _port_of(server: Server) -> int:
    return next(iter(server.sockets)).getsockname()[1]

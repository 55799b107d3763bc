"""Messages on their way to one connection: the newest of each kind, so that a slow reader delays nobody."""

import asyncio
import itertools
from collections.abc import Hashable
from typing import Protocol, final

_MAX_KEPT = 200


class Sender(Protocol):
    """A connection."""

    async def send(self, message: str | bytes, /) -> None: ...


@final
class Outbox:
    """What is put under a key that still waits replaces it; without a key, everything is sent, in order.

    A reader so slow that 200 messages wait for it loses the oldest.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str | bytes] = {}
        self._counter = itertools.count()
        self._is_filled = asyncio.Event()

    def put(self, message: str | bytes, key: Hashable = None) -> None:
        place = ("once", next(self._counter)) if key is None else ("newest", key)
        self._waiting.pop(place, None)  # the newest comes after what was put since the one that it replaces
        self._waiting[place] = message
        if len(self._waiting) > _MAX_KEPT:
            del self._waiting[next(iter(self._waiting))]
        self._is_filled.set()

    async def drain(self, connection: Sender) -> None:
        """Sends for ever."""
        while True:
            await self._is_filled.wait()
            while self._waiting:
                await connection.send(self._waiting.pop(next(iter(self._waiting))))
            self._is_filled.clear()

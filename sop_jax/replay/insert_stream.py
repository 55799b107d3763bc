"""Inserts over streams that stay open, with what several threads insert at once in common messages.

    threads --tickets--> pending --the first of them leads--> messages --> server
                                   (the others wait)     <-- confirmations

A message costs as much as many items, and so does a call. So whoever comes while a stream is busy waits, and all who
waited go together: a group commit. Encoded requests may be joined, because protobuf merges what is concatenated.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import grpc

MAX_ITEMS_PER_MESSAGE = 64
MAX_BYTES_PER_MESSAGE = 2 << 20
_MAX_WAITING = 4
"""Messages made and not yet sent: enough to keep the network busy, few enough to bound what a large insert holds."""
_MAX_IDLE_S = 20.0
"""A stream that rested longer is not used again: whatever lies between may have forgotten it (nginx does after 60 s)."""

Start = Callable[[Iterator[bytes]], grpc.Call]
"""Opens the server's InsertStream with an iterator of encoded requests; its answers are InsertStreamResponse."""


class OverdueError(Exception):
    """Not everything was confirmed in time; it may still land."""


class StreamEndedError(Exception):
    """The server ended the stream before it had confirmed everything."""


class _OthersDeadlineError(Exception):
    """Whoever led had less time than we have."""


class Request(NamedTuple):
    """An encoded InsertStreamRequest, and how many items it holds."""

    encoded: bytes
    num_items: int


class InsertStream:
    """One stream. `send` from one thread at a time; after an exception, `close` it and open another."""

    def __init__(self, start: Start):
        self._requests: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        self._answers: queue.SimpleQueue[int | grpc.RpcError | None] = queue.SimpleQueue()
        self._stream = start(iter(self._requests.get, None))
        self._used_s = time.monotonic()
        threading.Thread(target=self._read, name="reverb-confirmations", daemon=True).start()

    @property
    def is_fresh(self) -> bool:
        """Whether it was in use a moment ago."""
        return time.monotonic() - self._used_s < _MAX_IDLE_S

    def send(self, requests: Iterable[Request], deadline_s: float) -> None:
        """Sends requests and waits until every item is confirmed.

        Raises:
            OverdueError, StreamEndedError, or grpc.RpcError if the stream broke.
        """
        num_left = 0
        try:
            for request in requests:
                self._requests.put(request.encoded, timeout=max(0.0, deadline_s - time.monotonic()))
                num_left += request.num_items
            while num_left > 0:
                answer = self._answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
                if answer is None:
                    raise StreamEndedError(f"{num_left} items were not confirmed")
                if isinstance(answer, grpc.RpcError):
                    raise answer
                num_left -= answer
        except (queue.Full, queue.Empty) as error:
            raise OverdueError(f"{num_left} items were not confirmed") from error
        self._used_s = time.monotonic()

    def close(self) -> None:
        """Ends the stream, whatever it is at."""
        self._stream.cancel()
        with contextlib.suppress(queue.Full):  # then whoever takes one will find the stream cancelled
            self._requests.put_nowait(None)

    def _read(self) -> None:
        try:
            for response in self._stream:  # pyright: ignore[reportGeneralTypeIssues]  (a grpc.Call of a stream iterates)
                self._answers.put(len(response.keys))
        except grpc.RpcError as error:
            self._answers.put(error)
        else:
            self._answers.put(None)


class _Ticket:
    """What one thread wants to insert, and what became of it."""

    def __init__(self, requests: Callable[[], Iterable[Request]]):
        self.requests = requests
        self.woken = threading.Event()
        self.leads = False
        self.error: BaseException | None = None


class InsertGroup:
    """Inserts of many threads over one stream. Thread-safe. One per table, for a limiter may hold back a table's inserts."""

    def __init__(self, start: Start):
        self._start = start
        self._lock = threading.Lock()
        self._pending: list[_Ticket] = []
        self._is_led = False
        self._stream: InsertStream | None = None

    def insert(self, requests: Callable[[], Iterable[Request]], timeout_s: float) -> None:
        """Returns once every item is confirmed. `requests` makes them while earlier ones travel, on the thread that leads; it
        may be called again. Raises as `InsertStream.send`.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            ticket = _Ticket(requests)
            try:
                self._ride(ticket, deadline_s)
            except _OthersDeadlineError:
                continue
            return

    def close(self) -> None:
        """Closes the stream if nobody uses it."""
        with self._lock:
            stream = None if self._is_led else self._stream
            self._stream = self._stream if self._is_led else None
        if stream is not None:
            stream.close()

    def _ride(self, ticket: _Ticket, deadline_s: float) -> None:
        with self._lock:
            self._pending.append(ticket)
            ticket.leads, self._is_led = not self._is_led, True
        if not ticket.leads and not ticket.woken.wait(max(0.0, deadline_s - time.monotonic())):
            with self._lock:
                if not ticket.leads:  # else somebody has just passed the lead to us
                    if ticket in self._pending:
                        self._pending.remove(ticket)
                    raise OverdueError("others' items were in the way")
        if ticket.leads:
            self._lead(ticket, deadline_s)
        if ticket.error is not None:
            raise ticket.error

    def _lead(self, ticket: _Ticket, deadline_s: float) -> None:
        """Sends what is pending, and passes the lead on."""
        with self._lock:
            batch, self._pending = self._pending, []
        error: BaseException | None = None
        try:
            self._open().send(_join(request for rider in batch for request in rider.requests()), deadline_s)
        except BaseException as raised:
            error = raised
            self._drop()
        for rider in batch:
            rider.error = error
            if rider is not ticket and (isinstance(error, OverdueError) or not isinstance(error, Exception | None)):
                rider.error = _OthersDeadlineError()
            rider.woken.set()
        with self._lock:
            self._is_led = bool(self._pending)
            if self._pending:
                self._pending[0].leads = True
                self._pending[0].woken.set()
        if error is not None:
            raise error

    def _open(self) -> InsertStream:
        if self._stream is not None and not self._stream.is_fresh:
            self._drop()
        if self._stream is None:
            self._stream = InsertStream(self._start)
        return self._stream

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _join(requests: Iterable[Request]) -> Iterator[Request]:
    """The same items in as few messages as may be."""
    parts: list[bytes] = []
    num_bytes = num_items = 0
    for request in requests:
        full = num_bytes + len(request.encoded) > MAX_BYTES_PER_MESSAGE
        if parts and (full or num_items + request.num_items > MAX_ITEMS_PER_MESSAGE):
            yield Request(b"".join(parts), num_items)
            parts, num_bytes, num_items = [], 0, 0
        parts.append(request.encoded)
        num_bytes += len(request.encoded)
        num_items += request.num_items
    if parts:
        yield Request(parts[0] if len(parts) == 1 else b"".join(parts), num_items)

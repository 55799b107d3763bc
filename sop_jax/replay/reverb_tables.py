"""Replay tables on a Reverb server, over its gRPC protocol and without TensorFlow."""

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from sop_jax.replay import wire
from sop_jax.replay.insert_stream import (
    MAX_BYTES_PER_MESSAGE,
    MAX_ITEMS_PER_MESSAGE,
    InsertGroup,
    OverdueError,
    Request,
    StreamEndedError,
)
from sop_jax.replay.items import check_item
from sop_jax.replay.proto import reverb_pb2 as pb
from sop_jax.replay.table_names import table_not_found
from sop_jax.replay.tls import TlsFiles, open_channel, why_not_trusted
from sop_jax.specs.errors import (
    RateLimitedError,
    ReplayAccessError,
    ReplayUnavailableError,
    SopError,
    TableNotFoundError,
)
from sop_jax.specs.interfaces import Item, SampledItem, TableInfo

_SERVICE = "/deepmind.reverb.ReverbService/"
_TRANSPORT_S = 5.0
"""What a sample call may take beyond the limiter's timeout, for the network and the server's own work."""
_CONNECT_S = 1.0
"""What a call may spend on finding the server, however short its own timeout."""
_PROBE_S = 2.0
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0
"""Pauses before a call is tried again: a proxy answers for an absent server, so that the channel has nothing to wait for."""

_ASK_EVERY_S = 30.0
_ACCESS_ADVICE = {
    grpc.StatusCode.UNAUTHENTICATED: (
        "Give a certificate that `launch/tls/ca.sh client` made with the server's own CA, and that is valid today"
    ),
    grpc.StatusCode.PERMISSION_DENIED: "Give a certificate of the role that this command needs (`launch/tls/ca.sh client`)",
}

_Result = TypeVar("_Result")


class ReverbTables:
    """`ReplayTables` on the Reverb server at `address` ("host:port").

        tables = ReverbTables("localhost:8000")
        tables.insert("pick/online", [encode_segment(segment)])
        items = tables.sample("pick/online", num=32, timeout_s=0.1)

    Nothing is contacted before the first call. A call that finds the server away waits for it, and raises
    ReplayUnavailableError when its timeout has passed; the next call tries again, so a restarted server is found by
    itself. Timeouts are real seconds: a network knows no simulated time.

    An insert that timed out may still land on the server later; keys make the repetition harmless.

    With `tls`, the server is the one behind `sop replay --tls`: both sides show certificates. Who isn't trusted, or has not
    the role for a call, gets ReplayAccessError; trying again won't help. The files are read once, here (ConfigError).
    """

    def __init__(self, address: str, tls: TlsFiles | None = None):
        self._address = address
        self._tls = tls
        self._channel = open_channel(address, tls)
        self._connected = False
        self._closed = False
        self._ask_again_s = 0.0
        # Requests come encoded.
        self._insert_stream = self._channel.stream_stream(
            _SERVICE + "InsertStream", response_deserializer=pb.InsertStreamResponse.FromString
        )
        self._lock = threading.Lock()
        self._inserts: dict[str, InsertGroup] = {}
        # SampleStream takes a stream of requests; one request and the end of the stream look the same on the wire.
        self._sample = self._channel.unary_stream(
            _SERVICE + "SampleStream",
            request_serializer=pb.SampleStreamRequest.SerializeToString,
            response_deserializer=pb.SampleStreamResponse.FromString,
        )
        self._mutate = self._unary("MutatePriorities", pb.MutatePrioritiesRequest, pb.MutatePrioritiesResponse)
        self._server_info = self._unary("ServerInfo", pb.ServerInfoRequest, pb.ServerInfoResponse)
        self._reset = self._unary("Reset", pb.ResetRequest, pb.ResetResponse)
        self._checkpoint = self._unary("Checkpoint", pb.CheckpointRequest, pb.CheckpointResponse)

    def insert(self, table: str, items: Sequence[Item], timeout_s: float = 30.0) -> None:
        if not items:
            return
        for item in items:
            check_item(item)

        def attempt(remaining_s: float) -> None:
            try:
                self._inserts_into(table).insert(functools.partial(_insert_requests, table, items), remaining_s)
            except OverdueError as error:
                self._connected = False
                raise self._held_back("insert", table, timeout_s) from error
            except StreamEndedError as error:
                raise ReplayUnavailableError(
                    f"reverb at {self._address} ended the stream of items for {table!r} before it had confirmed all "
                    f"{len(items)}; insert them again"
                ) from error

        self._call("insert", table, timeout_s, attempt)

    def sample(self, table: str, num: int, timeout_s: float = 1.0) -> list[SampledItem]:
        if num < 1:
            raise ValueError(f"sample from {table!r}: num must be at least 1, got {num}")
        give_up_s = time.monotonic() + timeout_s
        sampled: list[SampledItem] = []

        def attempt(remaining_s: float) -> None:
            limiter_ms = max(1, round((give_up_s - time.monotonic()) * 1e3))  # 0 would mean for ever
            request = pb.SampleStreamRequest(table=table, num_samples=num - len(sampled))
            request.rate_limiter_timeout.milliseconds = limiter_ms
            stream = self._sample(request, timeout=remaining_s)
            try:
                for item in _read_samples(stream):
                    sampled.append(item)
                    if len(sampled) == num:
                        return
            except grpc.RpcError as error:
                if not sampled:
                    raise
                del error  # what came before the limiter or the network stopped us is worth returning
            finally:
                stream.cancel()

        self._call("sample", table, timeout_s, attempt, extra_s=_TRANSPORT_S)
        if not sampled:
            raise ReplayUnavailableError(
                f"reverb at {self._address} sent no sample of {table!r} and no error; try again"
            )
        return sampled

    def update_priorities(
        self, table: str, priorities: Mapping[int, float], delete: Sequence[int] = (), timeout_s: float = 30.0
    ) -> None:
        request = pb.MutatePrioritiesRequest(table=table, delete_keys=list(delete))
        for key, priority in priorities.items():
            request.updates.add(key=key, priority=priority)
        self._call("update_priorities", table, timeout_s, lambda left_s: self._mutate(request, timeout=left_s))

    def info(self, timeout_s: float = 30.0) -> Mapping[str, TableInfo]:
        return {
            info.name: TableInfo(
                name=info.name,
                size=info.current_size,
                max_size=info.max_size,
                num_inserted=info.rate_limiter_info.insert_stats.completed,
                num_sampled=info.rate_limiter_info.sample_stats.completed,
            )
            for info in self._read_server_info(timeout_s).table_info
        }

    def state_id(self, timeout_s: float = 30.0) -> str:
        state = self._read_server_info(timeout_s).tables_state_id
        return f"{state.high:016x}{state.low:016x}"

    def reset(self, table: str, timeout_s: float = 30.0) -> None:
        request = pb.ResetRequest(table=table)
        self._call("reset", table, timeout_s, lambda left_s: self._reset(request, timeout=left_s))

    def checkpoint(self, timeout_s: float = 120.0) -> str:
        """Has the server write its tables to its checkpoint directory; returns the path there."""
        request = pb.CheckpointRequest()
        return self._call("checkpoint", "", timeout_s, lambda s: self._checkpoint(request, timeout=s)).checkpoint_path

    def close(self) -> None:
        self._closed = True
        with self._lock:
            for group in self._inserts.values():
                group.close()
        self._channel.close()

    def _inserts_into(self, table: str) -> InsertGroup:
        with self._lock:
            if table not in self._inserts:
                self._inserts[table] = InsertGroup(self._insert_stream)
            return self._inserts[table]

    def _unary(self, method: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _read_server_info(self, timeout_s: float) -> pb.ServerInfoResponse:
        request = pb.ServerInfoRequest()
        return self._call("info", "", timeout_s, lambda left_s: self._server_info(request, timeout=left_s))

    def _call(
        self,
        what: str,
        table: str,
        timeout_s: float,
        attempt: Callable[[float], _Result],
        extra_s: float = 0.0,
    ) -> _Result:
        """Runs `attempt(seconds left)`, again while the connection breaks, and translates what goes wrong.

        A server that is away is waited for `timeout_s`; one that is there has `extra_s` more.
        """
        start_s = time.monotonic()
        deadline_s = start_s + timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            self._connect(what, table, timeout_s, start_s + max(timeout_s, _CONNECT_S))
            try:
                return attempt(max(0.01, deadline_s + extra_s - time.monotonic()))
            except grpc.RpcError as error:
                final = self._final_error(error, what, table, timeout_s)
                left_s = deadline_s - time.monotonic()
                if final is not None or left_s <= 0:
                    raise final or self._away(what, table, timeout_s) from error
            time.sleep(min(left_s, pause_s * random.uniform(0.5, 1.0)))  # not all clients at once
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _final_error(self, error: grpc.RpcError, what: str, table: str, timeout_s: float) -> SopError | None:
        """What a call's failure means to the caller; None if it should be tried again."""
        code, details = _status(error)
        if code is grpc.StatusCode.NOT_FOUND:
            return self._table_not_found(table)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and details.startswith("Rate Limiter"):
            return RateLimitedError(
                f"table {table!r} at {self._address} held back {what} for the whole timeout: it is too empty, or sampled "
                "faster than filled"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._connected = False
            return self._away(what, table, timeout_s)
        if code in _ACCESS_ADVICE:
            return ReplayAccessError(
                f"reverb at {self._address} refused {what} {table!r}: {details}. {_ACCESS_ADVICE[code]}"
            )
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or "RST_STREAM" in details:
            self._connected = False
            return None
        return SopError(f"reverb at {self._address} refused {what} {table!r}: {code} {details}")

    def _connect(self, what: str, table: str, timeout_s: float, deadline_s: float) -> None:
        """Waits for the server unless the last call reached it."""
        if self._closed:
            raise ReplayUnavailableError(f"{what}: this ReverbTables for {self._address} was closed")
        if self._connected:
            return
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=max(0.0, deadline_s - time.monotonic()))
        except grpc.FutureTimeoutError as error:
            if reason := self._why_not_trusted():
                raise ReplayAccessError(
                    f"{what} {table!r}: reverb at {self._address} is there, but {reason}"
                ) from error
            raise self._away(what, table, timeout_s) from error
        finally:
            ready.cancel()
        self._connected = True

    def _why_not_trusted(self) -> str:
        """Asked now and then only, because it takes time that the call no longer has."""
        now_s = time.monotonic()
        if now_s < self._ask_again_s:
            return ""
        self._ask_again_s = now_s + _ASK_EVERY_S
        return why_not_trusted(self._address, self._tls, _CONNECT_S)

    def _away(self, what: str, table: str, timeout_s: float) -> SopError:
        return ReplayUnavailableError(
            f"{what} {table!r}: no answer from reverb at {self._address} within {timeout_s:g} s. Is it running and "
            "reachable? The call may be repeated."
        )

    def _held_back(self, what: str, table: str, timeout_s: float) -> SopError:
        """A held-back insert just waits, so ask whether the server is alive to tell the limiter from an outage."""
        try:
            self._server_info(pb.ServerInfoRequest(), timeout=_PROBE_S)
        except grpc.RpcError:
            return self._away(what, table, timeout_s)
        return RateLimitedError(
            f"table {table!r} at {self._address} held back {what} for {timeout_s:g} s: sampling must catch up first, or "
            "raise the table's max_diff. The items may still land."
        )

    def _table_not_found(self, table: str) -> TableNotFoundError:
        try:
            tables = self._server_info(pb.ServerInfoRequest(), timeout=_PROBE_S).table_info
        except grpc.RpcError:
            tables = ()
        return table_not_found(table, [info.name for info in tables])


def _insert_requests(table: str, items: Sequence[Item]) -> Iterator[Request]:
    """Messages of many items each (one item per message costs six times as much)."""
    message = wire.InsertMessage(table)
    for item in items:
        message.add(item)
        if message.num_bytes >= MAX_BYTES_PER_MESSAGE or message.num_items == MAX_ITEMS_PER_MESSAGE:
            yield Request(message.encode(), message.num_items)
            message = wire.InsertMessage(table)
    if message.num_items:
        yield Request(message.encode(), message.num_items)


def _read_samples(stream: Iterator[pb.SampleStreamResponse]) -> Iterator[SampledItem]:
    """The items of a sample stream; one item's chunks may come in several entries and several messages."""
    info, chunks = pb.SampleInfo(), []
    for response in stream:
        for entry in response.entries:
            begins, ends = entry.HasField("info"), entry.end_of_sequence
            if begins and ends:  # as ours do; the others cost a copy of each chunk
                yield wire.decode_sample(entry.info, entry.data)
                continue
            if begins:
                info, chunks = entry.info, []
            chunks.extend(entry.data)
            if ends:
                yield wire.decode_sample(info, chunks)


def _status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or ""
    return grpc.StatusCode.UNKNOWN, str(error)

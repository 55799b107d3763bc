"""TensorStore's key-value stores: opening one, create-only writes, and many byte-range reads in flight."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import tensorstore as ts

from sop_jax.episodes.rejection import reject
from sop_jax.specs.errors import ConfigError, EpisodeNotFoundError, InvalidEpisodeError

_ABSENT = b"\x02"
"""TensorStore's generation of a key that doesn't exist: the condition that makes a write create-only (b"" would not)."""
_REFUSED = b""
"""What a write whose condition failed returns as its generation; it doesn't raise."""

_RETRIES = {"max_retries": 3, "initial_delay": "200ms", "max_delay": "1s"}
_CONTEXT = {"s3_request_retries": _RETRIES, "gcs_request_retries": _RETRIES}
"""TensorStore itself tries 32 times, which takes a quarter of an hour without a network. Those who wait longer than a hiccup
know better when to try again: the spool, the weights feed, intake's looks."""
_CONNECT_S = "10"
"""TensorStore waits 30 s for each connection. Lost packets are sent again after 1, 3 and 7 s: a bad link gets its chance."""

Span: TypeAlias = tuple[str, slice]
"""A key and a byte range: `slice(offset, end)`, or `slice(-n, None)` for the last n bytes."""


def open_kvstore(url: str, *, syncs_files: bool = True) -> ts.KvStore:
    """Opens a store root. A store out of reach raises ValueError from each call: in seconds where a connection is refused,
    in less than a minute where nothing answers.

    Args:
        url: `file:///dir/`, `gs://bucket/prefix/`, `s3://bucket/prefix/`, `memory://`, or a TensorStore spec as JSON text
            (`{"driver": "s3", "bucket": "b", "path": "p/", "endpoint": "https://..."}`). A `context` in the spec, and
            TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS in the environment, override what is said here about waiting.
        syncs_files: what is written to a local disk survives a power cut.

    Raises:
        ConfigError: The URL names no driver that can be opened.
    """
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", _CONNECT_S)  # no spec and no context has it
    try:
        spec = json.loads(url) if url.startswith("{") else url if url.endswith("/") else url + "/"
        return ts.KvStore.open(spec, context=ts.Context({**_CONTEXT, "file_io_sync": syncs_files})).result()
    except ValueError as error:
        raise ConfigError(
            f"store {url!r} can't be opened: expected file:///dir/, gs://bucket/prefix/ or s3://bucket/prefix/. {error}"
        ) from error


def create(kvstore: ts.KvStore, key: str, value: bytes) -> bool:
    """Writes a key that doesn't exist yet, atomically and durably. False = it exists, and nothing was written."""
    return kvstore.write(key, value, if_equal=_ABSENT).result().generation != _REFUSED


def remove(kvstore: ts.KvStore, key: str) -> None:
    """Removes a key; one that is gone already is fine."""
    kvstore.write(key, None).result()


def list_below(kvstore: ts.KvStore, below: str) -> list[str]:
    """Sorted keys that start with `below`, a path that ends with "/" (the next character after which is "0")."""
    keys = kvstore.list(ts.KvStore.KeyRange(below, below.removesuffix("/") + "0")).result()
    return sorted(key.decode("utf-8", "replace") for key in keys)


def read(kvstore: ts.KvStore, key: str, max_bytes: int) -> bytes:
    """A whole value. Raises EpisodeNotFoundError, or InvalidEpisodeError if it is longer than `max_bytes`."""
    (beyond,) = try_read_spans(kvstore, [(key, slice(max_bytes, max_bytes + 1))], 1)
    if isinstance(beyond, EpisodeNotFoundError):
        raise beyond
    if isinstance(beyond, bytes):
        raise reject(
            key,
            "size",
            expected=f"at most {max_bytes} bytes",
            got="more",
            fix="No episode is as long as that; look at what this robot uploads.",
        )
    found = kvstore.read(key).result()
    if found.state != "value":
        raise _missing(kvstore, key)
    return found.value


def try_read_spans(
    kvstore: ts.KvStore, spans: Sequence[Span], num_in_flight: int
) -> Iterator[bytes | EpisodeNotFoundError | InvalidEpisodeError]:
    """Byte ranges in the order asked, `num_in_flight` reads handed to TensorStore together; a failed one gives its error."""
    for start in range(0, len(spans), num_in_flight):
        together = spans[start : start + num_in_flight]
        with ts.Batch() as batch:  # ranges of one object that touch become one read
            reads = [kvstore.read(key, byte_range=byte_range, batch=batch) for key, byte_range in together]
        for (key, byte_range), future in zip(together, reads, strict=True):
            yield _finish(kvstore, key, byte_range, future)


def read_spans(kvstore: ts.KvStore, spans: Sequence[Span], num_in_flight: int) -> Iterator[bytes]:
    """As `try_read_spans`, but raises the first error: EpisodeNotFoundError, or InvalidEpisodeError out of range."""
    for result in try_read_spans(kvstore, spans, num_in_flight):
        if isinstance(result, Exception):
            raise result
        yield result


def _finish(
    kvstore: ts.KvStore, key: str, byte_range: slice, future: ts.Future[ts.KvStore.ReadResult]
) -> bytes | EpisodeNotFoundError | InvalidEpisodeError:
    try:
        found = future.result()
    except ValueError as error:
        if "OUT_OF_RANGE" not in str(error):
            raise
        got = f"{byte_range.start}..{'' if byte_range.stop is None else byte_range.stop}"
        return reject(
            key,
            "byte range",
            expected="one within the object",
            got=got,
            fix="The object is cut off, or the index was made for other bytes.",
        )
    return found.value if found.state == "value" else _missing(kvstore, key)


def _missing(kvstore: ts.KvStore, key: str) -> EpisodeNotFoundError:
    return EpisodeNotFoundError(
        f"{key} is not in the {kvstore.spec().to_json()['driver']} store at {kvstore.path}: expected an object, got none. "
        "It was removed, or this is another store's path."
    )

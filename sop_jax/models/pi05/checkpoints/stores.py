"""Where a checkpoint lies: a local path, gs:// or s3://, all read through TensorStore.

Orbax itself opens local paths and gs:// alone, and gs:// only with a further package.
"""

import io
import json
import pathlib
from typing import Any

import tensorstore as ts

from sop_jax.specs.errors import SopError

_FAILURES = (ValueError, RuntimeError, OSError, TimeoutError)
"""What TensorStore raises when a store refuses, is away, or isn't there."""


class InvalidCheckpointError(SopError):
    """A checkpoint of another project can't be read, or isn't what it should be."""


def open_store(location: str) -> ts.KvStore:
    """Opens a directory.

    Args:
        location: a local path, file://, gs://bucket/prefix or s3://bucket/prefix; or a TensorStore spec as JSON text
            (`{"driver": "s3", "bucket": "b", "path": "p/", "endpoint": "https://...", "aws_region": "..."}`).

    Raises:
        InvalidCheckpointError: nothing can be opened there.
    """
    try:
        if location.startswith("{"):
            return ts.KvStore.open(json.loads(location)).result()
        if "://" in location:
            return ts.KvStore.open(location.rstrip("/") + "/").result()
        return ts.KvStore.open({"driver": "file", "path": f"{pathlib.Path(location).absolute()}/"}).result()
    except _FAILURES as error:
        raise InvalidCheckpointError(
            f"{location!r} can't be opened: expected a local path, gs://bucket/prefix or s3://bucket/prefix. {error}"
        ) from error


def split_location(location: str) -> tuple[str, str]:
    """The directory that a file lies in, as `open_store` takes it, and the file's name."""
    if location.startswith("{"):
        spec = json.loads(location)
        directory, _, name = spec.get("path", "").rpartition("/")
        return json.dumps({**spec, "path": f"{directory}/"}), name
    directory, _, name = location.rpartition("/")
    return directory or ("/" if location.startswith("/") else "."), name


def try_read(store: ts.KvStore, key: str) -> bytes | None:
    """A whole file, or None if there is none. Raises InvalidCheckpointError if the store can't be read."""
    try:
        found = store.read(key).result()
    except _FAILURES as error:
        raise InvalidCheckpointError(f"{describe(store)}{key} can't be read: {error}") from error
    return found.value if found.state == "value" else None


def list_keys(store: ts.KvStore, prefix: str) -> list[str]:
    """The files below `prefix`, relative to the store."""
    try:
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        keys = store.list(ts.KvStore.KeyRange(prefix, beyond)).result()
    except _FAILURES as error:
        raise InvalidCheckpointError(f"{describe(store)}{prefix} can't be listed: {error}") from error
    return sorted(key.decode() for key in keys)


def describe(store: ts.KvStore) -> str:
    """The store's path as in messages."""
    spec = store.spec().to_json()
    scheme = {"file": "", "gcs": "gs://"}.get(spec["driver"], f"{spec['driver']}://")
    bucket = f"{spec['bucket']}/" if "bucket" in spec else ""
    return f"{scheme}{bucket}{store.path}"


class StoreFile(io.RawIOBase):
    """One file of a store, open for reading at any place: what `zipfile` needs of a .npz on an object store.

    Raises:
        InvalidCheckpointError: when made, if there is no such file.
    """

    def __init__(self, store: ts.KvStore, key: str):
        super().__init__()
        self._store, self._key, self._position = store, key, 0
        self._size = _size(store, key)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = self._store.read(self._key, byte_range=slice(self._position, end)).result().value
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _size(store: ts.KvStore, key: str) -> int:
    """The length of a file, found without reading it: the start of a range that lies behind the end is refused."""
    try:
        if store.read(key, byte_range=slice(0, 0)).result().state != "value":
            raise InvalidCheckpointError(f"{describe(store)}{key}: there is no such file")
        low, high = 0, 1
        while _reaches(store, key, high):
            low, high = high, 2 * high
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _reaches(store, key, middle) else (low, middle)
    except OSError as error:
        raise InvalidCheckpointError(f"{describe(store)}{key} can't be read: {error}") from error
    return low


def _reaches(store: ts.KvStore, key: str, size: int) -> bool:
    """Whether the file has at least `size` bytes."""
    try:
        return len(store.read(key, byte_range=slice(size - 1, size)).result().value) == 1
    except ValueError as error:
        if "OUT_OF_RANGE" not in str(error):
            raise
        return False

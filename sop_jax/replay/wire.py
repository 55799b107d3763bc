"""Items as Reverb's messages, and back: tensors, chunks and flat trajectories.

An item is one chunk with one time step. Tensor 0 holds the column names (Reverb's items have none); the other tensors are
the columns in that order. Every tensor has a leading dimension of 1 that the trajectory squeezes away, so that a column of
any shape, scalars too, comes back as it went in, and the official client reads each as one array.
"""

import functools
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cramjam
import numpy as np

from sop_jax.replay.proto import reverb_pb2 as pb
from sop_jax.specs.interfaces import Item, SampledItem

# tensorflow.DataType of each numpy type that a column may have.
_DTYPE_NUMBERS = {
    np.dtype(np.float32): 1,
    np.dtype(np.float64): 2,
    np.dtype(np.int32): 3,
    np.dtype(np.uint8): 4,
    np.dtype(np.int16): 5,
    np.dtype(np.int8): 6,
    np.dtype(np.complex64): 8,
    np.dtype(np.int64): 9,
    np.dtype(np.bool_): 10,
    np.dtype(np.uint16): 17,
    np.dtype(np.complex128): 18,
    np.dtype(np.float16): 19,
    np.dtype(np.uint32): 22,
    np.dtype(np.uint64): 23,
}
_DTYPES = {number: dtype for dtype, number in _DTYPE_NUMBERS.items()}
_UINT8 = _DTYPE_NUMBERS[np.dtype(np.uint8)]
_NAMES_PREFIX = b"sop-columns:"
_LARGE_BYTES = 8_192
MAX_TENSOR_BYTES = 2**28
"""Largest tensor of a sampled item; a few compressed bytes could claim gigabytes."""

if sys.byteorder != "little":
    raise ImportError("Reverb's tensors are little-endian, and so must be this machine")


class _Names(NamedTuple):
    """The names of an item's columns: as text, and as the tensor that holds them."""

    text: bytes
    tensor: bytes


class InsertMessage:
    """An InsertStreamRequest in the making.

    Small items are left to protobuf. A large tensor is not: protobuf copies it twice, and in fresh memory that takes longer
    than everything else. Its message is put together from parts instead, for protobuf merges what is concatenated.
    """

    def __init__(self, table: str):
        self._table = table
        self._request = pb.InsertStreamRequest()
        self._parts: list[bytes | memoryview] = []
        self.num_items = self.num_bytes = 0

    def add(self, item: Item) -> None:
        """Adds a checked item (see `items.check_item`)."""
        # A random chunk key: chunks are shared by key, so a key made of the item's would bring back the columns of an item
        # that left the table and now returns with others.
        chunk_key = secrets.randbits(64) or 1
        columns, names = tuple(item.columns.values()), _encode_names(tuple(item.columns))
        num_bytes = len(names.text) + sum(column.nbytes for column in columns)
        is_large = num_bytes >= _LARGE_BYTES
        chunk = pb.ChunkData() if is_large else self._request.chunks.add()
        chunk.chunk_key, chunk.data_uncompressed_size = chunk_key, num_bytes
        chunk.data_tensors_len = num_tensors = 1 + len(columns)
        chunk.sequence_range.episode_id = item.key
        if is_large:
            data = [*_nested(_TENSORS, [names.tensor])]
            for column in columns:
                data += _encode_tensor(column)
            self._parts += _nested(_CHUNKS, [chunk.SerializeToString(), *_nested(_DATA, data)])
        else:
            tensors = chunk.data.tensors
            tensors.add().ParseFromString(names.tensor)
            for column in columns:
                tensor = _fill_header(tensors.add(), column.dtype, column.shape)
                tensor.tensor_content = bytes(cramjam.snappy.compress_raw(column.tobytes()))
        message = self._request.items.add(key=item.key, table=self._table, priority=item.priority)
        trajectory = message.flat_trajectory.columns
        for index in range(num_tensors):
            trajectory.add(squeeze=True).chunk_slices.add(chunk_key=chunk_key, length=1, index=index)
        self.num_items += 1
        self.num_bytes += num_bytes

    def encode(self) -> bytes:
        """The message."""
        encoded = self._request.SerializeToString()
        return b"".join([*self._parts, encoded]) if self._parts else encoded


def decode_sample(info: pb.SampleInfo, chunks: Sequence[pb.ChunkData]) -> SampledItem:
    """A sampled item. Columns written by another client, which have no names, are called "0", "1", ... .

    Raises ValueError, whatever the messages hold.
    """
    try:
        return _decode_sample(info, chunks)
    except (cramjam.DecompressionError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"item {info.item.key} can't be read: {type(error).__name__}: {error}") from error


def _decode_sample(info: pb.SampleInfo, chunks: Sequence[pb.ChunkData]) -> SampledItem:
    named = _decode_own(chunks[0].data.tensors) if len(chunks) == 1 else None
    if named is None:
        by_key = {chunk.chunk_key: chunk for chunk in chunks}
        trajectory = info.item.flat_trajectory.columns
        named = {str(i): _decode_column(info.item.key, column, by_key) for i, column in enumerate(trajectory)}
    return SampledItem(info.item.key, named, info.probability, info.table_size, info.item.times_sampled)


def _decode_own(tensors: Sequence[pb.Tensor]) -> dict[str, np.ndarray] | None:
    """The columns of a chunk that `InsertMessage` made, without a look at the trajectory; None if it wasn't."""
    rest = iter(tensors)
    first = next(rest, None)
    if first is None or first.dtype != _UINT8:
        return None
    names = _decode_names(first.tensor_content)
    if names is None or len(names) != len(tensors) - 1:
        return None
    columns = {}
    for name, tensor in zip(names, rest, strict=True):
        array = np.frombuffer(_decompress(tensor.tensor_content), _DTYPES[tensor.dtype])
        dims = tensor.tensor_shape.dim
        columns[name] = array if len(dims) == 2 else array.reshape([dim.size for dim in dims[1:]])
    return columns


@functools.lru_cache(maxsize=256)
def _encode_names(names: tuple[str, ...]) -> _Names:
    text = _NAMES_PREFIX + json.dumps(names, separators=(",", ":")).encode()
    tensor = _fill_header(pb.Tensor(), np.dtype(np.uint8), (len(text),))
    tensor.tensor_content = bytes(cramjam.snappy.compress_raw(text))
    return _Names(text, tensor.SerializeToString())


def _parse_names(content: bytes) -> tuple[str, ...] | None:
    data = bytes(_decompress(content))
    if not data.startswith(_NAMES_PREFIX):
        return None
    names = json.loads(data[len(_NAMES_PREFIX) :])
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError(f"expected a list of column names, got {data[:80]!r}")
    return tuple(names)


_known_names = functools.lru_cache(maxsize=256)(_parse_names)


def _decode_names(content: bytes) -> tuple[str, ...] | None:
    """Of a tensor's compressed content. Items share their columns, so a look suffices but for the first; what is large can't
    be names alone, and isn't kept."""
    return _known_names(content) if len(content) <= _LARGE_BYTES else _parse_names(content)


def _fill_header(tensor: pb.Tensor, dtype: np.dtype, shape: tuple[int, ...]) -> pb.Tensor:
    """All but the content: one time step, so shape [1, *shape]. The content is in C order, snappy."""
    tensor.dtype = _DTYPE_NUMBERS[dtype]
    dims = tensor.tensor_shape.dim
    dims.add(size=1)
    for size in shape:
        dims.add(size=size)
    return tensor


@functools.lru_cache(maxsize=1024)
def _encode_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return _fill_header(pb.Tensor(), dtype, shape).SerializeToString()


def _encode_tensor(array: np.ndarray) -> list[bytes | memoryview]:
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    content = memoryview(cramjam.snappy.compress_raw(octets.data))
    return _nested(_TENSORS, [_encode_header(array.dtype, array.shape), *_nested(_CONTENT, [content])])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _tag(field_number: int) -> bytes:
    """What stands before a length-delimited field in protobuf's wire format."""
    return _varint(field_number << 3 | 2)


_CHUNKS = _tag(pb.InsertStreamRequest.CHUNKS_FIELD_NUMBER)
_DATA, _TENSORS = _tag(pb.ChunkData.DATA_FIELD_NUMBER), _tag(pb.ChunkData.Data.TENSORS_FIELD_NUMBER)
_CONTENT = _tag(pb.Tensor.TENSOR_CONTENT_FIELD_NUMBER)


def _nested(tag: bytes, parts: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """A length-delimited field."""
    return [tag + _varint(sum(map(len, parts))), *parts]


def _decode_tensor(tensor: pb.Tensor, delta_encoded: bool) -> np.ndarray:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"tensorflow.DataType {tensor.dtype} can't be read; store numbers, bool or uint8 arrays")
    array = np.frombuffer(_decompress(tensor.tensor_content), dtype)
    array = array.reshape([dim.size for dim in tensor.tensor_shape.dim])
    if delta_encoded and array.ndim >= 2 and array.dtype.kind in "iu":
        array = np.cumsum(array, axis=0, dtype=dtype)  # wraps around, as the encoder's differences did
    return array


def _decompress(content: bytes) -> memoryview:
    """Read-only, so the arrays over it are too."""
    size = cramjam.snappy.decompress_raw_len(content)
    if size > MAX_TENSOR_BYTES:
        raise ValueError(f"a tensor claims {size} bytes, allowed are {MAX_TENSOR_BYTES}; no item of ours is as large")
    return memoryview(cramjam.snappy.decompress_raw(content)).toreadonly()


def _decode_column(key: int, column: pb.FlatTrajectory.Column, chunks: Mapping[int, pb.ChunkData]) -> np.ndarray:
    parts = []
    for piece in column.chunk_slices:
        chunk = chunks.get(piece.chunk_key)
        if chunk is None or piece.index >= len(chunk.data.tensors):
            raise ValueError(f"item {key}: the server sent no data for chunk {piece.chunk_key}, tensor {piece.index}")
        whole = _decode_tensor(chunk.data.tensors[piece.index], chunk.delta_encoded)
        parts.append(whole[piece.offset : piece.offset + piece.length])
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if column.squeeze:
        array = array.reshape(array.shape[1:])  # array[0] would turn a scalar column into a number
    array.setflags(write=False)
    return array

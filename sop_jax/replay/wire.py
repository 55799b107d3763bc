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
MAX_TENSOR_BYTES = 2**28
"""Largest tensor of a sampled item; a few compressed bytes could claim gigabytes."""

if sys.byteorder != "little":
    raise ImportError("Reverb's tensors are little-endian, and so must be this machine")


def add_item(request: pb.InsertStreamRequest, table: str, item: Item) -> int:
    """Adds a checked item (see `items.check_item`) to a request; returns the bytes of its columns."""
    # A random chunk key: chunks are shared by key, so a key made of the item's would bring back the columns of an item
    # that left the table and now returns with others.
    chunk_key = secrets.randbits(64) or 1
    chunk = request.chunks.add(chunk_key=chunk_key)
    chunk.sequence_range.episode_id = item.key
    tensors = chunk.data.tensors
    names = np.frombuffer(_encode_names(tuple(item.columns)), np.uint8)
    num_bytes = 0
    for array in (names, *item.columns.values()):
        _encode_tensor(array, tensors.add())
        num_bytes += array.nbytes
    chunk.data_tensors_len = len(tensors)
    chunk.data_uncompressed_size = num_bytes
    message = request.items.add(key=item.key, table=table, priority=item.priority)
    for index in range(len(tensors)):
        column = message.flat_trajectory.columns.add(squeeze=True)
        column.chunk_slices.add(chunk_key=chunk_key, offset=0, length=1, index=index)
    return num_bytes


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
    """The columns of a chunk that `add_item` made, without a look at the trajectory; None if it wasn't."""
    if not tensors or tensors[0].dtype != _UINT8:
        return None
    names = _decode_names(_decompress(tensors[0].tensor_content))
    if names is None or len(names) != len(tensors) - 1:
        return None
    columns = {}
    for name, tensor in zip(names, tensors[1:], strict=True):
        content = _decompress(tensor.tensor_content)  # bytes make the array read-only
        array = np.frombuffer(content, _DTYPES[tensor.dtype])
        dims = tensor.tensor_shape.dim
        columns[name] = array if len(dims) == 2 else array.reshape([dim.size for dim in dims[1:]])
    return columns


@functools.lru_cache(maxsize=256)
def _encode_names(names: tuple[str, ...]) -> bytes:
    return _NAMES_PREFIX + json.dumps(names, separators=(",", ":")).encode()


@functools.lru_cache(maxsize=256)
def _decode_names(data: bytes) -> tuple[str, ...] | None:
    if not data.startswith(_NAMES_PREFIX):
        return None
    names = json.loads(data[len(_NAMES_PREFIX) :])
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError(f"expected a list of column names, got {data[:80]!r}")
    return tuple(names)


def _encode_tensor(array: np.ndarray, tensor: pb.Tensor) -> None:
    """One time step: shape [1, *array.shape], C order, snappy."""
    tensor.dtype = _DTYPE_NUMBERS[array.dtype]
    tensor.tensor_content = bytes(cramjam.snappy.compress_raw(array.tobytes()))
    dims = tensor.tensor_shape.dim
    dims.add(size=1)
    for size in array.shape:
        dims.add(size=size)


def _decode_tensor(tensor: pb.Tensor, delta_encoded: bool) -> np.ndarray:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"tensorflow.DataType {tensor.dtype} can't be read; store numbers, bool or uint8 arrays")
    array = np.frombuffer(_decompress(tensor.tensor_content), dtype)
    array = array.reshape([dim.size for dim in tensor.tensor_shape.dim])
    if delta_encoded and array.ndim >= 2 and array.dtype.kind in "iu":
        array = np.cumsum(array, axis=0, dtype=dtype)  # wraps around, as the encoder's differences did
    return array


def _decompress(content: bytes) -> bytes:
    size = cramjam.snappy.decompress_raw_len(content)
    if size > MAX_TENSOR_BYTES:
        raise ValueError(f"a tensor claims {size} bytes, allowed are {MAX_TENSOR_BYTES}; no item of ours is as large")
    return bytes(cramjam.snappy.decompress_raw(content))


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

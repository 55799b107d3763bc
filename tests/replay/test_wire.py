"""The wire format: against Reverb's own descriptors, and against what its other clients may send."""

import pathlib

import cramjam
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from reverb_descriptors import read_messages
from reverb_environment import need_reverb

from sop_jax.replay import wire
from sop_jax.replay.proto import generate
from sop_jax.replay.proto import reverb_pb2 as pb
from sop_jax.replay.server import find_reverb_python
from sop_jax.specs.interfaces import Item

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_FROM_TENSORFLOW = ("Tensor", "TensorShape", "TensorShape.Dim")


def all_messages() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}

    def collect(message: Descriptor, prefix: str) -> None:
        found[prefix + message.name] = message
        for nested in message.nested_types:
            collect(nested, f"{prefix}{message.name}.")

    for message in pb.DESCRIPTOR.message_types_by_name.values():
        collect(message, "")
    return found


@pytest.mark.reverb
def test_field_numbers_and_types_are_reverbs():
    need_reverb()
    (package,) = find_reverb_python().parents[1].glob("lib/python*/site-packages/reverb")
    theirs = read_messages(package)
    num_fields = 0
    for name, message in all_messages().items():
        if name in _FROM_TENSORFLOW:
            continue
        for field in message.fields:
            kind = field.message_type.name if field.message_type else ""
            their_name, their_type, their_repeated, their_kind = theirs[name][field.number]
            assert (field.name, field.type, field.is_repeated) == (their_name, their_type, their_repeated), name
            assert kind == their_kind.replace("TensorProto", "Tensor"), name
            num_fields += 1
    assert num_fields > 60


def test_generated_code_is_up_to_date(tmp_path):
    generate.generate(tmp_path, _ROOT)
    for name in ("reverb_pb2.py", "reverb_pb2.pyi", "segment_pb2.py", "segment_pb2.pyi"):
        made = (tmp_path / "sop_jax" / "replay" / "proto" / name).read_text()
        assert made == (_ROOT / "sop_jax" / "replay" / "proto" / name).read_text(), "run the generator again"


def message_of(table: str, *items: Item) -> pb.InsertStreamRequest:
    message = wire.InsertMessage(table)
    for item in items:
        message.add(item)
    assert message.num_items == len(items)
    return pb.InsertStreamRequest.FromString(message.encode())


def test_tensor_bytes_by_hand():
    request = message_of("pick/online", Item(9, {"x": np.array([1, -2], np.int16)}, priority=0.5))
    (chunk,), (message,) = request.chunks, request.items
    assert (message.key, message.table, message.priority) == (9, "pick/online", 0.5)
    names, tensor = chunk.data.tensors
    assert (tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim]) == (5, [1, 2])  # DT_INT16
    assert bytes(cramjam.snappy.decompress_raw(tensor.tensor_content)) == b"\x01\x00\xfe\xff"
    assert bytes(cramjam.snappy.decompress_raw(names.tensor_content)) == b'sop-columns:["x"]'
    assert [
        (c.squeeze, c.chunk_slices[0].index, c.chunk_slices[0].length) for c in message.flat_trajectory.columns
    ] == [
        (True, 0, 1),
        (True, 1, 1),
    ]
    assert {c.chunk_slices[0].chunk_key for c in message.flat_trajectory.columns} == {chunk.chunk_key}
    assert (chunk.data_tensors_len, chunk.data_uncompressed_size, chunk.sequence_range.episode_id) == (2, 17 + 4, 9)


@pytest.mark.parametrize("size", [1, 127, 128, 8_191, 8_192, 45_000, 3_000_000])
def test_large_items_are_encoded_as_protobuf_would(size):
    """They are put together from parts: the same message as from protobuf alone, also beside small ones."""
    rng = np.random.default_rng(size)
    large = Item(
        2**63 + 5, {"x": rng.integers(0, 256, (size, 1), np.uint8), "y": np.array(2.5), "z": np.zeros((0, 3))}, 0.5
    )
    small = Item(7, {"x": np.array([1])})
    request = message_of("t", small, large, small)
    by_key = {chunk.sequence_range.episode_id: chunk for chunk in request.chunks}
    assert [item.key for item in request.items] == [7, large.key, 7]
    info = pb.SampleInfo(probability=1.0, table_size=3)
    info.item.CopyFrom(request.items[1])
    sampled = wire.decode_sample(info, [by_key[large.key]])
    for name, column in large.columns.items():
        np.testing.assert_array_equal(sampled.columns[name], column)
        assert (sampled.columns[name].dtype, sampled.columns[name].flags.writeable) == (column.dtype, False)
    assert by_key[large.key].data_tensors_len == len(by_key[large.key].data.tensors) == 4


def test_chunks_are_never_shared_between_inserts():
    item = Item(9, {"x": np.zeros(1)})
    request = message_of("t", item, item)
    assert request.chunks[0].chunk_key != request.chunks[1].chunk_key


def chunk_of(key: int, array: np.ndarray, dtype: int, delta_encoded: bool = False) -> pb.ChunkData:
    chunk = pb.ChunkData(chunk_key=key, delta_encoded=delta_encoded)
    tensor = chunk.data.tensors.add(dtype=dtype, tensor_content=bytes(cramjam.snappy.compress_raw(array.tobytes())))
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return chunk


def info_of(slices: list[tuple[int, int, int]]) -> pb.SampleInfo:
    info = pb.SampleInfo(probability=0.25, table_size=4)
    info.item.key = 3
    column = info.item.flat_trajectory.columns.add()
    for key, offset, length in slices:
        column.chunk_slices.add(chunk_key=key, offset=offset, length=length)
    return info


def test_columns_of_several_chunks_are_joined_and_differences_undone():
    values = np.array([[250, 1], [3, 2], [10, 255]], np.uint8)
    differences = np.diff(values, axis=0, prepend=np.zeros((1, 2), np.uint8))
    chunks = [chunk_of(1, differences, 4, delta_encoded=True), chunk_of(2, np.full((2, 2), 9, np.uint8), 4)]
    sampled = wire.decode_sample(info_of([(1, 1, 2), (2, 0, 1)]), chunks)
    np.testing.assert_array_equal(sampled.columns["0"], [[3, 2], [10, 255], [9, 9]])
    assert (sampled.key, sampled.probability, sampled.table_size) == (3, 0.25, 4)


def test_what_cannot_be_read_is_told():
    with pytest.raises(ValueError, match="item 3: the server sent no data for chunk 8"):
        wire.decode_sample(info_of([(8, 0, 1)]), [])
    with pytest.raises(ValueError, match="DataType 7 can't be read"):  # strings
        wire.decode_sample(info_of([(1, 0, 1)]), [chunk_of(1, np.zeros((1, 1), np.uint8), 7)])

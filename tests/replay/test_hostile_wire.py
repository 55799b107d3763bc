"""What a Reverb server may send: items as they are, or ValueError; no other exception, and no memory on a few bytes' word."""

import contextlib
import tracemalloc

import cramjam
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.replay import wire
from sop_jax.replay.items import SEGMENT_COLUMN, decode_segment, encode_segment
from sop_jax.replay.proto import reverb_pb2 as pb
from sop_jax.replay.proto import segment_pb2
from sop_jax.specs.interfaces import Item
from sop_jax.specs.records import Segment, Source

SEGMENT = Segment(
    episode_id="robot-0.00000000001000000000.000001",
    path="episodes/robot-0/robot-0.00000000001000000000.000001.zip",
    task="pick",
    source=Source.ONLINE,
    policy_version=3,
    ended_ns=5,
    frames=np.arange(3, dtype=np.int32),
    image_ranges=np.zeros((3, 2, 2), np.int64),
    arrays_range=(100, 200),
    intervention=np.zeros(3, bool),
    label=np.ones(3, np.float32),
)
ITEM = encode_segment(SEGMENT)


def messages(item: Item = ITEM) -> tuple[pb.SampleInfo, pb.ChunkData]:
    message = wire.InsertMessage("pick/online")
    message.add(item)
    request = pb.InsertStreamRequest.FromString(message.encode())
    info = pb.SampleInfo(probability=0.5, table_size=1)
    info.item.CopyFrom(request.items[0])
    return info, request.chunks[0]


INFO, CHUNK = (message.SerializeToString() for message in messages())


def test_the_messages_themselves_are_read():
    sampled = wire.decode_sample(*(messages()[0], [messages()[1]]))
    assert decode_segment(sampled.columns).path == SEGMENT.path


@settings(max_examples=400)
@given(data=st.data())
def test_mutated_messages(data):
    info, chunk = bytearray(INFO), bytearray(CHUNK)
    for target in (info, chunk):
        for at in data.draw(st.lists(st.integers(0, len(target) - 1), max_size=3)):
            target[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError, ValueError):
        sampled = wire.decode_sample(pb.SampleInfo.FromString(bytes(info)), [pb.ChunkData.FromString(bytes(chunk))])
        decode_segment(sampled.columns)


def test_a_flip_at_every_offset():
    for at in range(len(CHUNK)):
        mutant = bytearray(CHUNK)
        mutant[at] ^= 0x11
        with contextlib.suppress(DecodeError, ValueError):
            sampled = wire.decode_sample(messages()[0], [pb.ChunkData.FromString(bytes(mutant))])
            decode_segment(sampled.columns)


def hostile_tensor(**fields) -> tuple[pb.SampleInfo, pb.ChunkData]:
    info, chunk = messages()
    tensor = chunk.data.tensors[1]
    for name, value in fields.items():
        setattr(tensor, name, value)
    return info, chunk


@pytest.mark.parametrize("index", [0, 1])
def test_a_tensor_that_claims_gigabytes_gets_none(index):
    info, chunk = messages()
    chunk.data.tensors[index].tensor_content = b"\xff\xff\xff\xff\x0f" + b"\0" * 10
    tracemalloc.start()
    with pytest.raises(ValueError, match="claims 4294967295 bytes"):
        wire.decode_sample(info, [chunk])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "fields",
    [{"dtype": 7}, {"dtype": 99}, {"tensor_content": b"\x05hello"}, {"tensor_content": b""}],
    ids=["strings", "no such type", "not snappy", "empty"],
)
def test_tensors_that_are_none(fields):
    info, chunk = hostile_tensor(**fields)
    with pytest.raises(ValueError, match=r"can't be read|reshape|buffer"):
        wire.decode_sample(info, [chunk])


@pytest.mark.parametrize("names", [b"[1, 2]", b"{}", b"5", b"[" * 100_000, b"\xff", b"", b'["a"'])
def test_column_names_that_are_none(names):
    info, chunk = messages()
    chunk.data.tensors[0].tensor_content = bytes(cramjam.snappy.compress_raw(b"sop-columns:" + names))
    with pytest.raises(ValueError):  # noqa: PT011 - each is told in the words of its own decoder
        wire.decode_sample(info, [chunk])


def packed(**changes: object) -> dict[str, np.ndarray]:
    message = segment_pb2.Segment.FromString(ITEM.columns[SEGMENT_COLUMN].tobytes())
    for name, value in changes.items():
        setattr(message, name, value)
    return {SEGMENT_COLUMN: np.frombuffer(message.SerializeToString(), np.uint8)}


ARRAYS = ("frames", "image_ranges", "intervention", "label")
NUMBERS = ("policy_version", "ended_ns", "arrays_offset", "arrays_length")


@settings(max_examples=300)
@given(
    arrays=st.dictionaries(st.sampled_from(ARRAYS), st.binary(max_size=60)),
    numbers=st.dictionaries(st.sampled_from(NUMBERS), st.integers(-(2**63), 2**63 - 1)),
    texts=st.dictionaries(st.sampled_from(("path", "source", "episode_id")), st.text(max_size=9)),
)
def test_items_of_somebody_else_are_segments_or_told_as_such(arrays, numbers, texts):
    try:
        segment = decode_segment(packed(**arrays, **numbers, **texts))
    except ValueError as error:
        assert "this item is no segment" in str(error)  # noqa: PT017 - both ways are right
        return
    assert len(segment.frames) == len(segment.label) == len(segment.intervention) == len(segment.image_ranges) > 0
    assert segment.image_ranges.shape[2] == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frames": b""}, "take 0, 12, 3 and 96 bytes"),
        ({"frames": b"12345"}, "take 5, 12, 3 and"),
        ({"label": b"1234"}, "take 12, 4, 3 and"),
        ({"intervention": b"\0" * 4}, "take 12, 12, 4 and"),
        ({"image_ranges": b"\0" * 8 * 13}, "12, 12, 3 and 104 bytes"),
        ({"source": "elsewhere"}, "'elsewhere' is not a valid Source"),
    ],
)
def test_segments_that_contradict_themselves(changes, told):
    with pytest.raises(ValueError, match=rf"this item is no segment .*{told}"):
        decode_segment(packed(**changes))


def test_a_column_of_other_bytes():
    for column in (np.full(9, 255, np.uint8), np.zeros((2, 2)), np.array(3)):
        with pytest.raises(ValueError, match="this item is no segment"):
            decode_segment({SEGMENT_COLUMN: column})

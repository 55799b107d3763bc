"""One target per parser: what is done with any bytes, the errors that a parser may raise on them, and bytes to start from.

A target that raises anything else, takes longer than ten seconds or more memory than 2 GB has found something.
"""

import contextlib
import dataclasses
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from benchmarks.fuzz.mutations import mutate_json
from sop_jax.actors.operator import commands, pictures, status
from sop_jax.actors.operator.desk_address import parse_link
from sop_jax.episodes import array_codec, kvstore, paths, zip_layout
from sop_jax.episodes.format import MANIFEST, pack
from sop_jax.episodes.images import check_jpeg, decode_images, encode_image
from sop_jax.episodes.manifest_codec import decode_manifest, encode_manifest
from sop_jax.episodes.retirement import RetirementRecord, read_record
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.replay import wire
from sop_jax.replay.items import PackedSegment, decode_segment, encode_segment, label_all, segments_of
from sop_jax.replay.proto import reverb_pb2 as pb
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError, InvalidPublicationError
from sop_jax.specs.records import CameraSpec, Publication, Source
from sop_jax.weights import manifest as publications
from sop_jax.weights.weight_store import WeightStore

_EPISODE = make_episode(1, num_frames=2, spec=make_spec(image_size=8, camera_names=("head",)), task="pick")
_ROBOT, _ID = _EPISODE.manifest.robot_id, _EPISODE.manifest.episode_id
_PATH = f"episodes/{_ROBOT}/{_ID}.zip"
_DATA = pack(_EPISODE)
_CAMERA = CameraSpec("head", 8, 8)
_MEMBERS = zipfile.ZipFile(io.BytesIO(_DATA)).namelist()


@dataclasses.dataclass(frozen=True)
class Target:
    """run: takes any bytes. seeds: where the fuzzer begins. refuses: what a parser may raise. max_bytes: of an input.
    mutate: a mutation that keeps the format, tried beside the fuzzer's own."""

    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    refuses: tuple[type[Exception], ...]
    max_bytes: int = 4096
    mutate: Callable[[bytes, random.Random], bytes | None] | None = None

    def __call__(self, data: bytes) -> None:
        with contextlib.suppress(*self.refuses):
            self.run(data)


def _episode(data: bytes) -> None:
    verify_bytes(data, _PATH, decode_all_images=True)
    assert data == _DATA, "a mutant was accepted"


def _member(data: bytes) -> None:
    """A whole episode whose one member is replaced, with every checksum made good: what a malicious robot can upload."""
    if not data:
        return
    chosen, content = _MEMBERS[data[0] % len(_MEMBERS)], data[1:]
    archive = zipfile.ZipFile(io.BytesIO(_DATA))
    writer, arrays_offset = zip_layout.ZipWriter("hostile"), 0
    for name in _MEMBERS:
        held = content if name == chosen else archive.read(name)
        if name == array_codec.member_name("state"):
            arrays_offset = writer.offset
        if name == MANIFEST and name != chosen:
            held = (json.dumps({**json.loads(held), "payload_sha256": writer.sha256()}, indent=1) + "\n").encode()
        writer.add(name, held)
    verify_bytes(writer.finish(arrays_offset), _PATH, decode_all_images=True)


def _mutate_member(data: bytes, rng: random.Random) -> bytes | None:
    changed = mutate_json(data[1:], rng)
    return None if changed is None else data[:1] + changed


def _zip(data: bytes) -> None:
    offset = int.from_bytes(data[:2], "little")
    for read in (
        lambda: zip_layout.read_member(data, offset, len(data), "frames/000000/head.jpg", "e"),
        lambda: zip_layout.read_footer(data, "e"),
        lambda: zip_layout.read_directory(memoryview(data), _MEMBERS, "e"),
    ):
        with contextlib.suppress(InvalidEpisodeError):
            read()


def _arrays(data: bytes) -> None:
    """One .npy file after the other, each with its length before it."""
    files, rest = {}, memoryview(data)
    for name in array_codec.DTYPES:
        num_bytes = int.from_bytes(rest[:2], "little")
        files[name], rest = rest[2 : 2 + num_bytes], rest[2 + num_bytes :]
    array_codec.decode_arrays(files, _EPISODE.manifest.num_frames, _EPISODE.arrays.action.shape[1], "e")


def _array_seed() -> bytes:
    files = array_codec.encode_arrays(_EPISODE.arrays, 2, _EPISODE.arrays.action.shape[1], "e")
    return b"".join(len(file).to_bytes(2, "little") + file for file in files.values())


def _manifest(data: bytes) -> None:
    found, checksum = decode_manifest(data, "e")
    assert encode_manifest(found, checksum, "e") == data, "what was read is written otherwise"


def _jpeg(data: bytes) -> None:
    check_jpeg(data, _CAMERA, "e")
    assert decode_images([data], [_CAMERA], "e")["head"].shape == (8, 8, 3)


_RECORDS = EpisodeStore("memory://fuzz/records/")
_WEIGHTS = WeightStore("memory://fuzz")


def _records(data: bytes) -> None:
    """Quarantine and retirement records."""
    _RECORDS.root.write(paths.quarantine_path(_PATH), data).result()
    _RECORDS.root.write(paths.retired_path(_PATH), data).result()
    (record,) = _RECORDS.quarantined().values()
    assert isinstance(record, str)
    read_record(_RECORDS, _PATH)


def _publication(data: bytes) -> None:
    kvstore.open_kvstore(_WEIGHTS.url).write("latest.json", data).result()
    with contextlib.suppress(InvalidPublicationError):
        _WEIGHTS.read_pointer()
    found = publications.decode_manifest(data, 3)
    assert found.version == 3
    assert all(not name.startswith(("/", ".")) for name in found.files)


def _replay_item(data: bytes) -> None:
    """Two protobuf messages, the length of the first before them."""
    num_bytes = int.from_bytes(data[:2], "little")
    info = pb.SampleInfo.FromString(data[2 : 2 + num_bytes])
    sampled = wire.decode_sample(info, [pb.ChunkData.FromString(data[2 + num_bytes :])])
    segment, packed = decode_segment(sampled.columns), PackedSegment(sampled.columns)
    assert [packed.frame(slot).frame for slot in range(packed.num_frames)] == segment.frames.tolist()


def _replay_seed() -> bytes:
    index = verify_bytes(_DATA, _PATH).index
    (segment,) = segments_of(_EPISODE.manifest, index, _EPISODE.arrays, label_all(_EPISODE.manifest, _EPISODE.arrays))
    message = wire.InsertMessage("pick/online")
    message.add(encode_segment(segment))
    request = pb.InsertStreamRequest.FromString(message.encode())
    info = pb.SampleInfo(probability=0.5, table_size=1)
    info.item.CopyFrom(request.items[0])
    head = info.SerializeToString()
    return len(head).to_bytes(2, "little") + head + request.chunks[0].SerializeToString()


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _operator(data: bytes) -> None:
    """What a page, a device or a joining robot sends to a desk: commands, statuses, pictures; and its link."""
    with contextlib.suppress(commands.BadMessageError):
        pictures.read_head(data)
    with contextlib.suppress(ConfigError):
        parse_link(data.decode("utf-8", "replace"))
    message = commands.read_object(data)
    with contextlib.suppress(commands.BadMessageError):
        json.loads(status.parse_status(message).to_json(), parse_constant=_no_constant)  # as a browser reads it
    command = commands.parse_command(message)
    assert commands.parse_command(commands.read_object(commands.write_command(command))) == command


_PUBLICATION = Publication(3, 75, "base", "norm", 10**18, {"params-1a2b3c4d/manifest.ocdbt": (10, "0" * 64)}, None)
_TOLD = dataclasses.replace(_PUBLICATION, conditioning=Conditioning("Advantage: positive", 1.5))
_RETIRED = RetirementRecord(_PATH, "pick", Source.ONLINE, 2, len(_DATA), "old", 10**18)
_STATUS = status.Status(
    "g1-1", "fold", "fold it", 3, "policy", True, "stuck", "", 9, 30.0, (0.5, 1), ("a", "b"), "a", "success", 2
)
_COMMANDS = (
    commands.Take(),
    commands.Move("left", (0.1, 0.0, 0.0), (0.0, 1.2, 0.0), 1.0),
    commands.StageMark("grasped"),
)

TARGETS = {
    "episode": Target(_episode, [_DATA], (InvalidEpisodeError,), 2 * len(_DATA)),
    "member": Target(
        _member,
        [bytes([number]) + zipfile.ZipFile(io.BytesIO(_DATA)).read(name) for number, name in enumerate(_MEMBERS)],
        (InvalidEpisodeError,),
        mutate=_mutate_member,
    ),
    "zip": Target(_zip, [b"\0\0" + _DATA, _DATA[-400:]], (InvalidEpisodeError,), 2 * len(_DATA)),
    "arrays": Target(_arrays, [_array_seed()], (InvalidEpisodeError,)),
    "manifest": Target(
        _manifest, [encode_manifest(_EPISODE.manifest, "0" * 64, "e")], (InvalidEpisodeError,), mutate=mutate_json
    ),
    "jpeg": Target(_jpeg, [encode_image(np.zeros((8, 8, 3), np.uint8)), _EPISODE.jpegs[0][0]], (InvalidEpisodeError,)),
    "records": Target(
        _records,
        [json.dumps(dataclasses.asdict(_RETIRED)).encode(), b'{"path": "p", "reason": "r", "size": 5, "time_ns": 6}'],
        (InvalidEpisodeError,),
        mutate=mutate_json,
    ),
    "publication": Target(
        _publication,
        [publications.encode_manifest(_PUBLICATION), publications.encode_manifest(_TOLD), b'{"version": 3}'],
        (InvalidPublicationError,),
        mutate=mutate_json,
    ),
    "replay_item": Target(_replay_item, [_replay_seed()], (DecodeError, ValueError)),
    "operator": Target(
        _operator,
        [*(commands.write_command(command).encode() for command in _COMMANDS), _STATUS.to_json().encode(),
         pictures.join_picture(pictures.PictureHead("g1-1", "head", 17), b"\xff\xd8"), b"http://[::1]:9/#abc"],
        (commands.BadMessageError,),
        mutate=mutate_json,
    ),
}  # fmt: skip

"""One episode, one object: `pack` and `unpack`, the index of its bytes, and reading its numeric tail alone.

Members, in order: `frames/000012/head.jpg` ... (a frame's JPEGs adjacent, cameras in the manifest's order),
`arrays/state.npy` ... `arrays/image_frames.npy`, `manifest.json`. The same episode always gives the same bytes, and any
other byte string is refused: one flipped bit anywhere is found.
Legend: `K` frames with images, `C` cameras.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from sop_jax.episodes import zip_layout
from sop_jax.episodes.array_codec import DTYPES, decode_arrays, encode_arrays, member_name
from sop_jax.episodes.manifest_codec import MAX_FRAMES, decode_manifest, encode_manifest
from sop_jax.episodes.rejection import reject
from sop_jax.episodes.zip_layout import FOOTER_BYTES, MAX_MEMBERS, Footer, Member
from sop_jax.specs.records import Episode, EpisodeArrays, EpisodeIndex, EpisodeManifest

MANIFEST = "manifest.json"
_UPLOAD_AGAIN = "Upload it again from the robot's spool."
_FEWER_IMAGES = "No recorder writes as many; look at what this robot uploads."


@dataclasses.dataclass(frozen=True)
class ParsedEpisode:
    """An object whose structure and checksums hold. Its values and its identity are not checked yet: see `verify`."""

    manifest: EpisodeManifest
    arrays: EpisodeArrays
    index: EpisodeIndex


@dataclasses.dataclass(frozen=True)
class _Tail:
    manifest: EpisodeManifest
    arrays: EpisodeArrays
    members: tuple[Member, ...]
    payload_sha256: str


def image_name(frame: int, camera: str) -> str:
    return f"frames/{frame:06d}/{camera}.jpg"


def pack(episode: Episode) -> bytes:
    """The object that holds this episode. Raises InvalidEpisodeError if types, shapes or counts contradict each other.

    Values are not judged here (diverged physics may well be stored, for diagnosis); `verify_bytes` does that.
    """
    manifest, arrays, where = episode.manifest, episode.arrays, episode.manifest.episode_id
    files = encode_arrays(arrays, manifest.num_frames, len(manifest.action_names), where)
    _check_image_frames(arrays.image_frames, manifest.num_frames, where)
    counts = [len(images) for images in episode.jpegs]
    if counts != [len(manifest.cameras)] * len(arrays.image_frames):
        raise reject(
            where,
            "JPEGs",
            expected=f"{len(manifest.cameras)} for each of {len(arrays.image_frames)} image frames",
            got=counts,
            fix="Build episodes with EpisodeRecorder.",
        )
    writer = zip_layout.ZipWriter(where)
    for frame, images in zip(arrays.image_frames, episode.jpegs, strict=True):
        for camera, jpeg in zip(manifest.cameras, images, strict=True):
            writer.add(image_name(int(frame), camera.name), jpeg)
    arrays_offset = writer.offset
    for name in DTYPES:
        writer.add(member_name(name), files[name])
    writer.add(MANIFEST, encode_manifest(manifest, writer.sha256(), where))
    return writer.finish(arrays_offset)


def parse(data: bytes | memoryview, path: str = "") -> ParsedEpisode:
    """Reads an object without copying its images; checks its whole structure and every checksum.

    Raises InvalidEpisodeError, whatever the bytes are.
    """
    view = memoryview(data)
    footer = zip_layout.read_footer(view[-FOOTER_BYTES:], path)
    if footer.size != len(view):
        raise reject(path, "size in bytes", expected=footer.size, got=len(view), fix=_UPLOAD_AGAIN)
    tail = _read_tail(view, 0, footer.arrays_offset, footer.directory_offset, path)
    offset, images = 0, []
    for frame in tail.arrays.image_frames:
        for camera in tail.manifest.cameras:
            name = image_name(int(frame), camera.name)
            images.append(zip_layout.read_member(view, offset, footer.arrays_offset, name, path))
            offset = images[-1].end
    _check_layout(view[footer.directory_offset :], images, tail, footer, path)
    found = hashlib.sha256(view[: tail.members[-1].offset]).hexdigest()
    if found != tail.payload_sha256:
        raise reject(path, "SHA-256 of the payload", expected=tail.payload_sha256, got=found, fix=_UPLOAD_AGAIN)
    return ParsedEpisode(tail.manifest, tail.arrays, _index(path, images, tail, footer))


def unpack(data: bytes, path: str = "") -> Episode:
    """The episode in this object: `pack` undone. Raises InvalidEpisodeError."""
    parsed = parse(data, path)
    jpegs = tuple(
        tuple(data[offset : offset + length] for offset, length in frame.tolist())
        for frame in parsed.index.image_ranges
    )
    return Episode(parsed.manifest, parsed.arrays, jpegs)


def index_of(data: bytes, path: str) -> EpisodeIndex:
    """Where everything lies in this object. Raises InvalidEpisodeError."""
    return parse(data, path).index


def parse_arrays(tail: bytes, arrays_range: tuple[int, int], path: str) -> tuple[EpisodeManifest, EpisodeArrays]:
    """Manifest and arrays out of the bytes at `EpisodeIndex.arrays_range`. Raises InvalidEpisodeError."""
    offset, length = arrays_range
    if len(tail) != length:
        raise reject(path, "numeric tail", expected=f"{length} bytes", got=len(tail), fix=_UPLOAD_AGAIN)
    parsed = _read_tail(memoryview(tail), offset, offset, offset + length, path)
    return parsed.manifest, parsed.arrays


def parse_manifest(member: bytes, footer: Footer, path: str) -> EpisodeManifest:
    """The manifest out of the bytes from `footer.manifest_offset` to `footer.directory_offset`.

    Raises InvalidEpisodeError.
    """
    manifest, _, _ = _read_manifest(
        memoryview(member), footer.manifest_offset, footer.manifest_offset, footer.directory_offset, path
    )
    return manifest


def parse_without_images(end: bytes, footer: Footer, path: str) -> ParsedEpisode:
    """Everything but the pixels, out of the object's bytes from `footer.arrays_offset` to its end.

    The image ranges come from the central directory; the images' own checksums are not looked at. For objects that were
    verified before. Raises InvalidEpisodeError.
    """
    view, base = memoryview(end), footer.arrays_offset
    tail = _read_tail(view, base, base, footer.directory_offset, path)
    names = (
        image_name(int(frame), camera.name) for frame in tail.arrays.image_frames for camera in tail.manifest.cameras
    )
    images = zip_layout.read_directory(view[footer.directory_offset - base :], names, path)
    _check_layout(view[footer.directory_offset - base :], images, tail, footer, path)
    return ParsedEpisode(tail.manifest, tail.arrays, _index(path, images, tail, footer))


def _read_tail(view: memoryview, base: int, offset: int, end: int, path: str) -> _Tail:
    """Members from `offset` to `end`; `view` begins at byte `base` of the object."""
    members, files = [], {}
    for name in DTYPES:
        member = zip_layout.read_member(view, offset, end, member_name(name), path, base)
        files[name] = view[member.data_offset - base : member.end - base]
        members.append(member)
        offset = member.end
    manifest, checksum, last = _read_manifest(view, base, offset, end, path)
    arrays = decode_arrays(files, manifest.num_frames, len(manifest.action_names), path)
    _check_image_frames(arrays.image_frames, manifest.num_frames, path)
    num_members = len(arrays.image_frames) * len(manifest.cameras) + len(members) + 1
    if num_members > MAX_MEMBERS:
        raise reject(path, "number of files", expected=f"at most {MAX_MEMBERS}", got=num_members, fix=_FEWER_IMAGES)
    return _Tail(manifest, arrays, (*members, last), checksum)


def _read_manifest(
    view: memoryview, base: int, offset: int, end: int, path: str
) -> tuple[EpisodeManifest, str, Member]:
    member = zip_layout.read_member(view, offset, end, MANIFEST, path, base)
    if member.end != end:
        raise reject(path, "end of manifest.json", expected=f"byte {end}", got=member.end, fix=_UPLOAD_AGAIN)
    manifest, checksum = decode_manifest(bytes(view[member.data_offset - base : member.end - base]), path)
    return manifest, checksum, member


def _check_image_frames(image_frames: np.ndarray, num_frames: int, where: str) -> None:
    increasing = np.all(np.diff(image_frames.astype(np.int64)) > 0)
    if not increasing or np.any(image_frames < 0) or np.any(image_frames >= min(num_frames, MAX_FRAMES)):
        raise reject(
            where,
            "image_frames",
            expected=f"increasing, within 0..{num_frames - 1}",
            got=image_frames.tolist(),
            fix="Build episodes with EpisodeRecorder.",
        )


def _check_layout(end: memoryview, images: Sequence[Member], tail: _Tail, footer: Footer, path: str) -> None:
    """The images fill the object up to the numeric tail, and the directory is the one these members must have."""
    offset = images[-1].end if images else 0
    if offset != footer.arrays_offset:
        raise reject(path, "end of the images", expected=f"byte {footer.arrays_offset}", got=offset, fix=_UPLOAD_AGAIN)
    if zip_layout.directory([*images, *tail.members], footer.arrays_offset) != end:
        raise reject(
            path, "zip directory", expected="one that agrees with the members", got="another", fix=_UPLOAD_AGAIN
        )


def _index(path: str, images: Sequence[Member], tail: _Tail, footer: Footer) -> EpisodeIndex:
    ranges = np.array([(image.data_offset, image.size) for image in images], np.int64)
    ranges = ranges.reshape(len(tail.arrays.image_frames), len(tail.manifest.cameras), 2)
    ranges.flags.writeable = False
    arrays_range = (footer.arrays_offset, footer.directory_offset - footer.arrays_offset)
    return EpisodeIndex(path, footer.size, arrays_range, ranges)

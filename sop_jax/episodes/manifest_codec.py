"""manifest.json: strict both ways.

Writing yields one fixed text per manifest. Reading takes hostile bytes: every field must be there, of its exact type, within
its bounds, and nothing else may be there; what is read back must give the same text again.
"""

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping
from typing import NoReturn, TypeVar

import numpy as np

from sop_jax.episodes.rejection import reject
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.identifiers import check_name, robot_of_episode
from sop_jax.specs.records import (
    NO_POLICY,
    SCHEMA_VERSION,
    CameraSpec,
    EpisodeManifest,
    EpisodeMark,
    Outcome,
    Source,
    TakeoverEvent,
)

MAX_MANIFEST_BYTES = 2**20
MAX_FRAMES = 10**6
"""Nine hours at 30 Hz; frame folders have six digits."""
MAX_CAMERAS = 16
MAX_ACTION_DIM = 128
MAX_IMAGE_SIDE = 4096
MAX_INSTRUCTION = 500
MAX_TEXT = 200
MAX_MARKS = 1000
MAX_CONTROL_HZ = 2000.0
_INT64 = 2**63 - 1
_CHECKSUM = "payload_sha256"
_FIELDS = {
    2: frozenset(field.name for field in dataclasses.fields(EpisodeManifest)) | {_CHECKSUM, "schema_version"},
}
_FIELDS[1] = _FIELDS[2] - {"marks"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UPDATE = "Update the software that wrote it."
_Choice = TypeVar("_Choice", bound=enum.StrEnum)


def encode_manifest(manifest: EpisodeManifest, payload_sha256: str, where: str) -> bytes:
    """The text of manifest.json. Raises InvalidEpisodeError if a reader would refuse it."""
    try:
        text = _to_text(manifest, payload_sha256)
    except (TypeError, ValueError) as error:
        raise reject(where, "manifest", expected="plain finite values", got=str(error), fix=_UPDATE) from error
    back, _ = decode_manifest(text, where)
    if back != manifest:
        raise reject(where, "manifest", expected="fields of their declared types", got=manifest, fix=_UPDATE)
    return text


def decode_manifest(data: bytes, where: str) -> tuple[EpisodeManifest, str]:
    """The manifest, and the SHA-256 of everything stored before it. Raises InvalidEpisodeError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise reject(where, "manifest size", expected=f"<= {MAX_MANIFEST_BYTES} bytes", got=len(data), fix=_UPDATE)
    try:
        raw = json.loads(data.decode("ascii"), parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise reject(where, "manifest.json", expected="JSON", got=str(error), fix=_UPDATE) from error
    if not isinstance(raw, dict):
        raise reject(where, "manifest.json", expected="an object", got=raw, fix=_UPDATE)
    version = raw.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise reject(
            where,
            "schema_version",
            expected=f"1 to {SCHEMA_VERSION}",
            got=version,
            fix="A newer robot wrote this: update this reader, then let intake try again.",
        )
    if raw.keys() != _FIELDS[version]:
        raise reject(where, "manifest fields", expected=sorted(_FIELDS[version]), got=sorted(raw), fix=_UPDATE)
    try:
        manifest = _manifest(_Fields(raw, where))
        checksum = _Fields(raw, where).text(_CHECKSUM, 64)
        canonical = _to_text(manifest, checksum) == data
    except InvalidEpisodeError as error:
        raise error if where in str(error) else InvalidEpisodeError(f"episode {where}: {error}") from error
    if not canonical:
        raise reject(where, "manifest.json", expected="its canonical text", got=data, fix=_UPDATE)
    return manifest, checksum


def _to_text(manifest: EpisodeManifest, payload_sha256: str) -> bytes:
    fields = dataclasses.asdict(manifest) | {"control_hz": float(manifest.control_hz)}
    fields |= {"schema_version": manifest.schema_version, _CHECKSUM: payload_sha256}
    if not manifest.marks:
        del fields["marks"]
    return (json.dumps(fields, indent=1, allow_nan=False, default=_plain) + "\n").encode("ascii")


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r} has no place in a manifest")


def _no_constants(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


class _Fields:
    """Typed, bounded access to one parsed JSON object."""

    def __init__(self, raw: Mapping[str, object], where: str):
        self._raw = raw
        self.where = where

    def has(self, key: str) -> bool:
        return key in self._raw

    def integer(self, key: str, low: int, high: int = _INT64) -> int:
        value = self._raw[key]
        if type(value) is not int or not low <= value <= high:
            raise reject(self.where, key, expected=f"an integer in {low}..{high}", got=value, fix=_UPDATE)
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self._raw[key]
        if type(value) is not float or not math.isfinite(value) or not low < value <= high:
            raise reject(self.where, key, expected=f"a number in ({low}, {high}]", got=value, fix=_UPDATE)
        return value

    def text(self, key: str, longest: int, shortest: int = 0) -> str:
        value = self._raw[key]
        if type(value) is not str or not shortest <= len(value) <= longest or _UNPRINTABLE.search(value):
            expected = f"{shortest} to {longest} printable characters on one line"
            raise reject(self.where, key, expected=expected, got=value, fix="Shorten or clean the text.")
        return value

    def name(self, key: str) -> str:
        return check_name(key, self.text(key, 63))

    def choice(self, key: str, kind: type[_Choice]) -> _Choice:
        value = self._raw[key]
        if type(value) is not str or value not in set(kind):
            raise reject(self.where, key, expected=[str(member) for member in kind], got=value, fix=_UPDATE)
        return kind(value)

    def objects(self, key: str, keys: frozenset[str], most: int) -> list["_Fields"]:
        value = self._raw[key]
        if type(value) is not list or len(value) > most:
            raise reject(self.where, key, expected=f"a list of at most {most}", got=value, fix=_UPDATE)
        for entry in value:
            if type(entry) is not dict or entry.keys() != keys:
                raise reject(self.where, key, expected=f"objects with {sorted(keys)}", got=entry, fix=_UPDATE)
        return [_Fields(entry, self.where) for entry in value]

    def names(self, key: str, most: int) -> tuple[str, ...]:
        value = self._raw[key]
        if type(value) is not list or not 1 <= len(value) <= most or len(set(map(repr, value))) != len(value):
            raise reject(self.where, key, expected=f"1 to {most} different names", got=value, fix=_UPDATE)
        return tuple(_Fields({key: entry}, self.where).text(key, 63, 1) for entry in value)


def _manifest(raw: _Fields) -> EpisodeManifest:
    num_frames = raw.integer("num_frames", 1, MAX_FRAMES)
    started_ns = raw.integer("started_ns", 0)
    return EpisodeManifest(
        episode_id=_episode_id(raw),
        robot_id=raw.name("robot_id"),
        task=raw.name("task"),
        instruction=raw.text("instruction", MAX_INSTRUCTION, 1),
        source=raw.choice("source", Source),
        policy_version=raw.integer("policy_version", NO_POLICY, 2**31 - 1),
        outcome=raw.choice("outcome", Outcome),
        control_hz=raw.number("control_hz", 0.0, MAX_CONTROL_HZ),
        num_frames=num_frames,
        cameras=_cameras(raw),
        action_names=raw.names("action_names", MAX_ACTION_DIM),
        started_ns=started_ns,
        ended_ns=raw.integer("ended_ns", started_ns),
        failure_kind=raw.text("failure_kind", MAX_TEXT),
        weights_base=raw.text("weights_base", MAX_TEXT),
        norm_stats=raw.text("norm_stats", MAX_TEXT),
        seed=raw.integer("seed", -_INT64 - 1),
        world=raw.text("world", MAX_TEXT),
        takeovers=_takeovers(raw, num_frames),
        marks=_marks(raw, num_frames) if raw.has("marks") else (),
    )


def _episode_id(raw: _Fields) -> str:
    episode_id = raw.text("episode_id", MAX_TEXT)
    if (robot := robot_of_episode(episode_id)) != (robot_id := raw.name("robot_id")):
        raise reject(
            raw.where,
            "identity",
            expected=f"robot {robot!r}, as in episode_id {episode_id}",
            got=robot_id,
            fix="Set the robot's own robot_id in its configuration.",
        )
    return episode_id


def _cameras(raw: _Fields) -> tuple[CameraSpec, ...]:
    cameras = tuple(
        CameraSpec(
            entry.name("name"), entry.integer("height", 1, MAX_IMAGE_SIDE), entry.integer("width", 1, MAX_IMAGE_SIDE)
        )
        for entry in raw.objects("cameras", frozenset({"name", "height", "width"}), MAX_CAMERAS)
    )
    names = [camera.name for camera in cameras]
    if not cameras or len(set(names)) != len(names):
        raise reject(raw.where, "cameras", expected="one or more, with different names", got=names, fix=_UPDATE)
    return cameras


def _takeovers(raw: _Fields, num_frames: int) -> tuple[TakeoverEvent, ...]:
    keys = frozenset(field.name for field in dataclasses.fields(TakeoverEvent))
    events = tuple(
        TakeoverEvent(
            asked_frame=entry.integer("asked_frame", 0, num_frames),
            takeover_frame=entry.integer("takeover_frame", 0, num_frames),
            handback_frame=entry.integer("handback_frame", 0, num_frames),
            reason=entry.text("reason", MAX_TEXT),
        )
        for entry in raw.objects("takeovers", keys, num_frames)
    )
    end = 0
    for event in events:
        if not event.asked_frame <= event.takeover_frame < event.handback_frame or event.takeover_frame < end:
            raise reject(
                raw.where,
                "takeovers",
                expected=f"asked <= takeover < handback, after frame {end}",
                got=event,
                fix="Let EpisodeRecorder derive them from the intervention flags.",
            )
        end = event.handback_frame
    return events


def _marks(raw: _Fields, num_frames: int) -> tuple[EpisodeMark, ...]:
    keys = frozenset(field.name for field in dataclasses.fields(EpisodeMark))
    marks = tuple(
        EpisodeMark(entry.integer("frame", 0, num_frames - 1), entry.name("kind"), entry.text("note", MAX_TEXT))
        for entry in raw.objects("marks", keys, MAX_MARKS)
    )
    frames = [mark.frame for mark in marks]
    if not marks or frames != sorted(frames):
        raise reject(raw.where, "marks", expected="one or more, in the order of their frames", got=frames, fix=_UPDATE)
    return marks

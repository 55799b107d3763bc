"""What this project knows of a frame and other formats have no column for, as columns, and back.

Legend: `T` frames, `K` frames with pictures of their own.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from sop_jax.episodes.manifest_codec import decode_manifest, encode_manifest
from sop_jax.interchange.errors import refuse
from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.records import Episode, EpisodeArrays, EpisodeManifest, Outcome

STATE, ACTION = "observation.state", "action"
PICTURES = "observation.images."
MANIFEST = "sop_manifest"
"""A dataset with this column is an export of this project."""
NO_PICTURE_YET = -1

DTYPES = {
    "intervention": "bool",
    "policy_version": "int32",
    "time_ns": "int64",
    "picture_age": "int64",
    "next.reward": "float32",
    "next.done": "bool",
    "next.success": "bool",
    "episode_id": "string",
    "robot_id": "string",
    "task_name": "string",
    "source": "string",
    "outcome": "string",
    "sop_manifest": "string",
}
"""Column -> type; one value a frame.

picture_age: frames since the picture shown was taken (0 = its own, -1 = none yet, black).
next.reward: 1 on the last frame of a success, else 0; next.success likewise; next.done on the last frame.
sop_manifest: everything else there is to say of the episode, as JSON, on its last frame; "" on others. So it stays with the
episode when LeRobot's tools take a dataset apart or join several.
None of the names begins with "observation" or "action", which LeRobot's policies would take for inputs."""


def to_columns(episode: Episode) -> dict[str, np.ndarray]:
    """Column -> [T], for every name of DTYPES."""
    manifest, arrays = episode.manifest, episode.arrays
    num = manifest.num_frames
    last = np.arange(num) == num - 1
    success = last & (manifest.outcome is Outcome.SUCCESS)
    columns = {
        "intervention": arrays.intervention,
        "policy_version": arrays.policy_version,
        "time_ns": arrays.time_ns,
        "picture_age": picture_ages(arrays),
        "next.reward": success.astype(np.float32),
        "next.done": last,
        "next.success": success,
    }
    texts = {
        "episode_id": manifest.episode_id,
        "robot_id": manifest.robot_id,
        "task_name": manifest.task,
        "source": manifest.source.value,
        "outcome": manifest.outcome.value,
    }
    told = {name: np.full(num, text, object) for name, text in texts.items()}
    return columns | told | {MANIFEST: np.where(last, json.dumps(manifest_to_json(manifest)), "").astype(object)}


def picture_ages(arrays: EpisodeArrays) -> np.ndarray:
    """int64 [T]: frames since the last picture was taken; NO_PICTURE_YET before the first."""
    frames = np.arange(arrays.num_frames)
    newest = np.searchsorted(arrays.image_frames, frames, side="right") - 1
    if not len(arrays.image_frames):
        return np.full(arrays.num_frames, NO_PICTURE_YET, np.int64)
    return np.where(newest < 0, NO_PICTURE_YET, frames - arrays.image_frames[newest])


def from_columns(columns: Mapping[str, np.ndarray]) -> EpisodeArrays:
    """The arrays out of the columns of one episode: those of DTYPES, STATE and ACTION."""
    num = len(columns["time_ns"])
    return EpisodeArrays(
        state=columns[STATE].reshape(num, -1).astype(np.float32, copy=False),
        action=columns[ACTION].reshape(num, -1).astype(np.float32, copy=False),
        intervention=columns["intervention"].astype(bool, copy=False),
        policy_version=columns["policy_version"].astype(np.int32, copy=False),
        time_ns=columns["time_ns"].astype(np.int64, copy=False),
        image_frames=np.flatnonzero(columns["picture_age"] == 0).astype(np.int32),
    )


def check_columns(columns: Mapping[str, np.ndarray], manifest: EpisodeManifest, where: str) -> None:
    """Raises InvalidDatasetError if the columns speak of another episode than the manifest, or of a part of it."""
    num = len(columns["time_ns"])
    if num != manifest.num_frames:
        fix = "The episode was cut after the export; export it again."
        raise refuse(where, "frames", expected=manifest.num_frames, got=num, fix=fix)
    expected = {
        "episode_id": manifest.episode_id,
        "robot_id": manifest.robot_id,
        "task_name": manifest.task,
        "source": manifest.source.value,
        "outcome": manifest.outcome.value,
    }
    for name, text in expected.items():
        if set(columns[name]) != {text}:
            fix = "The labels were changed after the export, in one place only."
            raise refuse(where, name, expected=text, got=sorted(set(columns[name])), fix=fix)


def manifest_to_json(manifest: EpisodeManifest) -> dict[str, Any]:
    """A manifest as a JSON object. Raises InvalidEpisodeError if a reader would refuse it."""
    return json.loads(encode_manifest(manifest, "", manifest.episode_id))


def read_manifest(columns: Mapping[str, np.ndarray], where: str) -> EpisodeManifest:
    """The manifest out of its column. Raises InvalidDatasetError if the column isn't as `to_columns` makes it."""
    *others, text = columns[MANIFEST]
    if not text or any(others):
        fix = "The episode was cut, or joined with another, after the export."
        raise refuse(where, MANIFEST, expected="one text, on the last frame", got=text, fix=fix)
    try:
        canonical = (json.dumps(json.loads(text), indent=1) + "\n").encode("ascii")
        return decode_manifest(canonical, where)[0]
    except (ValueError, RecursionError, InvalidEpisodeError) as error:
        fix = "It was changed after the export."
        raise refuse(where, MANIFEST, expected="a manifest", got=str(error), fix=fix) from error

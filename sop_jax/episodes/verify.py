"""Whatever a robot uploads is hostile until this module has passed it.

`format.parse` proves structure and checksums; here the values, the identity and the image headers are checked. Nothing but
InvalidEpisodeError leaves, whatever the bytes are.
"""

import dataclasses

import numpy as np

from sop_jax.episodes import format as episode_format
from sop_jax.episodes.images import check_jpeg, decode_images
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.rejection import reject
from sop_jax.specs.records import (
    NO_POLICY,
    EpisodeArrays,
    EpisodeIndex,
    EpisodeManifest,
    RobotSpec,
    is_same_rate,
)

MAX_JOINT_RAD = 10.0
"""No joint of an arm turns further; a larger number is degrees, ticks or a broken encoder."""
GRIPPER_TOLERANCE = 0.1
"""Measured gripper openings overshoot [0, 1] by a little."""


@dataclasses.dataclass(frozen=True)
class VerifiedEpisode:
    """An episode that may be trained on: the only thing of an upload that intake passes on."""

    manifest: EpisodeManifest
    arrays: EpisodeArrays
    index: EpisodeIndex


def verify_bytes(
    data: bytes, path: str, *, spec: RobotSpec | None = None, decode_all_images: bool = False
) -> VerifiedEpisode:
    """Checks an uploaded object from end to end.

    Args:
        data: The object's bytes, from anywhere.
        path: Where it lies in the store; its robot_id and episode_id must be the manifest's.
        spec: The robot that the learner's model was made for; cameras, dimensions and rate must agree with it. None =
            any robot.
        decode_all_images: Also decode every pixel (else headers and end markers only), for robots you don't trust: a
            JPEG that breaks in the middle would otherwise be found when it is sampled.

    Raises:
        InvalidEpisodeError: Set the episode aside; the message says why.
    """
    parsed = episode_format.parse(data, path)
    manifest, arrays, index = parsed.manifest, parsed.arrays, parsed.index
    _check_identity(manifest, path)
    if spec is not None:
        _check_spec(manifest, spec, path)
    _check_values("state", arrays.state, manifest.action_names, path)
    _check_values("action", arrays.action, manifest.action_names, path)
    _check_times(manifest, arrays, path)
    _check_versions(manifest, arrays, path)
    _check_takeovers(manifest, arrays, path)
    view = memoryview(data)
    for ranges in index.image_ranges.tolist():
        jpegs = [view[offset : offset + length] for offset, length in ranges]
        for camera, jpeg in zip(manifest.cameras, jpegs, strict=True):
            check_jpeg(jpeg, camera, path)
        if decode_all_images:
            decode_images([bytes(jpeg) for jpeg in jpegs], manifest.cameras, path)
    return VerifiedEpisode(manifest, arrays, index)


def _check_identity(manifest: EpisodeManifest, path: str) -> None:
    if path != (expected := episode_path(manifest.episode_id)):
        raise reject(
            path,
            "identity: its path and its manifest disagree",
            expected=expected,
            got=path,
            fix=f"Upload episode {manifest.episode_id} through EpisodeStore.put, under its own robot's prefix.",
        )


def _check_spec(manifest: EpisodeManifest, spec: RobotSpec, path: str) -> None:
    got = (manifest.action_names, manifest.cameras)
    if got != (expected := (spec.action_names, spec.cameras)):
        raise reject(
            path,
            f"robot {manifest.robot_id} is not a {spec.robot_type}",
            expected=expected,
            got=got,
            fix="Train one model per robot type, or resize the cameras' images on the robot.",
        )
    if not is_same_rate(manifest.control_hz, spec.control_hz):
        raise reject(
            path,
            f"control_hz of robot {manifest.robot_id}, for a model of {spec.robot_type} robots",
            expected=spec.control_hz,
            got=manifest.control_hz,
            fix="What was recorded at another rate is played back at another speed: train one model per rate.",
        )


def _check_values(name: str, values: np.ndarray, dims: tuple[str, ...], path: str) -> None:
    """Finite; joints within MAX_JOINT_RAD; dimensions named '...gripper...' within [0, 1] and a tolerance."""
    is_gripper = np.array(["gripper" in dim for dim in dims])
    low = np.where(is_gripper, -GRIPPER_TOLERANCE, -MAX_JOINT_RAD)[None]
    high = np.where(is_gripper, 1.0 + GRIPPER_TOLERANCE, MAX_JOINT_RAD)[None]
    wrong = ~((values >= low) & (values <= high))  # also true for NaN
    if np.any(wrong):
        frame, dim = (int(i) for i in np.argwhere(wrong)[0])
        raise reject(
            path,
            f"{name} of {dims[dim]!r} at frame {frame}",
            expected=f"{low[0, dim]:g} to {high[0, dim]:g} ({'0 open .. 1 closed' if is_gripper[dim] else 'rad'})",
            got=float(values[frame, dim]),
            fix="Check the robot's units and encoders, or whether its simulation diverged.",
        )


def _check_times(manifest: EpisodeManifest, arrays: EpisodeArrays, path: str) -> None:
    times = arrays.time_ns
    backwards = np.flatnonzero(times[1:] <= times[:-1])
    if len(backwards):
        raise reject(
            path,
            f"time_ns at frame {backwards[0] + 1}",
            expected=f"> {times[backwards[0]]}",
            got=int(times[backwards[0] + 1]),
            fix="Stamp frames with the robot's monotone clock.",
        )
    if not manifest.started_ns <= times[0] <= times[-1] <= manifest.ended_ns:
        raise reject(
            path,
            "time_ns",
            expected=f"within started_ns..ended_ns = {manifest.started_ns}..{manifest.ended_ns}",
            got=(int(times[0]), int(times[-1])),
            fix="Use one clock for the frames and the manifest.",
        )


def _check_versions(manifest: EpisodeManifest, arrays: EpisodeArrays, path: str) -> None:
    """One policy per episode; a supervisor's frame may also carry NO_POLICY."""
    version = arrays.policy_version
    wrong = (version != manifest.policy_version) & ~((version == NO_POLICY) & arrays.intervention)
    if np.any(wrong):
        frame = int(np.flatnonzero(wrong)[0])
        raise reject(
            path,
            f"policy_version at frame {frame}",
            expected=manifest.policy_version,
            got=int(version[frame]),
            fix="Swap policies at the episode's boundary only.",
        )


def _check_takeovers(manifest: EpisodeManifest, arrays: EpisodeArrays, path: str) -> None:
    """The takeover events are the intervention flags' edges. Demonstrations need no events."""
    if manifest.policy_version == NO_POLICY and not manifest.takeovers:
        return
    told = np.zeros(manifest.num_frames, bool)
    for event in manifest.takeovers:
        told[event.takeover_frame : event.handback_frame] = True
    wrong = np.flatnonzero(told != arrays.intervention)
    if len(wrong):
        raise reject(
            path,
            f"intervention at frame {wrong[0]}",
            expected=f"{told[wrong[0]]}, as the takeovers say",
            got=bool(arrays.intervention[wrong[0]]),
            fix="Let EpisodeRecorder derive takeovers from the flags.",
        )

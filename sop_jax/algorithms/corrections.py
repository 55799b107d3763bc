"""What a human's turn is made of, and how much each of its frames weighs.

A person who takes over often first takes the robot back to where it knew what to do, then shows how to go on (RaC,
arXiv 2509.07953):

    asked     takeover           back where it was before         handback
      |  policy  |---- recovery ----|---------- correction ----------|

Legend: `T` frames of an episode, `H` horizon of an action chunk, `J` arm joints, `N` poses.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from sop_jax.specs.errors import ConfigError, UnlabelledEpisodeError
from sop_jax.specs.records import EpisodeArrays, EpisodeManifest

Balance = Literal["frames", "takeovers", "episodes"]
"""What counts alike among corrections, whatever its length: a frame, a takeover, or all corrections of an episode."""

MAX_COMPARISONS = 500_000_000
"""Poses that may be compared for one episode, some seconds of work: an hour at 30 Hz with fifty takeovers needs no more. A
robot may send a million frames in which somebody takes over at every other one."""


@dataclasses.dataclass(frozen=True)
class RecoveryConfig:
    """When a human has taken the robot back to where it was before.

    within_rad: every arm joint is this near to where it was at one earlier moment.
    max_frames: recovery takes so long at most; who comes near an old pose later does so on the way to the goal.
    """

    within_rad: float = 0.1
    max_frames: int = 90

    def __post_init__(self) -> None:
        if not (math.isfinite(self.within_rad) and self.within_rad > 0) or self.max_frames < 0:
            raise ConfigError(
                "RecoveryConfig: within_rad must be positive and max_frames >= 0, got "
                f"{self.within_rad} and {self.max_frames}"
            )


def find_takeovers(intervention: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """[takeover, handback) of each run of human frames."""
    flags = np.concatenate([[False], intervention, [False]]).astype(np.int8)
    changes = np.diff(flags)
    starts, ends = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def find_recovery(
    manifest: EpisodeManifest, arrays: EpisodeArrays, rewind_frames: int, config: RecoveryConfig
) -> Bool[np.ndarray, "T"]:
    """The human frames that lead back, by an approximation: the record doesn't say where a person's recovery ends.

    It ends with the first frame at which the arms stand where they stood at a frame that lies more than `rewind_frames`
    before the request (those before it led to the request). If they stand there at the takeover, or don't get there within
    `max_frames` of it and before the handback, there was no recovery. Objects and grippers aren't looked at.

    Raises UnlabelledEpisodeError for an episode that needs more than MAX_COMPARISONS.
    """
    recovery = np.zeros(arrays.num_frames, bool)
    is_arm = np.array(["gripper" not in name for name in manifest.action_names])
    joints = np.ascontiguousarray(arrays.state[:, : len(is_arm)][:, is_arm].T)
    asked = {event.takeover_frame: event.asked_frame for event in manifest.takeovers}
    num_compared = 0
    takeovers = find_takeovers(arrays.intervention)
    for takeover, handback in takeovers:
        known = joints[:, : max(0, asked.get(takeover, takeover) - rewind_frames)]
        for frame in range(takeover, min(handback, takeover + config.max_frames + 1)):
            num_compared += known.shape[1]
            if num_compared > MAX_COMPARISONS:
                raise UnlabelledEpisodeError(
                    f"episode {manifest.episode_id}: recoveries can't be told: expected at most {MAX_COMPARISONS:,} poses to "
                    f"compare, got more with {len(takeovers)} takeovers in {arrays.num_frames} frames. "
                    "Teach all corrections (teaches='corrections'), or look at what this robot uploads."
                )
            if _has_stood_at(known, joints[:, frame], config.within_rad):
                recovery[takeover:frame] = True
                break
    return recovery


def _has_stood_at(known: Float32[np.ndarray, "J N"], pose: Float32[np.ndarray, "J"], within_rad: float) -> bool:
    """Whether one of the known poses is near. Joint by joint: after one or two, none of them is left as a rule."""
    near = np.ones(known.shape[1], bool)
    for angles, angle in zip(known, pose, strict=True):
        if not near.any():
            return False
        near &= np.abs(angles - angle) <= within_rad
    return bool(near.any())


def balance_frames(
    teaches: Bool[np.ndarray, "T"], intervention: Bool[np.ndarray, "T"], balance: Balance, balanced_frames: int
) -> Float32[np.ndarray, "T"]:
    """How much each frame that teaches counts: 1, or `balanced_frames` shared by the teaching frames of its takeover or of
    the episode; 0 where nothing teaches."""
    weights = teaches.astype(np.float32)
    if balance == "frames":
        return weights
    spans = find_takeovers(intervention) if balance == "takeovers" else [(0, len(teaches))]
    for start, end in spans:
        weights[start:end] *= balanced_frames / max(1, int(teaches[start:end].sum()))
    return weights


def mean_taught(masks: Bool[np.ndarray, "T H"], weights: Float[np.ndarray, "T"]) -> Float[np.ndarray, "T"]:
    """The mean weight of the actions that each chunk teaches (past the end: the last frame's), 0 where it teaches none."""
    if len(weights) == 0:
        return weights
    padded = np.concatenate([weights, np.repeat(weights[-1:], masks.shape[1] - 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, masks.shape[1])
    return (windows * masks).sum(axis=1) / np.maximum(1, masks.sum(axis=1))

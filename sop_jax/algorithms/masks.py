"""From frames to chunks: which actions of the chunk that starts at each frame teach.

Legend: `T` frames of an episode, `H` horizon of an action chunk.
"""

import numpy as np
from jaxtyping import Bool, Float32

from sop_jax.replay.items import FrameLabels
from sop_jax.specs.records import EpisodeManifest, Outcome, Source


def chunk_masks(teaches: Bool[np.ndarray, "T"], horizon: int, outcome: Outcome) -> Bool[np.ndarray, "T H"]:
    """Row t holds `teaches` of frames t .. t+H-1.

    Past the end stands the last action, held. After a success it teaches if the last action does (the robot has arrived
    and stays there: a chunk near the end is taught whole); after any other end it doesn't.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be >= 1, got {horizon}")
    if len(teaches) == 0:
        return np.zeros((0, horizon), bool)
    held = bool(teaches[-1]) and outcome == Outcome.SUCCESS
    padded = np.concatenate([teaches, np.full(horizon - 1, held)])
    return np.lib.stride_tricks.sliding_window_view(padded, horizon).copy()


def until_handover(interventions: Bool[np.ndarray, "T"], horizon: int) -> Bool[np.ndarray, "T H"]:
    """Row t holds, of frames t .. t+H-1, whether whoever acts at t still acts, and nobody else did meanwhile.

    Past the end stands the last action, held by who took it.
    """
    num_frames = len(interventions)
    changes = np.flatnonzero(interventions[1:] != interventions[:-1]) + 1
    frames = np.arange(num_frames)
    ends = np.append(changes, num_frames + horizon)[np.searchsorted(changes, frames, side="right")]
    return frames[:, None] + np.arange(horizon) < ends[:, None]


def is_demonstration(manifest: EpisodeManifest) -> bool:
    """Whether all of an episode is to be imitated: recorded for that, and a success; a failure shows how to fail."""
    return manifest.source == Source.OFFLINE and manifest.outcome == Outcome.SUCCESS


def label_masked(masks: Bool[np.ndarray, "T H"], label: Float32[np.ndarray, "T"]) -> FrameLabels:
    """Frames with a taught action are trainable and carry `label`; the others carry 0."""
    trainable = np.any(masks, axis=1)
    return FrameLabels(trainable=np.asarray(trainable), label=np.where(trainable, label, np.float32(0)))

"""An episode of only those frames that have pictures, at a lower rate.

Legend: `T` frames, `K` frames with pictures.
"""

import dataclasses

import numpy as np

from sop_jax.interchange.errors import refuse
from sop_jax.specs.records import Episode, EpisodeArrays, TakeoverEvent


def thin(episode: Episode) -> Episode:
    """The same episode seen at its pictures' rate: state, action and labels of the K frames, at control_hz / stride.

    The actions between are left out: each of those kept is the target of the first of `stride` ticks. Takeovers that lie
    between two pictures vanish, marks go to the picture before.

    Raises InvalidDatasetError if the pictures aren't evenly spaced.
    """
    manifest, arrays = episode.manifest, episode.arrays
    kept = arrays.image_frames
    strides = np.unique(np.diff(kept))
    if not len(kept) or len(strides) > 1:
        fix = "Export all frames (--frames all)."
        where = f"episode {manifest.episode_id}"
        raise refuse(where, "frames between pictures", expected="always as many", got=strides.tolist(), fix=fix)
    stride = int(strides[0]) if len(strides) else 1
    thinned = EpisodeArrays(
        state=arrays.state[kept],
        action=arrays.action[kept],
        intervention=arrays.intervention[kept],
        policy_version=arrays.policy_version[kept],
        time_ns=arrays.time_ns[kept],
        image_frames=np.arange(len(kept), dtype=np.int32),
    )
    changed = dataclasses.replace(
        manifest,
        num_frames=len(kept),
        control_hz=manifest.control_hz / stride,
        takeovers=_renumber(manifest.takeovers, kept),
        marks=tuple(dataclasses.replace(mark, frame=_shown_at(mark.frame, kept)) for mark in manifest.marks),
    )
    return Episode(changed, thinned, episode.jpegs)


def _shown_at(frame: int, kept: np.ndarray) -> int:
    """The last kept frame that is not after this one, or the first."""
    return max(int(np.searchsorted(kept, frame, side="right")) - 1, 0)


def _renumber(events: tuple[TakeoverEvent, ...], kept: np.ndarray) -> tuple[TakeoverEvent, ...]:
    renumbered = []
    for event in events:
        asked, takeover, handback = (
            int(np.searchsorted(kept, frame))
            for frame in (event.asked_frame, event.takeover_frame, event.handback_frame)
        )
        if takeover < handback:
            renumbered.append(TakeoverEvent(asked, takeover, handback, event.reason))
    return tuple(renumbered)

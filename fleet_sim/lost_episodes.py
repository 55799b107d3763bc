"""Episodes that ended early because nobody came: what was recorded until the robot stopped to wait.

Legend: `T` frames.
"""

import dataclasses
import pathlib

from sop_jax.episodes.format import pack, unpack
from sop_jax.specs.records import Episode, EpisodeArrays, Outcome

NOBODY_CAME = "nobody_came"
"""The failure kind of an episode in which a robot waited for a person in vain."""


def cut(episode: Episode, num_frames: int) -> Episode:
    """The first `num_frames` frames, sealed as a failure. Raises ValueError if there would be none, or more than T."""
    if not 0 < num_frames <= episode.manifest.num_frames:
        raise ValueError(
            f"episode {episode.manifest.episode_id}: can't keep {num_frames} of {episode.manifest.num_frames} frames"
        )
    arrays, manifest = episode.arrays, episode.manifest
    num_images = int((arrays.image_frames < num_frames).sum())
    kept = EpisodeArrays(
        state=arrays.state[:num_frames],
        action=arrays.action[:num_frames],
        intervention=arrays.intervention[:num_frames],
        policy_version=arrays.policy_version[:num_frames],
        time_ns=arrays.time_ns[:num_frames],
        image_frames=arrays.image_frames[:num_images],
    )
    sealed = dataclasses.replace(
        manifest,
        outcome=Outcome.FAILURE,
        failure_kind=NOBODY_CAME,
        num_frames=num_frames,
        ended_ns=int(kept.time_ns[-1]) + round(1e9 / manifest.control_hz),
        takeovers=tuple(event for event in manifest.takeovers if event.handback_frame <= num_frames),
        marks=tuple(mark for mark in manifest.marks if mark.frame < num_frames),
    )
    return Episode(sealed, kept, episode.jpegs[:num_images])


def cut_file(path: pathlib.Path, num_frames: int) -> None:
    """The same for a packed episode, in place."""
    episode = unpack(path.read_bytes(), str(path))
    path.write_bytes(pack(cut(episode, num_frames)))

"""Episodes as rows of pictures: a few frames from the head and from the hand that moves, straight from the store."""

import base64
import dataclasses
from typing import Protocol

import numpy as np

from sop_jax.evaluation.run_history import EpisodeSummary, RunHistory
from sop_jax.specs.errors import SopError
from sop_jax.specs.records import Episode, EpisodeArrays, Outcome

NUM_FRAMES = 9
LEFT_ARM, RIGHT_ARM = slice(0, 7), slice(7, 14)


@dataclasses.dataclass(frozen=True)
class FilmFrame:
    """One instant: JPEGs as data URIs, head first; `intervention` if the supervisor acted."""

    time_s: float
    images: tuple[str, ...]
    intervention: bool


@dataclasses.dataclass(frozen=True)
class Filmstrip:
    """One episode in pictures."""

    title: str
    caption: str
    frames: tuple[FilmFrame, ...]


class ReadsEpisodes(Protocol):
    """What `episodes.store.EpisodeStore` offers: a whole episode with its images."""

    def read(self, path: str) -> Episode: ...


def choose_filmstrips(history: RunHistory, store: ReadsEpisodes) -> tuple[Filmstrip, ...]:
    """An early episode that went wrong (with nobody helping, if there is one), a takeover with its correction from the
    middle of the run, and a late success without help, as far as the run has them."""
    episodes = [episode for episode in history.episodes if episode.counts]
    failures = [episode for episode in episodes if not episode.autonomous_success]
    unaided = [episode for episode in failures[: len(failures) // 2 + 1] if episode.num_interventions == 0]
    corrected = [episode for episode in failures if episode.num_interventions and episode.outcome is Outcome.SUCCESS]
    picks = [
        ("An early episode that went wrong", [*unaided, *failures]),
        ("A takeover and its correction", [*corrected[len(corrected) // 2 :], *corrected]),
        ("A late success, nobody helps", [episode for episode in reversed(episodes) if episode.autonomous_success]),
    ]
    strips, shown = [], set[str]()
    for title, candidates in picks:
        for episode in candidates:
            if episode.episode_id in shown:
                continue
            try:
                strip = make_filmstrip(title, episode, store.read(episode.path))
            except SopError:  # torn since: show another
                continue
            shown.add(episode.episode_id)
            strips.append(strip)
            break
    return tuple(strips)


def make_filmstrip(title: str, summary: EpisodeSummary, episode: Episode) -> Filmstrip:
    """Evenly spread frames of an episode; with a takeover, both its edges are among them."""
    arrays = episode.arrays
    cameras = _cameras_to_show(episode)
    frames = tuple(
        FilmFrame(
            time_s=float(arrays.time_ns[arrays.image_frames[k]] - arrays.time_ns[0]) / 1e9,
            images=tuple(_data_uri(episode.jpegs[k][camera]) for camera in cameras),
            intervention=bool(arrays.intervention[arrays.image_frames[k]]),
        )
        for k in _spread(arrays)
    )
    return Filmstrip(title, _caption(summary, episode), frames)


def _spread(arrays: EpisodeArrays) -> list[int]:
    """Indices into `image_frames`: NUM_FRAMES evenly spread, the nearest ones moved onto the edges of interventions."""
    num_images = len(arrays.image_frames)
    chosen = np.unique(np.linspace(0, num_images - 1, min(NUM_FRAMES, num_images)).round().astype(int))
    acting = arrays.intervention[arrays.image_frames]
    for edge in np.flatnonzero(acting[1:] != acting[:-1]) + 1:
        if len(chosen) > 2:
            inner = chosen[1:-1]
            inner[np.argmin(np.abs(inner - edge))] = edge
    return np.unique(chosen).tolist()


def _cameras_to_show(episode: Episode) -> tuple[int, ...]:
    """Head, and the wrist of the arm that moves more."""
    names = [camera.name for camera in episode.manifest.cameras]
    state = episode.arrays.state
    if not {"head", "hand_left", "hand_right"} <= set(names) or state.shape[1] < RIGHT_ARM.stop:
        return tuple(range(min(2, len(names))))
    left, right = np.ptp(state[:, LEFT_ARM], axis=0).sum(), np.ptp(state[:, RIGHT_ARM], axis=0).sum()
    return names.index("head"), names.index("hand_left" if left > right else "hand_right")


def _caption(summary: EpisodeSummary, episode: Episode) -> str:
    version = "the base policy" if summary.policy_version == 0 else f"policy version {summary.policy_version}"
    reasons = sorted({event.reason for event in episode.manifest.takeovers})
    taken = f"; taken over because of {', '.join(reasons)}" if reasons else ""
    kind = f" ({summary.failure_kind})" if summary.failure_kind else ""
    duration_s = summary.num_frames / episode.manifest.control_hz
    return (
        f"“{episode.manifest.instruction}”: {summary.robot_id} with {version}, {duration_s:.1f} s, "
        f"{summary.outcome.value}{kind}{taken}"
    )


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")

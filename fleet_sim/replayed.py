"""Recorded episodes lived again by other robots: for fleets whose physics this machine can't compute at the rate of time.

What is recorded stays (states, actions, images, how it ended); who, when and which version acted is new.

Legend: `T` frames.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_sim.crew import EpisodeInPlay, EpisodeOrder, PlayedEpisode, keep_file
from sop_jax.episodes.format import pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Episode, EpisodeArrays, Outcome, Source, TakeoverEvent


class Recordings:
    """Episodes to be lived again. Which one an order gets follows from its seed."""

    def __init__(self, episodes: Sequence[Episode]):
        if not episodes:
            raise ConfigError("Recordings need at least one episode, got none: name a store that holds some")
        self._episodes = tuple(episodes)

    @staticmethod
    def of_store(store: EpisodeStore, task: str) -> "Recordings":
        """All of a task's episodes, in the store's order."""
        episodes = (store.read(path) for path in store.list_paths())
        return Recordings([episode for episode in episodes if episode.manifest.task == task])

    def find(self, seed: int) -> Episode:
        return self._episodes[seed % len(self._episodes)]


def relive(episode: Episode, order: EpisodeOrder) -> Episode:
    """The same frames as `order`'s episode. A demonstration becomes one long correction by a person."""
    manifest, arrays = episode.manifest, episode.arrays
    takeovers = manifest.takeovers
    if manifest.source is Source.OFFLINE:
        takeovers = (TakeoverEvent(0, 0, manifest.num_frames, "replayed"),)
    shift_ns = order.started_ns - manifest.started_ns
    return Episode(
        dataclasses.replace(
            manifest,
            episode_id=order.episode_id,
            robot_id=order.robot_id,
            source=Source.ONLINE,
            policy_version=order.version,
            seed=order.seed,
            takeovers=takeovers,
            started_ns=order.started_ns,
            ended_ns=manifest.ended_ns + shift_ns,
        ),
        EpisodeArrays(
            state=arrays.state,
            action=arrays.action,
            intervention=arrays.intervention,
            policy_version=np.full_like(arrays.policy_version, order.version),
            time_ns=arrays.time_ns + shift_ns,
            image_frames=arrays.image_frames,
        ),
        episode.jpegs,
    )


class ReplayedCrew:
    """Plays orders as a `Crew` does, from recordings: done as soon as they are ordered."""

    def __init__(self, recordings: Recordings, settings: Mapping[str, Any]):
        self._recordings, self._scratch = recordings, pathlib.Path(settings["scratch"])

    def play(self, order: EpisodeOrder) -> EpisodeInPlay:
        episode = relive(self._recordings.find(order.seed), order)
        path = keep_file(self._scratch, order.episode_id, pack(episode))
        playing = EpisodeInPlay(order)
        manifest = episode.manifest
        playing.finish(PlayedEpisode(manifest.num_frames, path, manifest.outcome is Outcome.SUCCESS))
        return playing

    def close(self) -> None:
        """Nothing runs."""

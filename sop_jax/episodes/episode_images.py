"""The images of one episode for whoever labels it, read and decoded only when asked for.

Legend: `K` frames with images, `C` cameras, `n` rows asked for, `h w` pixels.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sop_jax.episodes.images import decode_images
from sop_jax.specs.errors import InvalidEpisodeError, SopError
from sop_jax.specs.records import CameraSpec, Episode, EpisodeIndex, EpisodeManifest


class ImagesUnavailableError(SopError):
    """The store didn't give the images this time; it says nothing about the episode."""


@runtime_checkable
class EpisodeImages(Protocol):
    """What an episode's cameras saw.

        images.read([0, 1, 2], ["head"])["head"]      # uint8 [3, h, w, 3]: at frames arrays.image_frames[:3]

    `cameras`: those that are wanted, which the episode may lack; default: all that it has. Blocks until they are there.
    Raises InvalidEpisodeError if a JPEG is broken, ImagesUnavailableError if the store failed.
    """

    def read(self, rows: Sequence[int], cameras: Collection[str] | None = None) -> Mapping[str, np.ndarray]: ...


@runtime_checkable
class ImageStore(Protocol):
    """What `StoredImages` asks of an `EpisodeStore`."""

    def read_images(self, requests: Sequence[tuple[str, np.ndarray]]) -> list[tuple[bytes, ...]]: ...


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """Images of an episode in a store, by range reads. Implements `EpisodeImages`."""

    store: ImageStore
    manifest: EpisodeManifest
    index: EpisodeIndex

    def read(self, rows: Sequence[int], cameras: Collection[str] | None = None) -> Mapping[str, np.ndarray]:
        path = self.index.path
        try:
            jpegs = self.store.read_images([(path, self.index.image_ranges[row]) for row in rows])
        except InvalidEpisodeError:
            raise
        except Exception as error:  # storage drivers raise what they like: none of it is the episode's fault
            raise ImagesUnavailableError(f"images of {path}: {error}") from error
        return _decode(jpegs, self.manifest.cameras, cameras, path)


@dataclasses.dataclass(frozen=True)
class HeldImages:
    """Images of an episode in memory. Implements `EpisodeImages`."""

    episode: Episode

    def read(self, rows: Sequence[int], cameras: Collection[str] | None = None) -> Mapping[str, np.ndarray]:
        manifest = self.episode.manifest
        return _decode([self.episode.jpegs[row] for row in rows], manifest.cameras, cameras, manifest.episode_id)


def _decode(
    jpegs: Sequence[Sequence[bytes]], cameras: Sequence[CameraSpec], wanted: Collection[str] | None, where: str
) -> Mapping[str, np.ndarray]:
    """Camera name -> uint8 [n, h, w, 3]. What isn't wanted isn't decoded."""
    columns = [column for column, camera in enumerate(cameras) if wanted is None or camera.name in wanted]
    kept = [cameras[column] for column in columns]
    frames = [decode_images([row[column] for column in columns], kept, where) for row in jpegs]
    return {
        camera.name: np.stack([frame[camera.name] for frame in frames])
        if frames
        else np.zeros((0, camera.height, camera.width, 3), np.uint8)
        for camera in kept
    }

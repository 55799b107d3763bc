"""The border between a foreign format and the importer: what a reader offers.

Legend: `T` frames of an episode.
"""

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

Picture = bytes | np.ndarray
"""One image: an encoded file (JPEG, PNG), or uint8 [height, width, 3], RGB."""


class Kind(enum.StrEnum):
    """What a frame of a feature holds."""

    NUMBER = "number"
    TEXT = "text"
    PICTURE = "picture"
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of a foreign dataset. `shape` is that of one frame's value; `names` are its dimensions', () if unknown."""

    kind: Kind
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ForeignEpisode:
    """The numbers and texts of one episode as its dataset holds them; pictures are fetched apart.

    where: names the episode in errors. instruction: "" if the dataset has none. columns: feature -> array [T, ...]; texts
    are arrays of str objects. void_at_end: features whose value on the last frame means nothing; if there are any, that frame
    holds an observation and no action.
    """

    index: int
    where: str
    instruction: str
    num_frames: int
    columns: Mapping[str, np.ndarray]
    void_at_end: frozenset[str] = frozenset()


class EpisodeSource(Protocol):
    """A dataset that episodes are taken from, one at a time. Not thread-safe; every call blocks.

        for index in range(source.num_episodes):
            episode = source.read(index, ("observation.state", "action"))
            pictures = source.pictures(episode, "observation.images.head", [0, 3, 6])

    `read` and `pictures` raise InvalidDatasetError when this episode can't be had; others may still be read. `control_hz` is
    0 if the dataset doesn't tell its rate.
    """

    @property
    def where(self) -> str: ...

    @property
    def num_episodes(self) -> int: ...

    @property
    def control_hz(self) -> float: ...

    @property
    def features(self) -> Mapping[str, Feature]: ...

    def read(self, index: int, features: Sequence[str]) -> ForeignEpisode: ...

    def pictures(self, episode: ForeignEpisode, feature: str, frames: Sequence[int]) -> Iterator[Picture]:
        """The pictures of these frames (increasing), in their order."""
        ...

"""Episodes of a foreign dataset into a store, through the same checks as a robot's upload.

Legend: `T` frames of an episode.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.retirement import retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.source import EpisodeSource, ForeignEpisode
from sop_jax.specs.errors import EpisodeExistsError, InvalidEpisodeError
from sop_jax.specs.records import Episode


class Translator(Protocol):
    """Makes this project's episodes of a source's.

        raw = source.read(index, translator.columns)
        if translator.episode_id(raw) not in store:
            episode = translator.translate(raw, source)

    `episode_id` follows from the dataset alone, so that importing twice imports nothing twice. Both raise
    InvalidDatasetError.
    """

    @property
    def columns(self) -> Sequence[str]: ...

    def episode_id(self, raw: ForeignEpisode) -> str: ...

    def translate(self, raw: ForeignEpisode, source: EpisodeSource) -> Episode: ...


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An episode that was not imported: its number in the dataset, and why."""

    index: int
    reason: str


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """imported: new episode_ids. present: those that the store had already, or has retired. refused: bad ones."""

    imported: tuple[str, ...]
    present: tuple[str, ...]
    refused: tuple[Refusal, ...]
    num_frames: int


def import_episodes(
    source: EpisodeSource,
    translator: Translator,
    store: EpisodeStore,
    *,
    indices: Sequence[int] | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportReport:
    """Imports the episodes with these numbers (None = all). A bad one is reported, and the others go on.

    With `dry_run` everything is done and checked but nothing stored. May be stopped and called again at any time.
    """
    chosen = range(source.num_episodes) if indices is None else indices
    known = set(store.list_paths()) | set(retired_paths(store))
    imported, present, refused, num_frames = [], [], [], 0
    for done, index in enumerate(chosen):
        progress(done, len(chosen))
        try:
            raw = source.read(index, translator.columns)
            episode_id = translator.episode_id(raw)
            path = episode_path(episode_id)
            if path in known:
                present.append(episode_id)
                continue
            data = pack(translator.translate(raw, source))
            verified = verify_bytes(data, path)
        except (InvalidDatasetError, InvalidEpisodeError) as error:
            refused.append(Refusal(index, _tell(source, index, error)))
            continue
        known.add(path)
        try:
            if not dry_run:
                store.put_bytes(episode_id, data)
        except EpisodeExistsError:  # another import was faster
            present.append(episode_id)
            continue
        imported.append(episode_id)
        num_frames += verified.manifest.num_frames
    return ImportReport(tuple(imported), tuple(present), tuple(refused), num_frames)


def _tell(source: EpisodeSource, index: int, error: Exception) -> str:
    """The complaint, with the dataset and the episode's number in front unless it names them itself."""
    where = f"{source.where}, episode {index}"
    return str(error) if where in str(error) else f"{where}: {error}"

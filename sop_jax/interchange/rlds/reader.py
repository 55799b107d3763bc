"""An RLDS dataset on the local disk as a source of episodes: TFDS's TFRecord files, read without TensorFlow.

Legend: `T` steps of an episode.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sop_jax.interchange.errors import refuse
from sop_jax.interchange.rlds.example import Values, parse_example
from sop_jax.interchange.rlds.features import StepFeature, read_features, read_shard_lengths
from sop_jax.interchange.rlds.tfrecord import Record, index_records, read_record
from sop_jax.interchange.source import Feature, ForeignEpisode, Kind, Picture

_STEPS = "steps/"
_FIX = "features.json and the records disagree; fetch the dataset again."
_TYPES = {"float": np.float32, "int": np.int64}
_FLAGS = ("is_first", "is_last", "is_terminal")


class RldsSource:
    """Implements `EpisodeSource`. Episodes are numbered in the order of the files' names and of the records in them."""

    def __init__(self, folder: pathlib.Path):
        """Reads features.json and where every record lies. Raises InvalidDatasetError."""
        self.folder = folder
        self._step_features: dict[str, StepFeature] = read_features(folder)
        paths = sorted(folder.glob("*.tfrecord*"))
        self._records: list[Record] = [record for path in paths for record in index_records(path)]
        promised = read_shard_lengths(folder)
        if promised is not None and promised != len(self._records):
            fix = "A file is missing, or more than one version lies here."
            got = f"{len(self._records)} in {len(paths)} files"
            raise refuse(str(folder), "records", expected=f"{promised}, as in dataset_info.json", got=got, fix=fix)
        self._last: tuple[int, Mapping[str, Values]] | None = None

    @property
    def where(self) -> str:
        return str(self.folder)

    @property
    def num_episodes(self) -> int:
        return len(self._records)

    @property
    def control_hz(self) -> float:
        """0: RLDS doesn't tell."""
        return 0.0

    @property
    def features(self) -> Mapping[str, Feature]:
        return {name: step.feature for name, step in self._step_features.items()}

    def read(self, index: int, features: Sequence[str]) -> ForeignEpisode:
        """See `EpisodeSource`."""
        where = f"{self.folder}, episode {index} ({self._records[index].path.name})"
        example = self._example(index, where)
        num = self._count_steps(example, where)
        columns = {name: self._column(example, name, num, where) for name in features}
        return ForeignEpisode(index, where, "", num, columns, self._void_at_end(example, num, where))

    def pictures(self, episode: ForeignEpisode, feature: str, frames: Sequence[int]) -> Iterator[Picture]:
        """See `EpisodeSource`: the encoded files of an image feature."""
        found = self._example(episode.index, episode.where).get(_STEPS + feature)
        if not isinstance(found, list) or len(found) != episode.num_frames:
            got = "none" if found is None else len(found)
            raise refuse(episode.where, feature, expected=f"{episode.num_frames} pictures", got=got, fix=_FIX)
        return iter([found[frame] for frame in frames])

    def _void_at_end(self, example: Mapping[str, Values], num: int, where: str) -> frozenset[str]:
        """All but the observation and the flags, where a flag says that the episode ends there: so the format has it."""
        flags = {
            name: self._column(example, name, num, where).reshape(num, -1)[:, 0].astype(bool)
            for name in ("is_last", "is_terminal")
            if name in self._step_features and self._step_features[name].storage == "int"
        }
        if "is_last" in flags and flags["is_last"][:-1].any():
            got, fix = f"step {int(flags['is_last'].argmax())}", "Split the episode there."
            raise refuse(where, "is_last", expected=f"step {num - 1}, or none", got=got, fix=fix)
        if not any(flag[-1] for flag in flags.values()):
            return frozenset()
        return frozenset(
            name for name in self._step_features if name not in _FLAGS and not name.startswith("observation/")
        )

    def _example(self, index: int, where: str) -> Mapping[str, Values]:
        if self._last is None or self._last[0] != index:
            self._last = index, parse_example(read_record(self._records[index]), where)
        return self._last[1]

    def _count_steps(self, example: Mapping[str, Values], where: str) -> int:
        """By the first feature of which each step must have a value."""
        for name, step in self._step_features.items():
            size = int(np.prod(step.feature.shape)) if step.feature.kind is Kind.NUMBER else 1
            found = example.get(_STEPS + name)
            if step.storage is not None and found is not None and size and len(found):
                return len(found) // size
        raise refuse(where, "steps", expected="one or more", got=sorted(example), fix=_FIX)

    def _column(self, example: Mapping[str, Values], name: str, num: int, where: str) -> np.ndarray:
        step, found = self._step_features[name], example.get(_STEPS + name)
        expected = f"{num} steps of {list(step.feature.shape)} as {step.storage}"
        if step.storage == "bytes" and isinstance(found, list) and len(found) == num:
            try:
                return np.array([text.decode() for text in found], object)
            except UnicodeDecodeError as error:
                raise refuse(where, name, expected="UTF-8 texts", got=str(error), fix=_FIX) from error
        if not isinstance(found, np.ndarray) or found.dtype != _TYPES.get(step.storage or ""):
            got = "none" if found is None else type(found).__name__
            raise refuse(where, name, expected=expected, got=got, fix=_FIX)
        if len(found) != num * int(np.prod(step.feature.shape)):
            raise refuse(where, name, expected=expected, got=f"{len(found)} numbers", fix=_FIX)
        return found.reshape(num, *step.feature.shape)

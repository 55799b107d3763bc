"""A LeRobot dataset on the local disk as a source of episodes.

Legend: `T` frames of an episode.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from sop_jax.interchange.errors import InvalidDatasetError, refuse
from sop_jax.interchange.lerobot.layout import (
    OLD_EPISODES,
    OLD_TASKS,
    TASKS,
    Info,
    locate,
    read_info,
)
from sop_jax.interchange.lerobot.tables import read_json_lines, read_table, to_array
from sop_jax.interchange.source import Feature, ForeignEpisode, Picture
from sop_jax.interchange.video import read_frames

_OFF_GRID = 0.25
"""Frames may lie this far from their place at the dataset's rate [frames]; further, and some were lost."""
_FIX = "The dataset contradicts itself; fetch it again, or leave the episode out."
_CACHED_FILES = 8


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where an episode lies. videos: feature -> (file, seconds at which the episode begins in it)."""

    length: int
    data: pathlib.Path
    videos: Mapping[str, tuple[pathlib.Path, float]]


class LeRobotSource:
    """Implements `EpisodeSource`. `info` is what its info.json says."""

    def __init__(self, root: pathlib.Path):
        """Reads meta/. Raises InvalidDatasetError."""
        self.root = root
        self.info: Info = read_info(root)
        self._tasks = _read_tasks(root, self.info)
        self._entries = _read_entries(root, self.info)
        self._read_table = functools.lru_cache(_CACHED_FILES)(read_table)

    @property
    def where(self) -> str:
        return str(self.root)

    @property
    def num_episodes(self) -> int:
        return len(self._entries)

    @property
    def control_hz(self) -> float:
        return self.info.fps

    @property
    def features(self) -> Mapping[str, Feature]:
        return self.info.features

    def read(self, index: int, features: Sequence[str]) -> ForeignEpisode:
        """See `EpisodeSource`. Also checks that no frame is missing."""
        entry, where = self._entry(index)
        if missing := [name for name in features if name not in self.features]:
            raise refuse(where, "features", expected=missing, got=sorted(self.features), fix=_FIX)
        table = self._rows(entry, index, ("timestamp", "frame_index", "task_index", *features), where)
        frames = to_array(table, "frame_index", (1,), where)
        if not np.array_equal(frames, np.arange(entry.length)):
            raise refuse(
                where, "frame_index", expected=f"0..{entry.length - 1}, as meta/ says", got=frames.tolist(), fix=_FIX
            )
        times = to_array(table, "timestamp", (1,), where)
        off = np.abs(times - times[0] - np.arange(entry.length) / self.info.fps) * self.info.fps
        if not np.all(off < _OFF_GRID):
            frame = int(np.argmax(~(off < _OFF_GRID)))
            expected = f"{times[0] + frame / self.info.fps:.4f} s, at {self.info.fps:g} frames/s"
            raise refuse(where, f"timestamp of frame {frame}", expected=expected, got=float(times[frame]), fix=_FIX)
        columns = {name: to_array(table, name, self.features[name].shape, where) for name in features}
        columns["timestamp"] = times
        return ForeignEpisode(index, where, self._instruction(table, where), entry.length, columns)

    def pictures(self, episode: ForeignEpisode, feature: str, frames: Sequence[int]) -> Iterator[Picture]:
        """See `EpisodeSource`: out of the camera's video, or out of the data files."""
        entry, where = self._entry(episode.index)
        if feature in self.info.videos:
            path, start_s = entry.videos[feature]
            times = [start_s + float(episode.columns["timestamp"][frame]) for frame in frames]
            return read_frames(path, times, _OFF_GRID / self.info.fps, where)
        table = self._rows(entry, episode.index, (feature,), where)
        return _embedded(table, feature, frames, where)

    def _entry(self, index: int) -> tuple[_Entry, str]:
        found = self._entries[index]
        where = f"{self.root}, episode {index}"
        if isinstance(found, InvalidDatasetError):
            raise found
        return found, f"{where} ({found.data.relative_to(self.root)})"

    def _rows(self, entry: _Entry, index: int, columns: Sequence[str], where: str) -> pa.Table:
        table = self._read_table(entry.data, ("episode_index", *columns))
        rows = np.flatnonzero(to_array(table, "episode_index", (1,), where) == index)
        if not len(rows) or len(rows) != entry.length or rows[-1] - rows[0] + 1 != len(rows):
            expected = f"{entry.length} in a row, at least one, as meta/ says"
            raise refuse(where, "frames of the episode", expected=expected, got=len(rows), fix=_FIX)
        return table.slice(int(rows[0]), len(rows))

    def _instruction(self, table: pa.Table, where: str) -> str:
        tasks = np.unique(to_array(table, "task_index", (1,), where)).tolist()
        if len(tasks) != 1 or tasks[0] not in self._tasks:
            expected = "one that meta/ tells, the same on every frame"
            raise refuse(where, "task_index", expected=expected, got=tasks, fix="Split the episode by its tasks.")
        return self._tasks[tasks[0]]


def _embedded(table: pa.Table, feature: str, frames: Sequence[int], where: str) -> Iterator[bytes]:
    column = table.column(feature)
    for frame in frames:
        value = column[frame].as_py()
        encoded = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(encoded, bytes):
            fix = "Pictures in files of their own aren't read; let LeRobot embed them."
            raise refuse(where, f"{feature} at frame {frame}", expected="an embedded picture", got=value, fix=fix)
        yield encoded


def _read_tasks(root: pathlib.Path, info: Info) -> dict[int, str]:
    """task_index -> instruction."""
    if not info.is_v3:
        return _checked(root / OLD_TASKS, lambda: {
            int(line["task_index"]): str(line["task"]) for line in read_json_lines(root / OLD_TASKS)
        })  # fmt: skip
    table = read_table(root / TASKS)
    # The instruction is a pandas index, which may have no name of its own.
    texts = next((name for name in ("task", "__index_level_0__") if name in table.column_names), "task")
    return _checked(root / TASKS, lambda: {
        int(row["task_index"]): str(row[texts]) for row in table.select(["task_index", texts]).to_pylist()
    })  # fmt: skip


def _read_entries(root: pathlib.Path, info: Info) -> list[_Entry | InvalidDatasetError]:
    """Every episode in order. One whose entry can't be right is an error in its place."""
    if info.is_v3:
        paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for name in sorted(info.videos):
            columns += [f"videos/{name}/{what}" for what in ("chunk_index", "file_index", "from_timestamp")]
        rows = [row for path in paths for row in read_table(path, columns).to_pylist()]
    else:
        rows = read_json_lines(root / OLD_EPISODES)
    where = root / "meta"
    by_index = _checked(where, lambda: {int(row["episode_index"]): row for row in rows})
    if len(rows) != info.num_episodes or set(by_index) != set(range(info.num_episodes)):
        expected = f"episodes 0..{info.num_episodes - 1}, as info.json says, each once"
        raise refuse(str(where), "episodes", expected=expected, got=sorted(by_index), fix="A file is missing.")
    return [_entry(root, info, index, by_index[index]) for index in range(info.num_episodes)]


def _entry(root: pathlib.Path, info: Info, index: int, row: Mapping) -> _Entry | InvalidDatasetError:
    try:
        if not info.is_v3:
            values = {"episode_chunk": index // info.chunks_size, "episode_index": index}
            videos = {name: (locate(root, info.video_path, {**values, "video_key": name}), 0.0) for name in info.videos}
            return _Entry(int(row["length"]), locate(root, info.data_path, values), videos)
        videos = {}
        for name in info.videos:
            values = {key: int(row[f"videos/{name}/{key}"]) for key in ("chunk_index", "file_index")}
            path = locate(root, info.video_path, {**values, "video_key": name})
            videos[name] = (path, float(row[f"videos/{name}/from_timestamp"]))
        values = {key: int(row[f"data/{key}"]) for key in ("chunk_index", "file_index")}
        return _Entry(int(row["length"]), locate(root, info.data_path, values), videos)
    except (KeyError, TypeError, ValueError) as error:
        where = f"{root}, episode {index}"
        return refuse(where, "its entry in meta/", expected="numbers", got=repr(error), fix=_FIX)


def _checked(path: pathlib.Path, build):
    try:
        return build()
    except (KeyError, TypeError, ValueError) as error:
        raise refuse(str(path), "entry", expected="numbers and texts", got=repr(error), fix=_FIX) from error

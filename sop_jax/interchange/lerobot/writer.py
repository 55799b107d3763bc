"""Writes a LeRobot dataset, version 3.0, an episode at a time.

Legend: `T` frames of an episode, `h w` pixels.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sop_jax.interchange.lerobot import layout
from sop_jax.interchange.lerobot.statistics import PictureStats, Stats, aggregate, to_plain, vector_stats
from sop_jax.interchange.video import CODEC, PIXELS, VideoConfig, VideoWriter

_MB = 2**20
_OWN_FEATURES = {
    "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64",
}  # fmt: skip
_ARROW = {
    "float32": pa.float32(), "int32": pa.int32(), "int64": pa.int64(), "bool": pa.bool_(), "string": pa.string(),
}  # fmt: skip
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclasses.dataclass(frozen=True)
class ColumnSpec:
    """One feature: dtype as LeRobot names it (float32, bool, string, video, image ...), shape of a frame, names."""

    dtype: str
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] | None = None

    @property
    def is_picture(self) -> bool:
        return self.dtype in ("video", "image")


@dataclasses.dataclass(frozen=True)
class EpisodeData:
    """What is written of one episode.

    columns: feature -> [T, ...]. pictures: camera feature -> T pictures, arrays [h, w, 3] for videos, JPEGs for images; each
    is gone through once. picture_stats: camera feature -> statistics, complete once the pictures were gone through.
    """

    instruction: str
    columns: Mapping[str, np.ndarray]
    pictures: Mapping[str, Iterable[Any]]
    picture_stats: Mapping[str, PictureStats]


class LeRobotWriter:
    """Writes below `root`, which must be empty.

    writer = LeRobotWriter(root, fps=30, robot_type="g1", features=..., marks={})
    writer.add(episode)
    writer.close()                    # only now is it a dataset
    """

    def __init__(
        self,
        root: pathlib.Path,
        *,
        fps: int,
        robot_type: str,
        features: Mapping[str, ColumnSpec],
        marks: Mapping[str, Any],
        video: VideoConfig | None = None,
    ):
        """`marks` go into info.json under "sop"; LeRobot leaves them alone."""
        self._root = root
        self._fps = fps
        self._robot_type = robot_type
        self._features = dict(features)
        self._marks = marks
        self._schema = _schema(features)
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._stats: list[dict[str, Stats]] = []
        self._num_frames = 0
        self._data = _DataFiles(root, self._schema)
        self._videos = {
            name: _VideoFiles(root, name, fps, (spec.shape[0], spec.shape[1]), video)
            for name, spec in features.items()
            if spec.dtype == "video"
        }

    def add(self, episode: EpisodeData) -> None:
        """Appends one episode."""
        index, num = len(self._rows), len(next(iter(episode.columns.values())))
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        own = {
            "timestamp": (np.arange(num) / self._fps).astype(np.float32),
            "frame_index": np.arange(num),
            "episode_index": np.full(num, index),
            "index": self._num_frames + np.arange(num),
            "task_index": np.full(num, task),
        }
        columns = {**episode.columns, **own}
        row: dict[str, Any] = {"episode_index": index, "tasks": [episode.instruction], "length": num}
        row |= self._data.add(self._table(columns, episode.pictures))
        row |= {"dataset_from_index": self._num_frames, "dataset_to_index": self._num_frames + num}
        for name, files in self._videos.items():
            row |= files.add(episode.pictures[name])
        stats = {name: vector_stats(values) for name, values in columns.items() if values.dtype != object}
        stats |= {name: found.stats() for name, found in episode.picture_stats.items()}
        self._rows.append(row)
        self._stats.append(stats)
        self._num_frames += num

    def close(self) -> None:
        """Closes the files and writes meta/."""
        self._data.close()
        for files in self._videos.values():
            files.close()
        rows = []
        for row, stats in zip(self._rows, self._stats, strict=True):
            told = {f"stats/{feature}/{name}": v for feature, s in to_plain(stats).items() for name, v in s.items()}
            rows.append(row | told | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        path = layout.locate(self._root, layout.EPISODES_PATH, {"chunk_index": 0, "file_index": 0})
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        pq.write_table(_tasks_table(list(self._tasks)), self._root / layout.TASKS)
        names = self._stats[0] if self._stats else {}
        together = {name: aggregate([stats[name] for stats in self._stats]) for name in names}
        _write_json(self._root / layout.STATS, to_plain(together))
        _write_json(self._root / layout.INFO, self._info())

    def _table(self, columns: Mapping[str, np.ndarray], pictures: Mapping[str, Iterable[bytes]]) -> pa.Table:
        arrays = []
        for field in self._schema:
            if field.type == _PICTURE:
                values = pa.array([{"bytes": jpeg, "path": None} for jpeg in pictures[field.name]], _PICTURE)
            elif pa.types.is_fixed_size_list(field.type):
                flat = pa.array(columns[field.name].ravel(), field.type.value_type)
                values = pa.FixedSizeListArray.from_arrays(flat, field.type.list_size)
            else:
                values = pa.array(columns[field.name].ravel(), field.type)
            arrays.append(values)
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _info(self) -> dict[str, Any]:
        num = len(self._rows)
        return {
            "codebase_version": layout.VERSION,
            "robot_type": self._robot_type,
            "total_episodes": num,
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNKS_SIZE,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{num}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH if self._videos else None,
            "features": {name: self._feature(spec) for name, spec in self._features.items()}
            | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _OWN_FEATURES.items()},
            "sop": dict(self._marks),
        }

    def _feature(self, spec: ColumnSpec) -> dict[str, Any]:
        names = list(spec.names) if spec.names is not None else None
        entry: dict[str, Any] = {"dtype": spec.dtype, "shape": list(spec.shape), "names": names}
        if spec.is_picture:
            entry["names"] = ["height", "width", "channels"]
        if spec.dtype == "video":
            entry["info"] = {
                "video.height": spec.shape[0], "video.width": spec.shape[1], "video.codec": CODEC,
                "video.pix_fmt": PIXELS, "video.is_depth_map": False, "video.fps": self._fps, "video.channels": 3,
                "has_audio": False,
            }  # fmt: skip
        return entry


class _DataFiles:
    """The Parquet files: an episode is a row group, a file is closed once it is large."""

    def __init__(self, root: pathlib.Path, schema: pa.Schema):
        self._root = root
        self._schema = schema
        self._number = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> dict[str, Any]:
        place = _place(self._number)
        path = layout.locate(self._root, layout.DATA_PATH, place)
        if self._writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy")
        self._writer.write_table(table)
        if path.stat().st_size >= layout.DATA_FILE_MB * _MB:
            self.close()
            self._number += 1
        return {f"data/{name}": value for name, value in place.items()}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _VideoFiles:
    """One camera's files: episodes follow one another in a file until it is large."""

    def __init__(
        self, root: pathlib.Path, name: str, fps: int, size: tuple[int, int], config: VideoConfig | None = None
    ):
        self._root = root
        self._name = name
        self._fps = fps
        self._size = size
        self._config = config
        self._number = 0
        self._writer: VideoWriter | None = None

    def add(self, images: Iterable[np.ndarray]) -> dict[str, Any]:
        place = _place(self._number)
        if self._writer is None:
            path = layout.locate(self._root, layout.VIDEO_PATH, {**place, "video_key": self._name})
            self._writer = VideoWriter(path, self._fps, self._size, self._config)
        start = self._writer.num_frames
        for image in images:
            self._writer.add(image)
        end = self._writer.num_frames
        if self._writer.num_bytes >= layout.VIDEO_FILE_MB * _MB:
            self.close()
            self._number += 1
        times = {"from_timestamp": start / self._fps, "to_timestamp": end / self._fps}
        return {f"videos/{self._name}/{name}": value for name, value in {**place, **times}.items()}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // layout.CHUNKS_SIZE, "file_index": number % layout.CHUNKS_SIZE}


def _schema(features: Mapping[str, ColumnSpec]) -> pa.Schema:
    fields = []
    for name, spec in features.items():
        if spec.dtype == "video":
            continue
        if spec.dtype == "image":
            fields.append(pa.field(name, _PICTURE))
        else:
            scalar = _ARROW[spec.dtype]
            fields.append(pa.field(name, scalar if spec.shape == (1,) else pa.list_(scalar, spec.shape[0])))
    return pa.schema([*fields, *(pa.field(name, _ARROW[dtype]) for name, dtype in _OWN_FEATURES.items())])


def _tasks_table(instructions: list[str]) -> pa.Table:
    """A pandas table whose index is the instruction: that is what LeRobot looks tasks up in."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]  # fmt: skip
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table(
        {"task_index": pa.array(range(len(instructions)), pa.int64()), "task": pa.array(instructions, pa.string())}
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_json(path: pathlib.Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")

"""LeRobot's folders and its meta/info.json, versions 2.0, 2.1 and 3.0.

meta/info.json, stats.json                    both
meta/tasks.parquet, episodes/chunk-000/file-000.parquet        3.0: many episodes a file, everywhere
data/chunk-000/file-000.parquet, videos/<feature>/chunk-000/file-000.mp4
meta/tasks.jsonl, episodes.jsonl                               2.x: one file an episode
data/chunk-000/episode_000000.parquet, videos/chunk-000/<feature>/episode_000000.mp4
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from sop_jax.interchange.errors import refuse
from sop_jax.interchange.source import Feature, Kind

VERSION = "v3.0"
CHUNKS_SIZE = 1000
"""Files in a chunk's folder."""
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
OLD_TASKS, OLD_EPISODES = "meta/tasks.jsonl", "meta/episodes.jsonl"
OWN_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""What every dataset has beside its own features."""
_NUMBERS = re.compile(r"bool|u?int\d+|float\d+")
_FIX = "Is this the dataset's folder, the one that holds meta/?"


@dataclasses.dataclass(frozen=True)
class Info:
    """What meta/info.json says."""

    version: str
    robot_type: str
    fps: float
    num_episodes: int
    chunks_size: int
    data_path: str
    video_path: str
    features: Mapping[str, Feature]
    videos: frozenset[str]

    @property
    def is_v3(self) -> bool:
        return self.version.startswith("v3.")


def read_info(root: pathlib.Path) -> Info:
    """Raises InvalidDatasetError if there is none, or if it is of a version that isn't known here."""
    path = root / INFO
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        features = {name: _feature(entry) for name, entry in raw["features"].items() if name not in OWN_COLUMNS}
        info = Info(
            version=str(raw["codebase_version"]),
            robot_type=str(raw.get("robot_type") or ""),
            fps=float(raw["fps"]),
            num_episodes=int(raw["total_episodes"]),
            chunks_size=int(raw.get("chunks_size", CHUNKS_SIZE)),
            data_path=str(raw["data_path"]),
            video_path=str(raw.get("video_path") or ""),
            features=features,
            videos=frozenset(name for name, entry in raw["features"].items() if entry["dtype"] == "video"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise refuse(str(path), "info.json", expected="a LeRobot dataset's", got=reason, fix=_FIX) from error
    if not re.fullmatch(r"v(2\.[01]|3\.\d+)", info.version):
        fix = "Convert it with LeRobot's own scripts first."
        raise refuse(str(path), "codebase_version", expected="v2.0, v2.1 or v3", got=info.version, fix=fix)
    if not (0 < info.fps <= 2000 and info.num_episodes >= 0 and info.chunks_size > 0):
        got = (info.fps, info.num_episodes, info.chunks_size)
        raise refuse(str(path), "fps, total_episodes, chunks_size", expected="positive numbers", got=got, fix=_FIX)
    return info


def locate(root: pathlib.Path, template: str, values: Mapping[str, object]) -> pathlib.Path:
    """A file by the dataset's own path template. Raises InvalidDatasetError if that leads out of the dataset."""

    def fill(match: re.Match[str]) -> str:
        value = values.get(match["name"], match[0])
        return f"{value:0{match['width']}d}" if match["width"] and isinstance(value, int) else str(value)

    name = re.sub(r"\{(?P<name>\w+)(?::0?(?P<width>\d{1,2})d)?\}", fill, template)
    parts = pathlib.PurePosixPath(name).parts
    if not parts or "{" in name or pathlib.PurePosixPath(name).is_absolute() or ".." in parts:
        expected = f"a path within the dataset, of {sorted(values)}"
        raise refuse(str(root / INFO), "path template", expected=expected, got=template, fix="Use LeRobot's own.")
    return root / name


def _feature(entry: Mapping[str, Any]) -> Feature:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    if dtype in ("video", "image"):
        names = [str(name) for name in entry.get("names") or ()]
        if len(shape) == 3 and (names[:1] == ["channels"] or names[:1] == ["channel"]):
            shape = (*shape[1:], shape[0])
        return Feature(Kind.PICTURE, shape)
    kind = Kind.TEXT if dtype == "string" else Kind.NUMBER if _NUMBERS.fullmatch(dtype) else Kind.OTHER
    return Feature(kind, shape, _names(entry.get("names")))


def _names(names: object) -> tuple[str, ...]:
    """A list of names, or a table of such lists ({"motors": [...]})."""
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()

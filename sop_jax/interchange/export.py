"""Episodes of a store as a LeRobot dataset.

A store keeps pictures of every so many frames only. The dataset holds either all frames, each with the last picture taken
("all": nothing is lost; a column tells each picture's age), or only the frames that have pictures, at their rate
("pictured": no picture is shown twice, and the actions between are left out).
Legend: `T` frames, `K` frames with pictures, `h w` pixels.
"""

import dataclasses
import pathlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from sop_jax.episodes.format import unpack
from sop_jax.episodes.images import decode_images, encode_image
from sop_jax.episodes.retirement import retired_paths
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.verify import verify_bytes
from sop_jax.interchange import labels
from sop_jax.interchange.errors import InvalidDatasetError, refuse
from sop_jax.interchange.lerobot.statistics import PictureStats
from sop_jax.interchange.lerobot.writer import ColumnSpec, EpisodeData, LeRobotWriter
from sop_jax.interchange.thinning import thin
from sop_jax.interchange.video import VideoConfig
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError
from sop_jax.specs.records import CameraSpec, Episode, EpisodeManifest, Outcome, Source

Frames = Literal["all", "pictured"]
Pictures = Literal["video", "jpeg"]

MARKS_VERSION = 1
_ALL = "Every control tick. Pictures were taken at some only: each frame shows the last one, picture_age frames old."
_PICTURED = "Only the control ticks at which pictures were taken; the actions between them are left out."


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which episodes; () = any."""

    tasks: tuple[str, ...] = ()
    robots: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def takes(self, manifest: EpisodeManifest) -> bool:
        wanted = (
            (self.tasks, manifest.task),
            (self.robots, manifest.robot_id),
            (self.sources, manifest.source),
            (self.outcomes, manifest.outcome),
        )
        return all(not any_of or value in any_of for any_of, value in wanted)


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How the dataset is written.

    frames: see the module. pictures: "video" (H.264; what LeRobot's tools expect), or "jpeg": the store's own JPEGs inside
    the data files, bit for bit. robot_type: for info.json.
    """

    frames: Frames = "all"
    pictures: Pictures = "video"
    robot_type: str = ""
    video: VideoConfig = dataclasses.field(default_factory=VideoConfig)


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was exported. left_out: path -> why, of episodes that were selected and could not be exported."""

    num_episodes: int
    num_frames: int
    fps: int
    left_out: dict[str, str]


def export_lerobot(
    store: EpisodeStore,
    output: pathlib.Path,
    selection: Selection | None = None,
    config: ExportConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Writes the selected episodes as a dataset at `output`, which must not exist; it appears whole or not at all.

    Set-aside, retired and damaged episodes are left out. Raises InvalidDatasetError if nothing is left, or if the episodes
    don't fit in one dataset (different robots).
    """
    config = config or ExportConfig()
    chosen, left_out = _choose(store, selection or Selection())
    if not chosen:
        reasons = f" Left out: {left_out}." if left_out else ""
        raise refuse(store.url, "episodes", expected="one or more", got=0, fix=f"Select others.{reasons}")
    _check_alike(store, chosen, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        report = _write(store, sorted(chosen), partial, config, left_out, progress)
        partial.chmod(0o755)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def _choose(store: EpisodeStore, selection: Selection) -> tuple[dict[str, EpisodeManifest], dict[str, str]]:
    passed_over = set(store.quarantined_paths()) | set(retired_paths(store))
    chosen, left_out = {}, {}
    for summary in store.summaries():
        if summary.path in passed_over:
            continue
        if summary.manifest is None:
            left_out[summary.path] = summary.problem
        elif selection.takes(summary.manifest):
            chosen[summary.path] = summary.manifest
    return chosen, left_out


def _check_alike(store: EpisodeStore, chosen: dict[str, EpisodeManifest], config: ExportConfig) -> None:
    """A LeRobot dataset has one rate, one set of dimensions, one set of cameras."""
    kinds = Counter((m.control_hz, m.action_names, m.cameras) for m in chosen.values())
    if len(kinds) > 1:
        robots = sorted({manifest.robot_id for manifest in chosen.values()})
        told = [f"{num} episodes of {kind}" for kind, num in kinds.items()]
        fix = f"Select robots of one kind among {robots} and export the others apart."
        raise refuse(store.url, "robots", expected="one rate, dimensions and cameras", got=told, fix=fix)
    ((_, _, cameras),) = kinds
    odd = [camera.name for camera in cameras if camera.height % 2 or camera.width % 2]
    if odd and config.pictures == "video":
        raise refuse(store.url, f"size of {odd}", expected="even numbers of pixels", got=cameras, fix="Export as jpeg.")


def _write(
    store: EpisodeStore,
    paths: Sequence[str],
    root: pathlib.Path,
    config: ExportConfig,
    left_out: dict[str, str],
    progress: Callable[[int, int], None],
) -> ExportReport:
    writer, first, num_episodes, num_frames = None, None, 0, 0
    for done, path in enumerate(paths):
        progress(done, len(paths))
        try:
            episode = _load(store, path, config)
        except (InvalidEpisodeError, InvalidDatasetError, EpisodeNotFoundError) as error:
            left_out[path] = str(error)
            continue
        if writer is None or first is None:
            first = episode.manifest
            writer = LeRobotWriter(
                root,
                fps=_whole(first.control_hz, path),
                robot_type=config.robot_type,
                features=_features(first, config),
                marks=_marks(config),
                video=config.video,
            )
        if episode.manifest.control_hz != first.control_hz:
            fix = "Export episodes of one stride only, or all frames."
            got = episode.manifest.control_hz
            raise refuse(path, "pictures per second", expected=first.control_hz, got=got, fix=fix)
        writer.add(_data(episode, config))
        num_episodes += 1
        num_frames += episode.manifest.num_frames
    if writer is None or first is None:
        fix = f"Left out: {left_out}."
        raise refuse(store.url, "episodes", expected="one that can be exported", got=0, fix=fix)
    writer.close()
    return ExportReport(num_episodes, num_frames, _whole(first.control_hz, ""), left_out)


def _load(store: EpisodeStore, path: str, config: ExportConfig) -> Episode:
    """Whole, checked down to the pixels, thinned if asked for."""
    data = store.read_bytes(path)
    verify_bytes(data, path, decode_all_images=True)
    episode = unpack(data, path)
    if not episode.jpegs:
        raise refuse(path, "pictures", expected="one or more", got=0, fix="The robot recorded no images.")
    return thin(episode) if config.frames == "pictured" else episode


def _whole(hz: float, path: str) -> int:
    if hz != round(hz):
        fix = "LeRobot's rates are whole numbers; export all frames."
        raise refuse(path, "frames per second", expected="a whole number", got=hz, fix=fix)
    return round(hz)


def _features(manifest: EpisodeManifest, config: ExportConfig) -> dict[str, ColumnSpec]:
    dims = ColumnSpec("float32", (len(manifest.action_names),), manifest.action_names)
    dtype = "video" if config.pictures == "video" else "image"
    cameras = {
        labels.PICTURES + camera.name: ColumnSpec(dtype, (camera.height, camera.width, 3))
        for camera in manifest.cameras
    }
    extras = {name: ColumnSpec(kind) for name, kind in labels.DTYPES.items()}
    return {labels.STATE: dims, labels.ACTION: dims, **cameras, **extras}


def _marks(config: ExportConfig) -> dict[str, object]:
    note = _ALL if config.frames == "all" else _PICTURED
    return {"version": MARKS_VERSION, "frames": config.frames, "pictures": config.pictures, "note": note}


def _data(episode: Episode, config: ExportConfig) -> EpisodeData:
    columns = {labels.STATE: episode.arrays.state, labels.ACTION: episode.arrays.action}
    columns |= labels.to_columns(episode)
    ages = labels.picture_ages(episode.arrays)
    stats, pictures = {}, {}
    for number, camera in enumerate(episode.manifest.cameras):
        name = labels.PICTURES + camera.name
        stats[name] = PictureStats()
        jpegs = [frame[number] for frame in episode.jpegs]
        pictures[name] = _hold(jpegs, camera, ages, stats[name], config.pictures)
    return EpisodeData(episode.manifest.instruction, columns, pictures, stats)


def _hold(
    jpegs: Sequence[bytes], camera: CameraSpec, ages: np.ndarray, stats: PictureStats, form: Pictures
) -> Iterator[np.ndarray | bytes]:
    """T pictures: each of the K until the next one; black before the first. Counts each of the K in `stats`."""
    remaining = iter(jpegs)
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    jpeg = encode_image(image)
    for age in ages:
        if age == 0:
            jpeg = next(remaining)
            image = decode_images([jpeg], [camera])[camera.name]
            stats.add(image)
        yield image if form == "video" else jpeg

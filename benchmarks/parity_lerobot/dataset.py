"""Our LeRobot datasets under the real LeRobot, and its own under our importer, frame by frame.

    launch/setup.sh parity                                 # once: LeRobot's own environment, about 7 GB
    python -m benchmarks.parity_lerobot.dataset --json

Every kind of export is loaded with LeRobotDataset (with windows of time, and its video decoder) and compared with the
episodes; what LeRobot's tool leaves when it deletes the first is imported again, and so is a dataset that LeRobot wrote.
Numbers, labels and texts must be equal, pictures within the bounds below, or the exit code is 1.
ours = the frames that agree, peer = the frames there are, ratio = ours / peer (1 = passed).
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from benchmarks.parity_lerobot.__main__ import find_lerobot_python
from sop_jax.episodes.images import decode_images
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.interchange import labels
from sop_jax.interchange.export import ExportConfig, Frames, Pictures, export_lerobot
from sop_jax.interchange.importing import import_episodes
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.mapping import derive_mapping
from sop_jax.interchange.thinning import thin
from sop_jax.interchange.translate import ExportTranslator, MappedTranslator
from sop_jax.specs.clock import WallClock
from sop_jax.specs.records import NO_POLICY, Episode, Outcome, Source

FOLDER = pathlib.Path(__file__).parent
ACTION_WINDOW, STATE_WINDOW = (0, 1, 4), (-2, 0)
"""Frames from the present one, as in dataset_side.py."""
MEAN_ERROR = {"video": 6.0, "jpeg": 0.0}
"""Grey levels, per frame and camera: H.264 with halved colours, on grainy pictures; JPEGs decode to the same pixels."""
EDITED_MEAN_ERROR = {"video": 8.0, "jpeg": 0.0}
"""Grey levels, worst frame: the tool encodes a video anew (AV1 at crf 30), and the import writes JPEGs."""
WRITTEN_MEAN_ERROR = 6.0
"""Grey levels between what LeRobot was given and what we import: its AV1 at crf 30, then our JPEG."""

Columns = dict[str, np.ndarray]


def make_store(folder: pathlib.Path) -> EpisodeStore:
    """Three fake episodes: one with a takeover, one that failed, one demonstration with another instruction."""
    store = EpisodeStore(f"file://{folder}/")
    store.put(make_episode(1, 31, takeovers=((6, 9, 15),)))
    store.put(make_episode(2, 30, outcome=Outcome.FAILURE))
    demonstration = {"source": Source.OFFLINE, "policy_version": NO_POLICY, "robot_id": "collector-0"}
    store.put(make_episode(3, 19, instruction="put the bowl away", **demonstration))
    return store


def run_lerobot(python: pathlib.Path, words: Sequence[str]) -> None:
    """Raises RuntimeError if its process fails, with the end of what it said."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as home:
        command = [str(python), str(FOLDER / "dataset_side.py"), *words]
        environment["HF_HOME"] = home
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise RuntimeError(f"LeRobot's side failed (exit {result.returncode}):\n{result.stderr[-3000:]}")


def load(path: pathlib.Path) -> Columns:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def compare_export(episodes: list[Episode], theirs: Columns, pictures: Pictures) -> dict[str, Any]:
    """Frames in which all of numbers, windows, labels, texts and pictures agree; and how far pictures are off."""
    good, errors, largest, start = 0, [], 0, 0
    for episode in episodes:
        num = episode.manifest.num_frames
        rows = {name: values[start : start + num] for name, values in theirs.items() if len(values) == _total(episodes)}
        start += num
        fits = np.ones(num, bool)
        for name, values in {**labels.to_columns(episode), **windows(episode)}.items():
            equal = np.asarray(rows[name]).astype(values.dtype) == values
            fits &= equal.reshape(num, -1).all(axis=1)
        fits &= rows["task"] == episode.manifest.instruction
        for name, images in held_pictures(episode).items():
            off = np.abs(rows[name].astype(int) - images)
            mean = off.mean(axis=(1, 2, 3))
            fits &= mean <= MEAN_ERROR[pictures]
            errors.append(mean)
            largest = max(largest, int(off.max()))
        good += int(fits.sum())
    return {
        "frames_equal": good,
        "frames": _total(episodes),
        "picture_error_mean": round(float(np.concatenate(errors).mean()), 3),
        "picture_error_worst_frame": round(float(np.concatenate(errors).max()), 3),
        "picture_error_largest": largest,
        "stats_error": compare_stats(theirs),
    }


def windows(episode: Episode) -> Columns:
    """What LeRobot's delta timestamps give: clipped to the episode, and flagged where clipped."""
    num, found = episode.manifest.num_frames, {}
    for name, values, window in (
        ("action", episode.arrays.action, ACTION_WINDOW),
        ("observation.state", episode.arrays.state, STATE_WINDOW),
    ):
        frames = np.arange(num)[:, None] + np.array(window)[None]
        found[name] = values[frames.clip(0, num - 1)]
        found[f"{name}_is_pad"] = (frames < 0) | (frames >= num)
    return found


def held_pictures(episode: Episode) -> Columns:
    """Camera feature -> int [T, height, width, 3]: the store's pictures, each until the next."""
    taken = [decode_images(jpegs, episode.manifest.cameras) for jpegs in episode.jpegs]
    newest = np.searchsorted(episode.arrays.image_frames, np.arange(episode.manifest.num_frames), side="right") - 1
    return {
        labels.PICTURES + camera.name: np.stack([taken[index][camera.name] for index in newest]).astype(int)
        for camera in episode.manifest.cameras
    }


def compare_stats(theirs: Columns) -> dict[str, float]:
    """Largest difference between our statistics of the actions and those that LeRobot computes."""
    return {
        what: float(np.abs(theirs[f"stats/action/{what}"] - theirs[f"lerobot_stats/action/{what}"]).max())
        for what in ("min", "max", "mean", "std", "q01", "q50", "q99")
    }


def compare_import(root: pathlib.Path, truth: Columns, folder: pathlib.Path) -> dict[str, Any]:
    """Imports what LeRobot wrote; counts frames whose numbers are equal and whose pictures, where kept, are near."""
    source, store = LeRobotSource(root), EpisodeStore(f"file://{folder}/")
    translator = MappedTranslator(derive_mapping(source, image_stride=1), "fold_box", "lerobot", WallClock())
    report = import_episodes(source, translator, store)
    again = import_episodes(source, translator, store)
    good, errors, start = 0, [], 0
    for episode_id in report.imported:
        episode = store.read(f"episodes/lerobot/{episode_id}.zip")
        rows = slice(start, start := start + episode.manifest.num_frames)
        fits = (episode.arrays.state == truth["state"][rows]).all(axis=1)
        fits &= (episode.arrays.action == truth["action"][rows]).all(axis=1)
        for camera in ("front", "wrist"):
            images = held_pictures(episode)[labels.PICTURES + camera]
            mean = np.abs(images - truth[camera][rows].astype(int)).mean(axis=(1, 2, 3))
            fits &= mean <= WRITTEN_MEAN_ERROR
            errors.append(mean)
        good += int(fits.sum())
    return {
        "frames_equal": good,
        "frames": len(truth["state"]),
        "picture_error_mean": round(float(np.concatenate(errors).mean()), 3),
        "picture_error_worst_frame": round(float(np.concatenate(errors).max()), 3),
        "refused": [refusal.reason for refusal in report.refused],
        "imported_again": len(again.imported),
    }


def compare_edited(
    root: pathlib.Path, episodes: list[Episode], pictures: Pictures, folder: pathlib.Path
) -> dict[str, Any]:
    """Imports what LeRobot's tool left of an export: all episodes but the first, equal but for a video's pixels."""
    source, store = LeRobotSource(root), EpisodeStore(f"file://{folder}/")
    report = import_episodes(source, ExportTranslator(), store)
    good = 0
    for original in episodes[1:]:
        if original.manifest.episode_id not in report.imported:
            continue
        found = store.read(episode_path(original.manifest.episode_id))
        equal = found.manifest == original.manifest
        equal &= pictures == "video" or found.jpegs == original.jpegs
        for field in dataclasses.fields(found.arrays):
            equal &= np.array_equal(getattr(found.arrays, field.name), getattr(original.arrays, field.name))
        for name, images in held_pictures(found).items():
            error = np.abs(images - held_pictures(original)[name]).mean(axis=(1, 2, 3)).max()
            equal &= bool(error <= EDITED_MEAN_ERROR[pictures])
        good += found.manifest.num_frames if equal else 0
    return {
        "frames_equal": good,
        "frames": _total(episodes[1:]),
        "refused": [refusal.reason for refusal in report.refused],
    }


def measure(python: pathlib.Path, backend: str) -> dict[str, dict[str, Any]]:
    """Case -> what came of it."""
    found: dict[str, dict[str, Any]] = {}
    exports: dict[pathlib.Path, tuple[Frames, Pictures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        store = make_store(folder / "store")
        for frames in get_args(Frames):
            for pictures in get_args(Pictures):
                root = folder / f"{frames}-{pictures}"
                export_lerobot(store, root, config=ExportConfig(frames, pictures, "synthetic"))
                exports[root] = frames, pictures
        run_lerobot(python, [backend, str(folder / "theirs"), *map(str, exports)])
        whole = [store.read(path) for path in store.list_paths()]
        for root, (frames, pictures) in exports.items():
            episodes = [thin(episode) for episode in whole] if frames == "pictured" else whole
            case, edited = f"{frames}, {pictures}", root.with_name(root.name + "-edited")
            found[f"export {case}"] = compare_export(episodes, load(root / "read.npz"), pictures)
            back = root.with_name(root.name + "-back")
            found[f"edited by LeRobot {case}"] = compare_edited(edited, episodes, pictures, back)
        truth = load(folder / "theirs" / "truth.npz")
        found["import of LeRobot's own"] = compare_import(folder / "theirs", truth, folder / "imported")
    return found


def write_golden(path: pathlib.Path, python: pathlib.Path) -> None:
    """Keeps the dataset that LeRobot wrote, without the truth, as a zip for the test suite."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name) / "theirs"
        run_lerobot(python, ["pyav", str(root)])
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(root.rglob("*")):
                if file.is_file() and file.name != "truth.npz":
                    archive.write(file, str(file.relative_to(root)))


def _total(episodes: list[Episode]) -> int:
    return sum(episode.manifest.num_frames for episode in episodes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--python", type=pathlib.Path, help="Python of another environment that has lerobot==0.5.1")
    parser.add_argument("--write-golden", type=pathlib.Path, metavar="FILE", help="remake the test suite's golden file")
    parser.add_argument("--backend", default="pyav", help="LeRobot's video decoder: pyav, or torchcodec (needs FFmpeg)")
    arguments = parser.parse_args()
    python = find_lerobot_python(arguments.python)
    if arguments.write_golden:
        write_golden(arguments.write_golden, python)
        return 0
    cases = measure(python, arguments.backend)
    ours, peer = (sum(case[name] for case in cases.values()) for name in ("frames_equal", "frames"))
    again = cases["import of LeRobot's own"]["imported_again"]
    result = {
        "name": "parity_lerobot.dataset",
        "ours": ours,
        "peer": peer,
        "ratio": round(ours / peer, 4),
        "units": "frames that agree with LeRobot's reading and writing (peer: all frames)",
        "passed": ours == peer and again == 0,
        "backend": arguments.backend,
        "cases": cases,
    }
    print(json.dumps(result))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Datasets of other projects in LeRobot's format: what is taken in, and what is refused by name."""

import dataclasses
import json

import numpy as np
import pytest
from foreign import NOW, PLAIN, edit_column, edit_info, numbers, picture, to_v21, write_lerobot

from sop_jax.episodes.images import decode_images, encode_image
from sop_jax.episodes.retirement import RetirementRecord, retire
from sop_jax.episodes.store import EpisodeStore
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.importing import ImportReport, import_episodes
from sop_jax.interchange.lerobot import layout
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.lerobot.writer import ColumnSpec
from sop_jax.interchange.mapping import Camera, check_mapping, derive_mapping
from sop_jax.interchange.pictures import to_jpeg
from sop_jax.interchange.translate import MappedTranslator
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.robots.g1.images import fit_image
from sop_jax.specs.records import NO_POLICY, CameraSpec, Episode, Outcome, Source

DATA = "data/chunk-000/file-000.parquet"


def three(features=PLAIN) -> list[tuple[str, dict[str, np.ndarray]]]:
    texts = ("open the lid", "close the lid", "open the lid")
    return [(text, numbers(features, seed, 5 + seed)) for seed, text in enumerate(texts)]


def translator(source: LeRobotSource, **changes) -> MappedTranslator:
    mapping = dataclasses.replace(derive_mapping(source), **changes)
    check_mapping(mapping, source)
    return MappedTranslator(mapping, "lids", "others", NOW, "test")


def take_in(root, store: EpisodeStore, **changes) -> ImportReport:
    source = LeRobotSource(root)
    return import_episodes(source, translator(source, **changes), store)


def read_all(store: EpisodeStore) -> list[Episode]:
    """In the dataset's order: the number is the last part of an id."""
    return [store.read(path) for path in sorted(store.list_paths(), key=lambda path: path.split(".")[-2])]


@pytest.fixture
def store(store_url) -> EpisodeStore:
    return EpisodeStore(store_url)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_demonstrations_come_in(tmp_path, store, monkeypatch, version):
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0 if version == "v2.1" else 200)
    episodes = three()
    root = write_lerobot(tmp_path / "dataset", episodes)
    report = take_in(to_v21(root) if version == "v2.1" else root, store)
    assert (len(report.imported), report.refused, report.num_frames) == (3, (), 5 + 6 + 7)
    for seed, (found, (text, columns)) in enumerate(zip(read_all(store), episodes, strict=True)):
        manifest = found.manifest
        assert (manifest.task, manifest.instruction, manifest.robot_id) == ("lids", text, "others")
        assert (manifest.source, manifest.policy_version) == (Source.OFFLINE, NO_POLICY)
        assert (manifest.outcome, manifest.control_hz) == (Outcome.SUCCESS, 30.0)
        assert manifest.action_names == ("shoulder", "elbow", "gripper")
        assert manifest.cameras == (CameraSpec("front", 16, 24), CameraSpec("wrist", 16, 24))
        np.testing.assert_array_equal(found.arrays.state, columns["observation.state"])
        np.testing.assert_array_equal(found.arrays.action, columns["action"])
        assert found.arrays.intervention.all()
        assert found.arrays.image_frames.tolist() == list(range(0, 5 + seed, 3))
        assert np.diff(found.arrays.time_ns).tolist() == pytest.approx([1e9 / 30] * (4 + seed), abs=1)
        for frame, jpegs in zip(found.arrays.image_frames, found.jpegs, strict=True):
            for image in decode_images(jpegs, manifest.cameras).values():
                assert np.abs(image.astype(int) - picture(seed, int(frame))).max() <= 3


def test_ids_follow_from_the_data(tmp_path, store, monkeypatch):
    """Not from where it lies, the layout, or what was added behind; a corrected mapping is another import."""
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0)
    episodes = three()
    root = write_lerobot(tmp_path / "dataset", episodes[:2])
    first = take_in(root, store)
    grown = write_lerobot(tmp_path / "elsewhere", episodes)
    again = take_in(to_v21(grown), store)
    assert again.present == first.imported
    assert len(again.imported) == 1
    assert take_in(root, store, image_stride=1).present == ()


def test_the_offline_table_is_fed(tmp_path, store):
    report = take_in(write_lerobot(tmp_path / "dataset", three()), store)
    tables = LocalTables(mix_tables(["lids"], MixConfig()), seed=0)
    intake = Intake(store, tables, label_all, IntakeConfig(segment_length=2, num_readers=2), clock=NOW)
    assert intake.poll().inserted == len(report.imported) == 3
    assert tables.info()["lids/offline"].size == 1 + 1 + 2  # 2, 2 and 3 pictures, two an item
    assert tables.info()["lids/online"].size == 0


def test_pictures_are_scaled(tmp_path, store):
    cameras = (Camera("observation.images.wrist", "hand", 8, 8), Camera("observation.images.front", "head", 32, 32))
    take_in(write_lerobot(tmp_path / "dataset", three()), store, cameras=cameras)
    (found, *_) = read_all(store)
    assert found.manifest.cameras == (CameraSpec("hand", 8, 8), CameraSpec("head", 32, 32))
    images = decode_images(found.jpegs[1], found.manifest.cameras)
    assert np.abs(images["hand"].astype(int) - 41).max() <= 3  # frame 3 of episode 0: 20 + 7 * 3


@pytest.mark.parametrize("as_jpeg", [True, False])
def test_pictures_of_other_proportions_are_cropped_and_not_stretched(as_jpeg):
    """A square stays one, as large as the robot's own camera shows it."""
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[190:290, 270:370] = 255
    frame[:, :80] = frame[:, 560:] = (255, 0, 0)  # beyond the square part in the middle
    jpeg = to_jpeg(encode_image(frame, 100) if as_jpeg else frame, CameraSpec("head", 224, 224), "")
    image = decode_images([jpeg], [CameraSpec("head", 224, 224)])["head"].astype(int)
    bright = image.min(axis=2) > 127
    assert (bright.any(axis=1).sum(), bright.any(axis=0).sum()) == (46, 46)
    assert not (image[..., 0] - image[..., 1] > 60).any()
    assert np.abs(image - fit_image(frame, 224, 224)).mean() < 1


@pytest.mark.parametrize(("size", "wanted"), [((5, 5), (10, 1000)), ((1, 100), (64, 64)), ((6, 8), (12, 16))])
def test_small_pictures_are_cropped_and_enlarged(size, wanted):
    camera = CameraSpec("head", *wanted)
    jpeg = to_jpeg(np.full((*size, 3), 90, np.uint8), camera, "")
    assert np.abs(decode_images([jpeg], [camera])["head"].astype(int) - 90).max() <= 1


def test_success_and_who_acted(tmp_path, store):
    features = {**PLAIN, "next.success": ColumnSpec("bool"), "intervention": ColumnSpec("bool")}
    episodes = []
    for seed in range(3):
        columns = numbers(features, seed, 4)
        columns["next.success"] = np.arange(4) == (3 if seed else 99)
        columns["intervention"] = np.arange(4) != (2 if seed == 2 else 99)
        episodes.append(("open the lid", columns))
    report = take_in(write_lerobot(tmp_path / "dataset", episodes, features), store)
    assert [found.manifest.outcome for found in read_all(store)] == [Outcome.FAILURE, Outcome.SUCCESS]
    assert [refusal.index for refusal in report.refused] == [2]
    assert "intervention: expected a human on every frame, got 'a policy on 1 of 4'" in report.refused[0].reason


def spoil_nan(root):
    edit_column(root / DATA, "action", lambda rows: rows[6].__setitem__(1, float("nan")))


def spoil_range(root):
    edit_column(root / DATA, "observation.state", lambda rows: rows[7].__setitem__(0, 40.0))


def spoil_gripper(root):
    edit_column(root / DATA, "action", lambda rows: rows[5].__setitem__(2, 85.0))


def spoil_frame_index(root):
    edit_column(root / DATA, "frame_index", lambda rows: rows.__setitem__(8, 4))


def spoil_timestamp(root):
    edit_column(root / DATA, "timestamp", lambda rows: rows.__setitem__(8, 0.2))


def spoil_task(root):
    edit_column(root / DATA, "task_index", lambda rows: rows.__setitem__(9, 0))


def spoil_jpeg(root):
    edit_column(root / DATA, "observation.images.wrist", lambda rows: rows[5].__setitem__("bytes", b"\xff\xd8broken"))


def spoil_length(root):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    edit_column(path, "length", lambda rows: rows.__setitem__(1, 9))


def spoil_video_place(root):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    name = "videos/observation.images.front/from_timestamp"
    edit_column(path, name, lambda rows: rows.__setitem__(1, 20.0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_nan, r"action, 'elbow' at frame 1: expected a finite number, got nan"),
        (spoil_range, r"state of 'shoulder' at frame 2: expected -10 to 10 \(rad\), got 40"),
        (spoil_gripper, r"action of 'gripper' at frame 0: expected -0.1 to 1.1 \(0 open .. 1 closed\), got 85"),
        (spoil_frame_index, r"frame_index: expected 0..5"),
        (spoil_timestamp, r"timestamp of frame 3: expected 0.1000 s, at 30 frames/s, got 0.2"),
        (spoil_task, r"task_index: expected one that meta/ tells, the same on every frame, got \[0, 1\]"),
        (spoil_jpeg, r"observation.images.wrist: picture: expected a whole JPEG or PNG"),
        (spoil_length, r"frames of the episode: expected 9 in a row, at least one, as meta/ says, got 6"),
        (spoil_video_place, r"video file-000.mp4: expected a frame at 20.000 s, got 'the end of the file'"),
    ],
)
def test_a_bad_episode_is_told_and_the_others_come_in(tmp_path, store, spoil, message):
    root = write_lerobot(tmp_path / "dataset", three())
    spoil(root)
    report = take_in(root, store)
    assert [refusal.index for refusal in report.refused] == [1]
    with pytest.raises(InvalidDatasetError, match=message):
        raise InvalidDatasetError(report.refused[0].reason)
    assert f"{root}, episode 1" in report.refused[0].reason
    assert [found.manifest.num_frames for found in read_all(store)] == [5, 7]


def test_a_missing_video_and_a_missing_data_file(tmp_path, store, monkeypatch):
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(layout, "DATA_FILE_MB", 0)
    root = write_lerobot(tmp_path / "dataset", three())
    (root / "videos/observation.images.front/chunk-000/file-001.mp4").write_bytes(b"no video")
    (root / "data/chunk-000/file-002.parquet").unlink()
    report = take_in(root, store)
    assert len(report.imported) == 1
    assert ["file-001.mp4" in report.refused[0].reason, "file-002.parquet" in report.refused[1].reason] == [True] * 2


def _lack(name):
    return lambda info: info["features"].pop(name)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda info: info.update(codebase_version="v1.6"), "codebase_version: expected v2.0, v2.1 or v3, got 'v1.6'"),
        (lambda info: info.update(fps=0), "fps, total_episodes, chunks_size: expected positive numbers"),
        (lambda info: info.pop("features"), "expected a LeRobot dataset's, got \"no 'features'\""),
        (lambda info: info.update(total_episodes=4), r"episodes: expected episodes 0..3, as info.json says"),
        (
            lambda info: info.update(data_path="../../{chunk_index}"),
            "path template: expected a path within the dataset",
        ),
        (lambda info: info.update(data_path="{chunk_index.__class__}"), "path template: expected a path within"),
        (_lack("action"), "features: expected `action` and `observation.state`"),
    ],
)
def test_a_dataset_that_is_none(tmp_path, store, edit, message):
    root = write_lerobot(tmp_path / "dataset", three())
    edit_info(root, edit)
    with pytest.raises(InvalidDatasetError, match=message):
        take_in(root, store)


def test_what_the_mapping_names_must_be_there(tmp_path, store):
    root = write_lerobot(tmp_path / "dataset", three())
    with pytest.raises(
        InvalidDatasetError, match=r"feature 'top': expected a picture, got 'none'. The dataset has obs"
    ):
        take_in(root, store, cameras=(Camera("top", "top"),))
    with pytest.raises(InvalidDatasetError, match="feature 'action': expected a text, got 'number'"):
        take_in(root, store, instruction="action")


def test_a_column_of_another_shape_than_told(tmp_path, store):
    root = write_lerobot(tmp_path / "dataset", three())
    edit_info(root, lambda info: info["features"]["action"].update(shape=[4]))
    edit_info(root, lambda info: info["features"]["observation.state"].update(shape=[4]))
    report = take_in(root, store)
    assert report.imported == ()
    assert "column observation.state: expected [4], got [3]" in report.refused[0].reason


def test_a_dry_run_stores_nothing(tmp_path, store):
    source = LeRobotSource(write_lerobot(tmp_path / "dataset", three()))
    report = import_episodes(source, translator(source), store, dry_run=True)
    assert (len(report.imported), store.list_paths()) == (3, [])


def test_retired_episodes_stay_out(tmp_path, store):
    root = write_lerobot(tmp_path / "dataset", three())
    take_in(root, store)
    path = store.list_paths()[0]
    retire(store, RetirementRecord(path, "lids", Source.OFFLINE, 5, 1, "old", 0))
    (tmp_path / "store" / path).unlink()
    report = take_in(root, store)
    assert (report.imported, len(report.present)) == ((), 3)


def test_info_keeps_what_lerobot_needs(tmp_path):
    root = write_lerobot(tmp_path / "dataset", three())
    info = json.loads((root / "meta/info.json").read_text())
    assert info["splits"] == {"train": "0:3"}
    assert info["features"]["observation.images.front"]["info"]["video.pix_fmt"] == "yuv420p"
    assert info["features"]["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}

import dataclasses
import json
import pathlib
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from episode_strategies import assert_arrays_equal, assert_equal, episodes
from foreign import edit_column, edit_info
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.episodes.images import decode_images
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.interchange import labels
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.export import (
    ExportConfig,
    Selection,
    export_lerobot,
)
from sop_jax.interchange.importing import ImportReport, import_episodes
from sop_jax.interchange.lerobot import layout
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.thinning import thin
from sop_jax.interchange.translate import ExportTranslator
from sop_jax.specs.records import NO_POLICY, Episode, Outcome, Source

EXACT = ExportConfig(pictures="jpeg")
SPEC = make_spec(image_size=16, camera_names=("head", "hand_left"))
MEAN_ERROR = 8.0
"""Grey levels, per picture: what H.264 and a second JPEG may cost these grainy pictures of 16 pixels."""


def store_of(folder: pathlib.Path, *given_episodes: Episode) -> EpisodeStore:
    store = EpisodeStore(f"file://{folder}/")
    for episode in given_episodes:
        store.put(episode)
    return store


def import_back(root: pathlib.Path, store: EpisodeStore) -> ImportReport:
    return import_episodes(LeRobotSource(root), ExportTranslator(), store)


def read_all(store: EpisodeStore) -> list[Episode]:
    return [store.read(path) for path in store.list_paths()]


def three_episodes() -> list[Episode]:
    demonstration = make_episode(
        3, 10, spec=SPEC, instruction="put it back", source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="robot-1"
    )
    return [
        make_episode(1, 13, spec=SPEC, takeovers=((2, 3, 5), (6, 9, 12))),
        make_episode(2, 7, spec=SPEC, outcome=Outcome.TIMEOUT, policy_version=4),
        demonstration,
    ]


@given(episode=episodes(), hz=st.integers(1, 240))
@settings(max_examples=20)
def test_any_episode_comes_back_to_the_last_bit(episode, hz):
    if not episode.jpegs:
        return
    episode = dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, control_hz=float(hz)))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        report = export_lerobot(store_of(folder / "store", episode), folder / "dataset", config=EXACT)
        assert (report.num_episodes, report.num_frames, report.fps) == (1, episode.manifest.num_frames, hz)
        back = store_of(folder / "back")
        assert import_back(folder / "dataset", back).imported == (episode.manifest.episode_id,)
        assert_equal(read_all(back)[0], episode)


@pytest.mark.parametrize("limit_mb", [100, 0])
def test_several_episodes_through_video(tmp_path, monkeypatch, limit_mb):
    """Also when every episode gets files of its own: everything but the pixels is equal, and these are near."""
    monkeypatch.setattr(layout, "DATA_FILE_MB", limit_mb)
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", limit_mb)
    store = store_of(tmp_path / "store", *three_episodes())
    export_lerobot(store, tmp_path / "dataset")
    num_files = 1 if limit_mb else 3
    assert len(list(tmp_path.glob("dataset/data/*/*.parquet"))) == num_files
    assert len(list(tmp_path.glob("dataset/videos/*/*/*.mp4"))) == 2 * num_files
    back = store_of(tmp_path / "back")
    assert len(import_back(tmp_path / "dataset", back).imported) == 3
    for ours, original in zip(read_all(back), read_all(store), strict=True):
        assert ours.manifest == original.manifest
        assert_arrays_equal(ours.arrays, original.arrays)
        for left, right in zip(ours.jpegs, original.jpegs, strict=True):
            images, expected = decode_images(left, SPEC.cameras), decode_images(right, SPEC.cameras)
            for camera in images:
                error = np.abs(images[camera].astype(int) - expected[camera]).mean()
                assert error <= MEAN_ERROR


def test_labels_are_columns(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    export_lerobot(store, tmp_path / "dataset", config=EXACT)
    source = LeRobotSource(tmp_path / "dataset")
    first = source.read(0, tuple(labels.DTYPES))
    assert first.instruction == "put the cup on the shelf"
    assert np.flatnonzero(first.columns["intervention"]).tolist() == [3, 4, 9, 10, 11]
    assert first.columns["picture_age"].tolist() == [0, 1, 2] * 4 + [0]
    assert np.flatnonzero(first.columns["next.done"]).tolist() == [12]
    assert np.flatnonzero(first.columns["next.success"]).tolist() == [12]
    assert first.columns["next.reward"].tolist() == [0.0] * 12 + [1.0]
    second = source.read(1, tuple(labels.DTYPES))
    assert set(second.columns["outcome"]) == {"timeout"}
    assert set(second.columns["policy_version"].tolist()) == {4}
    assert not second.columns["next.success"].any()
    third = source.read(2, tuple(labels.DTYPES))
    assert (third.instruction, set(third.columns["source"])) == ("put it back", {"offline"})
    assert set(third.columns["robot_id"]) == {"robot-1"}


def test_before_the_first_picture_it_is_dark(tmp_path):
    episode = make_episode(1, 8, spec=SPEC)
    late = dataclasses.replace(episode.arrays, image_frames=np.array([2, 3, 7], np.int32))
    store = store_of(tmp_path / "store", Episode(episode.manifest, late, episode.jpegs))
    export_lerobot(store, tmp_path / "dataset")
    source = LeRobotSource(tmp_path / "dataset")
    raw = source.read(0, ("picture_age",))
    assert raw.columns["picture_age"].tolist() == [-1, -1, 0, 0, 1, 2, 3, 0]
    shown = list(source.pictures(raw, "observation.images.head", range(8)))
    assert max(image.max() for image in shown[:2]) < 8
    held = [int(np.abs(image.astype(int) - shown[3]).mean()) for image in shown]
    assert held[3:7] == [0, 0, 0, 0]
    assert min(held[2], held[7]) > 3


def test_only_frames_with_pictures(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    report = export_lerobot(store, tmp_path / "dataset", config=ExportConfig("pictured", "jpeg"))
    assert (report.num_frames, report.fps) == (5 + 3 + 4, 10)
    info = json.loads((tmp_path / "dataset/meta/info.json").read_text())
    assert (info["sop"]["frames"], info["fps"], info["total_frames"]) == ("pictured", 10, 12)
    back = store_of(tmp_path / "back")
    assert len(import_back(tmp_path / "dataset", back).imported) == 3
    for ours, original in zip(read_all(back), read_all(store), strict=True):
        assert_equal(ours, thin(original))
    first = read_all(back)[0]
    # Pictures at 0, 3, 6, 9, 12: the takeovers 3..5 and 9..12 hold the second and the fourth.
    assert first.arrays.intervention.tolist() == [False, True, False, True, False]
    assert [(e.asked_frame, e.takeover_frame, e.handback_frame) for e in first.manifest.takeovers] == [
        (1, 1, 2),
        (2, 3, 4),
    ]
    np.testing.assert_array_equal(first.arrays.action, read_all(store)[0].arrays.action[::3])


def test_importing_again_and_into_the_same_store_changes_nothing(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    export_lerobot(store, tmp_path / "dataset")
    again = import_back(tmp_path / "dataset", store)
    assert (again.imported, len(again.present), again.refused) == ((), 3, ())
    back = store_of(tmp_path / "back", three_episodes()[1])
    first = import_back(tmp_path / "dataset", back)
    assert (len(first.imported), len(first.present)) == (2, 1)
    assert import_back(tmp_path / "dataset", back).imported == ()


def test_selection(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    for number, (selection, expected) in enumerate(
        (
            (Selection(robots=("robot-1",)), ["put it back"]),
            (Selection(sources=(Source.ONLINE,), outcomes=(Outcome.SUCCESS,)), ["put the cup on the shelf"]),
        )
    ):
        root = tmp_path / f"dataset{number}"
        assert export_lerobot(store, root, selection, EXACT).num_episodes == 1
        assert [LeRobotSource(root).read(0, ()).instruction] == expected
    with pytest.raises(InvalidDatasetError, match="expected one or more, got 0"):
        export_lerobot(store, tmp_path / "none", Selection(tasks=("laundry_fold",)))
    assert not (tmp_path / "none").exists()


def test_damaged_and_set_aside_episodes_stay_out(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    paths = store.list_paths()
    store.quarantine(paths[0], "a test")
    file = tmp_path / "store" / paths[1]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    report = export_lerobot(store, tmp_path / "dataset", config=EXACT)
    assert report.num_episodes == 1
    assert list(report.left_out) == [paths[1]]
    assert LeRobotSource(tmp_path / "dataset").num_episodes == 1


def test_different_robots_dont_fit_in_one_dataset(tmp_path):
    store = store_of(tmp_path / "store", three_episodes()[0], make_episode(9, 5, image_size=8))
    with pytest.raises(InvalidDatasetError, match="one rate, dimensions and cameras"):
        export_lerobot(store, tmp_path / "dataset")
    assert list(tmp_path.glob("*dataset*")) == []
    odd = store_of(tmp_path / "odd", make_episode(9, 5, image_size=9))
    with pytest.raises(InvalidDatasetError, match=r"even numbers of pixels.*Export as jpeg"):
        export_lerobot(odd, tmp_path / "dataset")


def test_an_export_that_was_cut_or_relabelled_is_refused(tmp_path):
    store = store_of(tmp_path / "store", *three_episodes())
    root = tmp_path / "dataset"
    export_lerobot(store, root, config=EXACT)
    data = root / "data/chunk-000/file-000.parquet"
    edit_column(data, "outcome", lambda texts: ["failure"] * 13 + texts[13:])
    edit_column(data, labels.MANIFEST, lambda texts: [*texts[:19], "", *texts[20:]])
    report = import_back(root, store_of(tmp_path / "back"))
    assert len(report.imported) == 1
    assert "episode 0" in report.refused[0].reason
    assert "outcome: expected success, got ['failure']" in report.refused[0].reason
    assert "sop_manifest: expected one text, on the last frame, got ''" in report.refused[1].reason
    edit_column(data, labels.MANIFEST, lambda texts: [*texts[:19], '{"episode_id": 1}', *texts[20:]])
    assert "manifest: expected a manifest" in import_back(root, store_of(tmp_path / "back")).refused[1].reason


def test_episodes_may_be_taken_out_and_renumbered(tmp_path):
    """As LeRobot's own tools do it: what an episode is stays with its frames."""
    store = store_of(tmp_path / "store", *three_episodes())
    root = tmp_path / "dataset"
    export_lerobot(store, root, config=EXACT)
    data, meta = root / "data/chunk-000/file-000.parquet", root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(data).slice(13), data)
    pq.write_table(pq.read_table(meta).slice(1), meta)
    edit_column(data, "episode_index", lambda rows: [row - 1 for row in rows])
    edit_column(meta, "episode_index", lambda rows: [row - 1 for row in rows])
    edit_info(root, lambda info: info.update(total_episodes=2, sop={}))
    back = store_of(tmp_path / "back")
    assert len(import_back(root, back).imported) == 2
    for ours, original in zip(read_all(back), read_all(store)[1:], strict=True):
        assert_equal(ours, original)

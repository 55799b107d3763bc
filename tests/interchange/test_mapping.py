import dataclasses

import numpy as np
import pytest
from foreign import AGIBOT, NOW, numbers, to_v21, write_lerobot

from configs.files import from_json, to_json
from sop_jax.episodes.store import EpisodeStore
from sop_jax.interchange.agibot import AGIBOT_WORLD
from sop_jax.interchange.errors import InvalidDatasetError
from sop_jax.interchange.importing import import_episodes
from sop_jax.interchange.lerobot import layout
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.mapping import Camera, Dimensions, ImportMapping, check_mapping
from sop_jax.interchange.translate import MappedTranslator
from sop_jax.robots.two_arm import ACTION_NAMES
from sop_jax.specs.errors import ConfigError


def test_units():
    degrees = Dimensions("x", ("a", "b"), indices=(2, 0), unit="deg")
    np.testing.assert_allclose(degrees.convert(np.array([[180.0, 7.0, 90.0]]), ""), [[np.pi / 2, np.pi]])
    gripper = Dimensions("x", ("gripper",), unit="gripper", open_at=35.0, closed_at=120.0)
    np.testing.assert_allclose(gripper.convert(np.array([35.0, 77.5, 120.0], np.float32), ""), [[0], [0.5], [1]])
    backwards = Dimensions("x", ("gripper",), unit="gripper", open_at=1.0, closed_at=0.0)
    np.testing.assert_allclose(backwards.convert(np.array([[1], [0]]), ""), [[0], [1]])
    matrix = Dimensions("x", ("a",), indices=(3,))
    np.testing.assert_array_equal(matrix.convert(np.arange(8.0).reshape(2, 2, 2), ""), [[3], [7]])


def test_what_a_feature_doesnt_have():
    with pytest.raises(InvalidDatasetError, match="dimensions of x: expected 2, got 3"):
        Dimensions("x", ("a", "b")).convert(np.zeros((4, 3)), "there")
    with pytest.raises(InvalidDatasetError, match="dimensions of x: expected more than 3, got 3"):
        Dimensions("x", ("a",), indices=(3,)).convert(np.zeros((4, 3)), "there")
    with pytest.raises(InvalidDatasetError, match="type of x: expected numbers, got 'bool'"):
        Dimensions("x", ("a",)).convert(np.zeros(4, bool), "there")
    with pytest.raises(InvalidDatasetError, match="x, 'b' at frame 2: expected a finite number, got inf"):
        Dimensions("x", ("a", "b")).convert(np.array([[0, 0], [0, 0], [0, np.inf]]), "there")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Dimensions("x", ()), "names must not be empty"),
        (lambda: Dimensions("x", ("a", "b"), indices=(1,)), "indices must be 2 numbers"),
        (lambda: Dimensions("x", ("left_gripper",)), "'gripper' in its name"),
        (lambda: Dimensions("x", ("a",), unit="gripper"), "'gripper' in its name"),
        (lambda: Dimensions("x", ("gripper",), unit="gripper", open_at=1.0), "open_at and closed_at must differ"),
        (lambda: Camera("x", "head", height=5), "height and width, or neither"),
        (lambda: ImportMapping((Dimensions("s", ("a",)),), (Dimensions("x", ("b",)),), ()), "same dimensions"),
        (lambda: ImportMapping((Dimensions("s", ("a",)),), (Dimensions("x", ("a",)),), ()), "cameras must be one"),
    ],
)
def test_mappings_that_cant_be(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_mapping_is_json_and_back():
    assert from_json(ImportMapping, to_json(AGIBOT_WORLD)) == AGIBOT_WORLD
    whole = dataclasses.replace(AGIBOT_WORLD, last_action=True)
    assert from_json(ImportMapping, to_json(whole)) == whole
    older = to_json(AGIBOT_WORLD)
    del older["last_action"]  # a file from before there was the choice
    assert from_json(ImportMapping, older) == AGIBOT_WORLD


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_agibot_world(tmp_path, store_url, monkeypatch, version):
    """Joints and grippers from their own features, in the order of every record here; measured openings rescaled."""
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0)
    episodes = [("Pick up the carrot.", numbers(AGIBOT, seed, 4)) for seed in range(2)]
    for _, columns in episodes:
        columns["observation.states.effector.position"] = np.tile(np.float32([35.0, 120.0]), (4, 1))
    root = write_lerobot(tmp_path / "dataset", episodes, AGIBOT)
    source, store = LeRobotSource(to_v21(root) if version == "v2.1" else root), EpisodeStore(store_url)
    check_mapping(AGIBOT_WORLD, source)
    report = import_episodes(source, MappedTranslator(AGIBOT_WORLD, "restock_shelf", "agibot", NOW), store)
    assert (len(report.imported), report.refused) == (2, ())
    columns = episodes[0][1]
    found = store.read(next(path for path in store.list_paths() if path.endswith("000000.zip")))
    assert found.manifest.action_names == ACTION_NAMES
    assert [camera.name for camera in found.manifest.cameras] == ["head", "hand_left", "hand_right"]
    np.testing.assert_array_equal(found.arrays.state[:, :14], columns["observation.states.joint.position"])
    np.testing.assert_array_equal(found.arrays.state[:, 14:], np.tile(np.float32([0, 1]), (4, 1)))
    np.testing.assert_array_equal(found.arrays.action[:, :14], columns["actions.joint.position"])
    np.testing.assert_array_equal(found.arrays.action[:, 14:], columns["actions.effector.position"])


def test_agibot_openings_in_other_units_are_refused(tmp_path, store_url):
    """A release that measures openings as fractions must not pass for one that measures them from 35 to 120."""
    source = LeRobotSource(write_lerobot(tmp_path / "dataset", [("Pick.", numbers(AGIBOT, 0, 4))], AGIBOT))
    translator = MappedTranslator(AGIBOT_WORLD, "restock_shelf", "agibot", NOW)
    report = import_episodes(source, translator, EpisodeStore(store_url))
    assert report.imported == ()
    assert "state of 'left_gripper' at frame 0" in report.refused[0].reason

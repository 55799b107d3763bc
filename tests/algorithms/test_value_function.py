import dataclasses
import json

import jax
import numpy as np
import pytest

from sop_jax.algorithms.recap.value_function import load_value_function
from sop_jax.episodes.episode_images import EpisodeImages, HeldImages, StoredImages
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.models.batch import ObservationBatch
from sop_jax.models.bundle import InvalidBundleError
from sop_jax.models.value.distribution import expected_value
from sop_jax.specs.errors import ConfigError, UnlabelledEpisodeError
from sop_jax.specs.records import CameraSpec
from tests.algorithms.value_cases import value_function

SPEC = make_spec(image_size=16, camera_names=("head",))


def test_values_of_an_episode_are_the_models_whatever_its_length(store_url):
    values = value_function()
    calls = []
    model_logits = type(values.bundle.model).logits

    def counting(self, *arguments):
        calls.append(1)  # while tracing only
        return model_logits(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(values.bundle.model), "logits", counting)
        for num_frames in (7, 70):
            episode = make_episode(num_frames, num_frames, image_stride=1, spec=SPEC)
            found = values.values(episode.manifest, episode.arrays, HeldImages(episode))
            assert found.shape == (num_frames,)
            pixels = HeldImages(episode).read(range(num_frames))["head"]
            tokens, mask = values.bundle.model.tokenize([episode.manifest.instruction] * num_frames)
            seen = ObservationBatch(
                {"head": pixels}, {"head": np.ones(num_frames, bool)}, episode.arrays.state, tokens, mask
            )
            expected = expected_value(model_logits(values.bundle.model, values.bundle.params, values.bundle.norm, seen))
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert found.std() > 1e-4
    assert len(calls) == 1


def test_images_of_any_claimed_size_are_not_read():
    spec = make_spec(image_size=16, camera_names=("head",))
    episode = make_episode(1, 5, 1, spec=spec)
    giant = dataclasses.replace(episode.manifest, cameras=(CameraSpec("head", 4096, 4096),))
    with pytest.raises(
        UnlabelledEpisodeError, match="head has 4096x4096 pixels, a value function reads at most 2073600"
    ):
        value_function().values(giant, episode.arrays, HeldImages(episode))


def test_pictures_of_many_sizes_are_judged_by_one_compilation():
    """A robot may claim any size, and a new one for each episode."""
    values, num_traced = value_function(), 0
    logits = type(values.bundle.model).logits

    def counting(self, *arguments):
        nonlocal num_traced
        num_traced += 1
        return logits(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(values.bundle.model), "logits", counting)
        for size in (16, 40, 9):
            episode = make_episode(size, 5, 1, spec=make_spec(image_size=size, camera_names=("head",)))
            found = values.values(episode.manifest, episode.arrays, HeldImages(episode))
            tokens, mask = values.bundle.model.tokenize([episode.manifest.instruction] * 5)
            images = HeldImages(episode).read(range(5))
            seen = ObservationBatch(images, {"head": np.ones(5, bool)}, episode.arrays.state, tokens, mask)
            expected = logits(values.bundle.model, values.bundle.params, values.bundle.norm, seen)
            # As in training, where the model resizes: pixels on a border between two levels may be rounded another way.
            np.testing.assert_allclose(found, expected_value(expected), atol=1e-5 if size == 16 else 2e-3)
    assert num_traced == 1


def test_what_it_cant_read_is_no_fault_of_the_episode():
    values, episode = value_function(), make_episode(1, 5, 1, spec=SPEC)
    long = dataclasses.replace(episode.manifest, instruction=" ".join(["cup"] * 13))
    with pytest.raises(UnlabelledEpisodeError, match="13 tokens, the model takes at most 12"):
        values.values(long, episode.arrays, HeldImages(episode))
    seven = dataclasses.replace(episode.arrays, state=episode.arrays.state[:, :7])
    with pytest.raises(UnlabelledEpisodeError, match="the state has 7 dimensions, the value function reads 16"):
        values.values(episode.manifest, seven, HeldImages(episode))
    blind = dataclasses.replace(episode.arrays, image_frames=np.zeros(0, np.int32))
    with pytest.raises(UnlabelledEpisodeError, match="has no images"):
        values.advantages(episode.manifest, blind, np.zeros(0))


def test_a_camera_that_the_episode_lacks_is_masked():
    values = value_function()
    other = make_episode(1, 5, 1, spec=make_spec(image_size=16, camera_names=("hand_left",)))
    blind = values.values(other.manifest, other.arrays, HeldImages(other))
    dark = dataclasses.replace(other, jpegs=make_episode(2, 5, 1, spec=other_spec()).jpegs)
    np.testing.assert_array_equal(blind, values.values(dark.manifest, dark.arrays, HeldImages(dark)))


def other_spec():
    return make_spec(image_size=16, camera_names=("hand_left",))


def test_stored_and_held_images_are_the_same(store_url):
    store, episode = EpisodeStore(store_url), make_episode(3, 9, 2, spec=SPEC)
    index = store.put(episode)
    for images in (StoredImages(store, episode.manifest, index), HeldImages(episode)):
        assert isinstance(images, EpisodeImages)
        np.testing.assert_array_equal(images.read([3, 1])["head"], HeldImages(episode).read([3, 1])["head"])
        assert images.read([])["head"].shape == (0, 16, 16, 3)


def test_it_comes_back_from_its_directory(tmp_path):
    values = value_function()
    fingerprint = values.save(tmp_path / "values")
    again = load_value_function(tmp_path / "values")
    assert again.bundle.fingerprint == fingerprint
    assert again.returns == values.returns
    assert dict(again.tasks) == dict(values.tasks)
    jax.tree.map(np.testing.assert_array_equal, again.bundle.params, values.bundle.params)
    with pytest.raises(FileExistsError, match="needs a directory of its own"):
        values.save(tmp_path / "values")


def test_what_is_missing_or_changed_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no value\.json\. Make one with"):
        load_value_function(tmp_path)
    directory = tmp_path / "values"
    value_function().save(directory)
    content = json.loads((directory / "value.json").read_text())
    (directory / "value.json").write_text(json.dumps({**content, "fingerprint": "0" * 16}))
    with pytest.raises(InvalidBundleError, match=r"value\.json says"):
        load_value_function(directory)
    (directory / "value.json").write_text(json.dumps({**content, "model": {**content["model"], "num_bins": 7}}))
    with pytest.raises(InvalidBundleError, match=r"misshapen: bins/bias \(21,\) instead of \(7,\)"):
        load_value_function(directory)
    (directory / "value.json").write_text(json.dumps(content))
    (directory / "returns.json").write_text("{}")
    with pytest.raises(InvalidBundleError, match=r"returns\.json can't be read"):
        load_value_function(directory)

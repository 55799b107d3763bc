"""A dataset that LeRobot 0.5.1 itself wrote: AV1 video, embedded PNGs, pandas' and `datasets`' own Parquet.

`python -m benchmarks.parity_lerobot.dataset --write-golden FILE` remakes the file; what went into it is in dataset_side.py.
"""

import pathlib
import zipfile

import numpy as np
import pytest
from foreign import NOW

from sop_jax.episodes.images import decode_images
from sop_jax.episodes.store import EpisodeStore
from sop_jax.interchange.importing import import_episodes
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.mapping import derive_mapping
from sop_jax.interchange.translate import MappedTranslator
from sop_jax.specs.records import Outcome

GOLDEN = pathlib.Path(__file__).parent / "golden" / "lerobot_0_5_1.zip"
NUM_FRAMES = 14


@pytest.fixture
def source(tmp_path) -> LeRobotSource:
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path / "golden")
    return LeRobotSource(tmp_path / "golden")


def test_what_lerobot_wrote_comes_in(source, store_url):
    store = EpisodeStore(store_url)
    mapping = derive_mapping(source, image_stride=5)
    report = import_episodes(source, MappedTranslator(mapping, "boxes", "so100", NOW), store)
    assert (len(report.imported), report.refused) == (3, ())
    truth = np.random.default_rng(0).uniform(0, 1, (3, NUM_FRAMES, 2, 6)).astype(np.float32)
    texts, outcomes = ("fold the box", "put the cup away"), (Outcome.SUCCESS, Outcome.FAILURE)
    y, x = np.mgrid[0:64, 0:64]
    for index, path in enumerate(sorted(store.list_paths(), key=lambda path: path.split(".")[-2])):
        episode = store.read(path)
        assert (episode.manifest.instruction, episode.manifest.outcome) == (texts[index % 2], outcomes[index % 2])
        assert episode.manifest.action_names == (*(f"joint{i}" for i in range(5)), "gripper")
        np.testing.assert_array_equal(episode.arrays.state, truth[index, :, 0])
        np.testing.assert_array_equal(episode.arrays.action, truth[index, :, 1])
        for frame, jpegs in zip(episode.arrays.image_frames, episode.jpegs, strict=True):
            given = np.stack([x * 3, y * 3, np.full_like(x, 12 * frame + 20 * index)], axis=-1)
            images = decode_images(jpegs, episode.manifest.cameras)
            assert np.abs(images["front"] - given).mean() < 3.0  # AV1 at crf 30, then a JPEG
            assert np.abs(images["wrist"] - given[::-1]).mean() < 1.5  # a PNG, then a JPEG

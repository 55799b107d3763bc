"""A small store with its tables filled, as intake would fill them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.images import decode_images
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.replay.items import encode_segment, segments_of
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.sampling import loader as loader_module
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
from sop_jax.sampling.batch_source import LoadedBatch
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.episode_cache import FrameReader
from sop_jax.sampling.frame_picker import PickerConfig
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import Clock, ManualClock
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import NO_POLICY, CameraSpec, Episode, Source

TASKS = ("restock_shelf", "laundry_fold")
SPEC = BatchSpec(
    cameras=tuple(CameraSpec(name, 16, 16) for name in ("head", "hand_left", "hand_right")),
    state_dim=16,
    action_dim=16,
    horizon=4,
)
SEGMENT_LENGTH = 4
PICKER = PickerConfig(segment_length=SEGMENT_LENGTH, table_timeout_s=0.0, online_retry_s=0.0, starved_after_s=1.0)
MAX_WORDS = 12
INLINE = LoaderConfig(batch_size=8, prefetch_batches=0, num_threads=1, picker=PICKER)
THREADED = dataclasses.replace(INLINE, prefetch_batches=2, num_threads=2)


def tokenize(instructions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """One token per instruction: its length. Refuses more than MAX_WORDS words, as real tokenizers do."""
    for text in instructions:
        if len(text.split()) > MAX_WORDS:
            raise ValueError(
                f"instruction {text!r} has {len(text.split())} tokens, the model takes at most {MAX_WORDS}"
            )
    tokens = np.zeros((len(instructions), 3), np.int32)
    tokens[:, 0] = [len(text) for text in instructions]
    return tokens, tokens > 0


def demonstration(seed: int, task: str = TASKS[0], **changes) -> Episode:
    return make_episode(
        seed,
        source=Source.OFFLINE,
        policy_version=NO_POLICY,
        task=task,
        robot_id=f"demo-{task}",
        image_size=16,
        **changes,
    )


def corrected(seed: int, task: str = TASKS[0], **changes) -> Episode:
    """An online episode of 12 frames with a human at frames 4 to 6."""
    return make_episode(
        seed, task=task, robot_id=f"robot-{task}", image_size=16, **{"takeovers": ((3, 4, 7),), **changes}
    )


class World:
    """Store, tables and a loader over them."""

    def __init__(self, store_url: str, mix: MixConfig | None = None, clock: Clock | None = None):
        self.store = EpisodeStore(store_url)
        self.clock = clock or ManualClock()
        self.tables = LocalTables(mix_tables(TASKS, mix), clock=self.clock)
        self.metrics = MemoryMetrics()
        self.algorithm: Algorithm = HgDagger()
        self.reader: FrameReader = self.store
        self.sampler_config = SamplerConfig()

    def add(self, *episodes: Episode) -> None:
        for episode in episodes:
            index = self.store.put(episode)
            labels = self.algorithm.label_frames(episode.manifest, episode.arrays, SPEC.horizon)
            segments = segments_of(episode.manifest, index, episode.arrays, labels, SEGMENT_LENGTH)
            table = f"{episode.manifest.task}/{episode.manifest.source}"
            self.tables.insert(table, [encode_segment(segment) for segment in segments])

    def fill(self) -> "World":
        for i, task in enumerate(TASKS):
            self.add(*(demonstration(10 * i + seed, task) for seed in range(3)))
            self.add(*(corrected(10 * i + seed, task, policy_version=seed + 1) for seed in range(3)))
        return self

    def loader(self, config: LoaderConfig = INLINE, metrics: Metrics | None = None, **changes) -> Loader:
        return Loader(
            dataclasses.replace(config, **changes),
            SPEC,
            tokenize,
            self.tables,
            self.reader,
            AdaptiveSampler(self.sampler_config, TASKS),
            self.algorithm,
            self.clock,
            metrics or self.metrics,
        )


@pytest.fixture
def world(store_url) -> World:
    return World(store_url)


@pytest.fixture
def overlapping(monkeypatch) -> None:
    """Batches overlap as those of large images do."""
    monkeypatch.setattr(loader_module, "LARGE_IMAGE_PIXELS", 16 * 16)


@pytest.fixture(params=["one thread", "overlapping"])
def either(request) -> None:
    if request.param == "overlapping":
        request.getfixturevalue("overlapping")


def trained_on(world: World, num_batches: int = 12, config: LoaderConfig = INLINE) -> tuple[set[str], int, str]:
    """Episodes that appeared in batches, picks passed over, and why the last one was."""
    loader = world.loader(config)
    seen = {episode for _ in range(num_batches) for episode in loader.next().episode_ids}
    report = loader.report()
    loader.stop()
    return seen, report.num_skipped, report.last_fault


def assert_example_is_true(world: World, loaded: LoadedBatch, row: int) -> None:
    """Compares one example with the episode, read whole from the store."""
    episode = world.store.read(episode_path(loaded.episode_ids[row]))
    manifest, arrays, frame = episode.manifest, episode.arrays, int(loaded.frames[row])
    batch = loaded.batch
    np.testing.assert_array_equal(batch.observation.state[row], arrays.state[frame])
    for step in range(SPEC.horizon):
        np.testing.assert_array_equal(
            batch.actions[row, step], arrays.action[min(frame + step, manifest.num_frames - 1)]
        )
    masks = world.algorithm.action_masks(manifest, arrays, SPEC.horizon)
    np.testing.assert_array_equal(batch.action_mask[row], masks[frame])
    assert masks[frame].any()
    image_row = int(np.flatnonzero(arrays.image_frames == frame)[0])
    for name, image in decode_images(episode.jpegs[image_row], manifest.cameras).items():
        np.testing.assert_array_equal(batch.observation.images[name][row], image)
        assert batch.observation.image_mask[name][row]
    assert batch.observation.tokens[row].tolist() == [len(manifest.instruction), 0, 0]
    assert loaded.draws[row].task == manifest.task
    assert loaded.draws[row].source == manifest.source
    assert loaded.policy_versions[row] == arrays.policy_version[frame]
    assert loaded.ended_ns[row] == manifest.ended_ns
    assert loaded.intervention[row] == arrays.intervention[frame]

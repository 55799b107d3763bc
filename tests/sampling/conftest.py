"""A small store with its tables filled, as intake would fill them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.replay.items import encode_segment, segments_of
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler, SamplerConfig
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

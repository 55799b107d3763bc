"""Batches: what they hold, from which tasks and buffers, and that they follow from seed and store."""

import dataclasses
import json

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Lesson
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.episodes.synthetic import make_spec
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import NO_POLICY, Outcome, Source
from tests.sampling.conftest import (
    INLINE,
    MAX_WORDS,
    SPEC,
    TASKS,
    THREADED,
    World,
    assert_example_is_true,
    corrected,
    demonstration,
    trained_on,
)


@pytest.mark.parametrize(
    "config",
    [
        INLINE,
        THREADED,
        dataclasses.replace(INLINE, pixel_cache_bytes=0, arrays_cache_bytes=0),
        dataclasses.replace(INLINE, pixel_cache_bytes=0, jpeg_cache_bytes=1 << 20),
        dataclasses.replace(INLINE, pixel_cache_bytes=5000, jpeg_cache_bytes=20_000, arrays_cache_bytes=5000),
    ],
)
@pytest.mark.usefixtures("either")
def test_batches_hold_what_the_store_holds(world, config):
    loader = world.fill().loader(config)
    for _ in range(4):
        loaded = loader.next()
        for row in range(config.batch_size):
            assert_example_is_true(world, loaded, row)
    loader.stop()
    assert loader.report().num_skipped == 0


@pytest.mark.parametrize("level", ["pixel_cache_bytes", "jpeg_cache_bytes"])
def test_cached_frames_are_not_fetched_again(world, level):
    class Counting:
        def __init__(self):
            self.num_fetched = 0

        def read_arrays(self, path, arrays_range):
            return world.store.read_arrays(path, arrays_range)

        def read_images(self, requests):
            self.num_fetched += len(requests)
            return world.store.read_images(requests)

    world.fill().reader = Counting()
    loader = world.loader(**{"pixel_cache_bytes": 0, level: 1 << 20})
    for _ in range(40):
        loader.next()
    loader.stop()
    distinct = 6 * 4 + 6 * 2  # 12 frames every third of which has images; two of them see a correction in [4, 7)
    assert world.reader.num_fetched <= distinct
    assert loader.report().image_hit_share > 0.85


def test_types_and_shapes_are_the_models(world):
    loader = world.fill().loader()
    batch = loader.next().batch
    loader.stop()
    assert {name: (x.shape, x.dtype.name) for name, x in batch.observation.images.items()} == {
        camera.name: ((8, 16, 16, 3), "uint8") for camera in SPEC.cameras
    }
    assert (batch.actions.shape, batch.actions.dtype.name) == ((8, 4, 16), "float32")
    assert (batch.action_mask.shape, batch.action_mask.dtype.name) == ((8, 4), "float32")
    assert (batch.observation.state.dtype.name, batch.weight.dtype.name) == ("float32", "float32")
    assert (batch.observation.tokens.dtype.name, batch.observation.token_mask.dtype.name) == ("int32", "bool")


def test_tasks_and_buffers_are_mixed_as_planned(world):
    world.sampler_config = SamplerConfig(mode="fixed", fixed_online_share=0.25)
    loader = world.fill().loader()
    draws = [draw for _ in range(10) for draw in loader.next().draws]
    loader.stop()
    assert (
        loader.online_share() == 0.25
    )  # of examples: short segments make it another one of the items that tables gave
    for task in TASKS:
        assert sum(draw.task == task for draw in draws) == 40
        assert sum(draw.task == task and draw.source == Source.ONLINE for draw in draws) == 10


def test_weights_and_instructions_come_from_the_algorithms_lessons(world):
    @dataclasses.dataclass(frozen=True)
    class Praising(HgDagger):
        def make_lesson(self, instruction, label, rng):
            return Lesson(instruction + "!" * int(rng.integers(1, 3)), 2 * label)

    world.algorithm = Praising()
    loader = world.fill().loader()
    loaded = loader.next()
    loader.stop()
    bare = len("put the cup on the shelf")
    assert set(loaded.batch.observation.tokens[:, 0].tolist()) == {bare + 1, bare + 2}
    assert loaded.batch.weight.tolist() == [2.0] * 8


def test_without_online_data_it_trains_on_demonstrations_and_counts(world):
    world.add(*(demonstration(seed, task) for task in TASKS for seed in range(2)))
    loader = world.loader()
    loaded = loader.next()
    loader.stop()
    assert {draw.source for draw in loaded.draws} == {Source.OFFLINE}
    asked = sum(draw.source == Source.ONLINE for draw in loaded.requested)
    assert asked == sum(loader.report().num_fallbacks.values()) == 4
    assert {table for table, num in loader.report().num_blocks.items() if num} == {f"{task}/online" for task in TASKS}


def test_the_longest_instruction_that_fits_teaches(world):
    longest = demonstration(99, instruction=" ".join(["cup"] * MAX_WORDS))
    world.fill().add(longest)
    seen, num_skipped, _ = trained_on(world)
    assert longest.manifest.episode_id in seen
    assert num_skipped == 0


def test_a_missing_camera_is_masked(world):
    for task in TASKS:
        world.add(demonstration(1, task, spec=make_spec(16, ("hand_right", "head"))))
    loader = world.loader()
    observation = loader.next().batch.observation
    loader.stop()
    assert observation.image_mask["hand_left"].tolist() == [False] * 8
    assert not observation.images["hand_left"].any()
    assert observation.image_mask["hand_right"].all()
    assert observation.images["head"].any()
    assert not np.array_equal(observation.images["head"], observation.images["hand_right"])


def test_inline_loading_is_reproducible(store_url):
    batches = []
    for run in range(2):
        world = World(store_url.replace("store", f"store{run}")).fill()
        loader = world.loader()
        for _ in range(5):
            loaded = loader.next()
            loader.record_losses(loaded.draws, np.linspace(0, 1, 8, dtype=np.float32))
            batches.append((loaded.draws, loaded.episode_ids, loaded.frames.tolist()))
        loader.stop()
    assert batches[:5] == batches[5:]
    assert len({draws for draws, _, _ in batches[:5]}) > 1  # each batch has its own order


def test_a_resumed_loader_plans_as_the_uninterrupted_one(world):
    world.fill()
    first, second = world.loader(), world.loader()

    def step(loader):
        loaded = loader.next()
        losses = np.array([1.0 + (draw.source == Source.ONLINE) for draw in loaded.draws], np.float32)
        loader.record_losses(loaded.draws, losses)
        return loaded.requested

    for _ in range(15):
        step(first)
    second.load_state(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert [step(first) for _ in range(3)] == [step(second) for _ in range(3)]
    assert first.state_dict() == second.state_dict()
    with pytest.raises(RuntimeError, match="before the first next"):
        second.load_state(first.state_dict())
    state = world.loader().state_dict()
    other = {**state, "sampler": {**state["sampler"], "tasks": [TASKS[0], "box_assembly"]}}
    with pytest.raises(ConfigError, match="resume with the tasks that the run was started with"):
        world.loader().load_state(other)
    with pytest.raises(ConfigError, match="expected version 1, got 7"):
        world.loader().load_state({"version": 7})


def test_losses_move_the_mix(world):
    loader = world.fill().loader()
    for _ in range(12):
        loaded = loader.next()
        losses = np.array([0.1 if draw.source == Source.OFFLINE else 9 for draw in loaded.draws], np.float32)
        loader.record_losses(loaded.draws, losses)
    online = [draw.source == Source.ONLINE for _ in range(10) for draw in loader.next().draws]
    loader.stop()
    assert sum(online) / len(online) == pytest.approx(0.8, abs=0.06)


def test_it_reports_the_mix(world):
    loader = world.fill().loader(report_every=2)
    for _ in range(2):
        loaded = loader.next()
        loader.record_losses(loaded.draws, np.ones(8, np.float32))
    for _ in range(2):
        loader.next()
    loader.stop()
    events = [event for event in world.metrics.events if event["event"] == "sampler"]
    assert [event["task"] for event in events] == list(TASKS) * 2
    assert [event["examples"] for event in events] == [8] * 4
    assert events[2]["online_share_given"] == 0.5
    assert events[2]["mean_loss_online"] == 1.0
    (first, second) = [event for event in world.metrics.events if event["event"] == "loader"]
    assert (first["batches"], second["batches"]) == (2, 4)
    assert second["fallbacks"] == 0


def test_failed_and_demonstrated_frames_keep_their_labels(world):
    world.fill().add(corrected(60, outcome=Outcome.FAILURE))
    world.sampler_config = SamplerConfig(mode="fixed", fixed_online_share=1.0)
    loader = world.loader()
    versions = [v for _ in range(5) for v in loader.next().policy_versions.tolist()]
    loader.stop()
    assert NO_POLICY not in versions
    assert set(versions) <= {1, 2, 3}


def test_bad_configs_are_refused():
    with pytest.raises(ConfigError, match=r"LoaderConfig.batch_size must be >= 1, got 0"):
        LoaderConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"LoaderConfig.prefetch_batches must be >= 0, got -1"):
        LoaderConfig(prefetch_batches=-1)

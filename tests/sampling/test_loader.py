import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import threading
import time

import numpy as np
import pytest

from sop_jax.algorithms.algorithm import Lesson
from sop_jax.algorithms.behaviour_cloning import BehaviourCloning
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.algorithms.recap.recap import Recap
from sop_jax.episodes.images import decode_images, decode_into
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.synthetic import make_spec
from sop_jax.replay.items import encode_segment, label_all, segments_of
from sop_jax.sampling import image_cache
from sop_jax.sampling import loader as loader_module
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError, LoadedBatch
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError, RateLimitedError, UnlabelledEpisodeError
from sop_jax.specs.records import NO_POLICY, Episode, Outcome, Source
from tests.sampling.conftest import INLINE, MAX_WORDS, PICKER, SPEC, TASKS, World, corrected, demonstration

THREADED = dataclasses.replace(INLINE, prefetch_batches=2, num_threads=2)


@pytest.fixture
def overlapping(monkeypatch) -> None:
    """Batches overlap as those of large images do."""
    monkeypatch.setattr(loader_module, "LARGE_IMAGE_PIXELS", 16 * 16)


@pytest.fixture(params=["one thread", "overlapping"])
def either(request) -> None:
    if request.param == "overlapping":
        request.getfixturevalue("overlapping")


def break_object(world: World, episode: Episode, change) -> None:
    path = pathlib.Path(world.store.url.removeprefix("file://")) / episode_path(episode.manifest.episode_id)
    path.write_bytes(change(path.read_bytes()))


def remove_object(world: World, episode: Episode) -> None:
    (pathlib.Path(world.store.url.removeprefix("file://")) / episode_path(episode.manifest.episode_id)).unlink()


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


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("config", [INLINE, THREADED])
@pytest.mark.parametrize("harm", ["gone", "cut off", "arrays altered"])
def test_a_broken_episode_is_passed_over_counted_and_never_trained_on(world, harm, config):
    victim = demonstration(99)
    world.fill().add(victim)
    if harm == "gone":
        remove_object(world, victim)
    elif harm == "cut off":
        break_object(world, victim, lambda data: data[: len(data) // 2])
    else:
        break_object(world, victim, lambda data: data[:-3000] + bytes(500) + data[-2500:])
    seen, num_skipped, reason = trained_on(world, config=config)
    assert victim.manifest.episode_id not in seen
    assert len(seen) == 12
    assert num_skipped >= 1
    assert victim.manifest.episode_id in reason


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("config", [INLINE, THREADED])
@pytest.mark.parametrize(("num_words", "algorithm"), [(MAX_WORDS + 1, HgDagger()), (MAX_WORDS - 1, Recap())])
def test_an_instruction_that_the_model_cant_read_costs_its_episode_and_no_more(world, num_words, algorithm, config):
    """RECAP's indicator adds two words, to some of the lessons only."""
    victim = demonstration(99, instruction=" ".join(["cup"] * num_words))
    world.fill().add(victim)
    world.algorithm = algorithm
    seen, num_skipped, reason = trained_on(world, config=config)
    assert victim.manifest.episode_id not in seen
    assert len(seen) == 12
    assert num_skipped >= 1
    assert f"episode {victim.manifest.episode_id}: instruction 'cup cup" in reason
    assert f"has {MAX_WORDS + 1} tokens, the model takes at most {MAX_WORDS}" in reason


def test_an_episode_that_the_algorithm_cant_read_is_passed_over_too(world):
    """An intake with another algorithm let it in."""
    victim = demonstration(99)
    world.fill().add(victim)

    @dataclasses.dataclass(frozen=True)
    class Blind(HgDagger):
        def action_masks(self, manifest, arrays, horizon):
            if manifest.episode_id == victim.manifest.episode_id:
                raise UnlabelledEpisodeError(f"episode {manifest.episode_id}: too many takeovers")
            return super().action_masks(manifest, arrays, horizon)

    world.algorithm = Blind()
    seen, num_skipped, reason = trained_on(world)
    assert victim.manifest.episode_id not in seen
    assert len(seen) == 12
    assert num_skipped >= 1
    assert reason == f"episode {victim.manifest.episode_id}: too many takeovers"


def test_the_longest_instruction_that_fits_teaches(world):
    longest = demonstration(99, instruction=" ".join(["cup"] * MAX_WORDS))
    world.fill().add(longest)
    seen, num_skipped, _ = trained_on(world)
    assert longest.manifest.episode_id in seen
    assert num_skipped == 0


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("config", [INLINE, THREADED, dataclasses.replace(THREADED, pixel_cache_bytes=0)])
def test_an_episode_with_a_broken_jpeg_is_given_up(world, config):
    victim = demonstration(99)
    world.fill().add(victim)
    start = victim.jpegs[0][0][:40]
    jpeg = victim.jpegs[0][0]
    break_object(world, victim, lambda data: data.replace(jpeg, start + bytes(len(jpeg) - 40)))
    loader = world.loader(config)
    while not loader.report().num_skipped:
        loader.next()
    for _ in range(config.prefetch_batches):  # drawn before it was found out, from its other frames
        loader.next()
    later = [loader.next() for _ in range(8)]
    loader.stop()
    for loaded in later:
        for row in range(config.batch_size):
            assert_example_is_true(world, loaded, row)
    later = {episode for loaded in later for episode in loaded.episode_ids}
    assert "JPEG of head" in loader.report().last_fault
    assert victim.manifest.episode_id not in later  # its other frames aren't trusted either
    assert len(later) >= 10


def test_reads_that_fail_for_a_moment_are_tried_again(world):
    class Flaky:
        def __init__(self):
            self.num_failures = 0

        def read_arrays(self, path, arrays_range):
            if self.num_failures < 3:
                self.num_failures += 1
                raise OSError("connection reset")
            return world.store.read_arrays(path, arrays_range)

        def read_images(self, requests):
            if self.num_failures < 6:
                self.num_failures += 1
                raise ValueError("UNAVAILABLE")
            return world.store.read_images(requests)

    world.fill().reader = Flaky()
    seen, num_skipped, _ = trained_on(world, 20)
    assert len(seen) == 12
    assert num_skipped >= 3


def test_an_item_without_its_episode_is_passed_over(world):
    world.fill()
    episode, other = demonstration(50), demonstration(51)
    index = world.store.put(episode)
    world.store.put(other)
    labels = label_all(episode.manifest, episode.arrays)
    segment = segments_of(episode.manifest, index, episode.arrays, labels, 4)[0]
    liar = dataclasses.replace(segment, episode_id=other.manifest.episode_id)
    world.tables.insert(f"{TASKS[0]}/offline", [encode_segment(liar)])
    seen, num_skipped, reason = trained_on(world)
    assert not {episode.manifest.episode_id, other.manifest.episode_id} & seen
    assert num_skipped >= 1
    assert "its item says" in reason


def test_items_of_another_algorithm_that_teach_nothing_are_passed_over(world):
    world.algorithm = BehaviourCloning()
    world.fill()
    episode = corrected(50)
    index = world.store.put(episode)
    labels = label_all(episode.manifest, episode.arrays)
    segments = segments_of(episode.manifest, index, episode.arrays, labels, 4)
    world.tables.insert(f"{TASKS[0]}/online", [encode_segment(segment) for segment in segments])
    seen, num_skipped, reason = trained_on(world)
    assert episode.manifest.episode_id not in seen
    assert num_skipped >= 1
    assert "nothing teaches at frame" in reason


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (make_spec(32), "camera 'head' is 32x32 pixels, the policy wants 16x16"),
        (make_spec(16, ("chest",)), r"has none of the policy's cameras, only \['chest'\]"),
    ],
)
def test_episodes_of_another_robot_end_in_a_clear_error(world, spec, message):
    for task in TASKS:
        world.add(demonstration(1, task, spec=spec))
    loader = world.loader()
    with pytest.raises(BatchStarvedError, match=message):
        loader.next()
    loader.stop()


def at_rate(episode, control_hz: float):
    return dataclasses.replace(episode, manifest=dataclasses.replace(episode.manifest, control_hz=control_hz))


def test_episodes_of_another_rate_are_passed_over_and_told(world):
    world.fill()
    slow, video = at_rate(demonstration(50), 10.0), at_rate(demonstration(51), 29.97)
    world.add(slow, video)
    seen, num_skipped, reason = trained_on(world, 20)
    assert slow.manifest.episode_id not in seen
    assert video.manifest.episode_id in seen
    assert num_skipped >= 1
    assert f"{slow.manifest.episode_id} was recorded at 10 Hz, the policy is played at 30 Hz" in reason


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


@pytest.mark.usefixtures("either")
def test_a_waiting_loader_stops_promptly_and_says_so(store_url):
    world = World(store_url, clock=WallClock())
    loader = world.loader(THREADED, picker=dataclasses.replace(PICKER, starved_after_s=60.0))
    loader.start()
    time.sleep(0.05)
    started = time.monotonic()
    loader.stop()
    loader.stop()
    assert time.monotonic() - started < 2
    with pytest.raises(BatchSourceStoppedError):
        loader.next()


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_no_more_batches_than_asked_for_are_under_way(store_url, ahead):
    world = World(store_url, clock=WallClock()).fill()
    loader = world.loader(THREADED, prefetch_batches=ahead)
    plans, plan = [], loader.sampler.plan
    loader.sampler.plan = lambda *args: plans.append(args) or plan(*args)
    loader.start()
    for taken in range(3):
        deadline = time.monotonic() + 10
        while len(plans) < taken + ahead and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(plans) == taken + ahead
        loader.next()
    loader.stop()


@pytest.mark.usefixtures("overlapping")
def test_the_next_batch_is_read_while_this_one_is_decoded(world, monkeypatch):
    class Watched:
        def __init__(self):
            self.reads = threading.Semaphore(0)

        def read_arrays(self, path, arrays_range):
            return world.store.read_arrays(path, arrays_range)

        def read_images(self, requests):
            self.reads.release()
            return world.store.read_images(requests)

    def decode_late(*args):
        if first.acquire(blocking=False):
            overlapped.append(world.reader.reads.acquire(timeout=10) and world.reader.reads.acquire(timeout=10))
        decode_into(*args)

    first, overlapped = threading.Lock(), []
    world.fill().reader = Watched()
    monkeypatch.setattr(image_cache, "decode_into", decode_late)
    loader = world.loader(THREADED, pixel_cache_bytes=0)
    loader.next()
    loader.stop()
    assert overlapped == [True]


@pytest.mark.usefixtures("either")
def test_a_batch_is_handed_out_while_the_next_one_waits_for_data(store_url):
    world = World(store_url, clock=WallClock()).fill()
    world.sampler_config = SamplerConfig(mode="fixed", fixed_online_share=0.0)
    loader = world.loader(THREADED, picker=dataclasses.replace(PICKER, ahead=0.0, starved_after_s=60.0))
    plans, plan, sample = [], loader.sampler.plan, world.tables.sample

    def sample_for_the_first_batch(*args):
        if len(plans) > 1:
            raise RateLimitedError("dry")
        return sample(*args)

    loader.sampler.plan = lambda *args: plans.append(args) or plan(*args)
    world.tables.sample = sample_for_the_first_batch
    started = time.monotonic()
    loader.next()
    loader.stop()
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("overlapping")
def test_a_batch_with_broken_images_is_drawn_again_while_the_next_one_waits_for_data(store_url, monkeypatch):
    world = World(store_url, clock=WallClock()).fill()
    world.sampler_config = SamplerConfig(mode="fixed", fixed_online_share=0.0)
    loader = world.loader(THREADED, picker=dataclasses.replace(PICKER, ahead=0.0, starved_after_s=120.0))
    plans, plan, sample, next_waits, broken = [], loader.sampler.plan, world.tables.sample, threading.Event(), []

    def sample_one_task_for_the_next_batch(table, *args):
        if len(plans) > 1 and table.startswith(TASKS[1]):
            next_waits.set()
            raise RateLimitedError("dry")
        return sample(table, *args)

    def break_the_first(into, jpegs, cameras, headers, path):
        if not broken and f"demo-{TASKS[0]}" in path:  # of the task that isn't dry
            broken.append(path)
            assert next_waits.wait(60)
            raise InvalidEpisodeError("broken JPEG")
        decode_into(into, jpegs, cameras, headers, path)

    loader.sampler.plan = lambda *args: plans.append(args) or plan(*args)
    world.tables.sample = sample_one_task_for_the_next_batch
    monkeypatch.setattr(image_cache, "decode_into", break_the_first)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        handed_out = pool.submit(loader.next)
        try:
            loaded = handed_out.result(timeout=60)
        finally:
            loader.stop()
    assert len(loaded.episode_ids) == 8
    assert loader.report().num_skipped >= 1


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("config", [INLINE, THREADED])
def test_after_starving_with_a_batch_half_read_it_goes_on_with_that_one(world, config):
    """No plan is left out: after a resume the numbers of the batches are what the learner has taken."""

    class Away:
        is_back = False

        def read_arrays(self, path, arrays_range):
            return world.store.read_arrays(path, arrays_range)

        def read_images(self, requests):
            if not self.is_back:
                raise OSError("no route to the store")
            return world.store.read_images(requests)

    healthy = world.fill().loader(INLINE)
    expected = [healthy.next().requested for _ in range(4)]
    healthy.stop()
    assert len(set(expected)) > 1
    world.reader = reader = Away()
    loader = world.loader(config)
    for _ in range(2):
        with pytest.raises(BatchStarvedError, match=r"batch 0: 8 of 8 examples couldn't be read.*no route"):
            loader.next()
    reader.is_back = True
    found = []
    while len(found) < 4:
        with contextlib.suppress(BatchStarvedError):  # one that was raised before the store came back
            found.append(loader.next().requested)
    loader.stop()
    assert found == expected


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("config", [INLINE, THREADED])
def test_whoever_waits_for_a_batch_may_be_told_to_stop(store_url, config):
    world = World(store_url, clock=WallClock())
    loader = world.loader(config, picker=dataclasses.replace(PICKER, starved_after_s=600.0))
    asked = []
    with pytest.raises(BatchStarvedError, match="told to stop"):
        loader.next(lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3
    world.fill()
    assert len(loader.next().episode_ids) == 8  # and nothing is lost
    loader.stop()
    with pytest.raises(BatchSourceStoppedError):
        loader.next(lambda: True)


@pytest.mark.usefixtures("either")
def test_the_threads_error_reaches_the_learner(world):
    loader = world.loader(THREADED)
    for _ in range(2):
        with pytest.raises(BatchStarvedError, match="Is intake running"):
            loader.next()
    loader.stop()


@pytest.mark.usefixtures("either")
def test_after_starving_it_goes_on_when_data_come(world):
    loader = world.loader(THREADED)
    for _ in range(2):
        with pytest.raises(BatchStarvedError, match="Is intake running"):
            loader.next()
    world.fill()
    deadline = time.monotonic() + 30
    while True:
        try:
            loaded = loader.next()
            break
        except BatchStarvedError:  # one that was raised before the data came
            assert time.monotonic() < deadline
    assert len(loaded.episode_ids) == 8
    loader.stop()


def test_waiting_is_measured_by_the_clock(world):
    class Slow:
        def read_arrays(self, path, arrays_range):
            return world.store.read_arrays(path, arrays_range)

        def read_images(self, requests):
            world.clock.advance_s(1.0)
            return world.store.read_images(requests)

    world.fill().reader = Slow()
    loader = world.loader(pixel_cache_bytes=0)
    assert loader.wait_share() == 0.0
    assert loader.next().wait_s == 1.0
    world.clock.advance_s(3.0)
    assert loader.next().wait_s == 1.0
    loader.stop()
    assert loader.wait_share() == pytest.approx(2 / 5)


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

"""What can't be trained on: passed over, counted, told, and never in a batch."""

import dataclasses
import pathlib

import pytest

from sop_jax.algorithms.behaviour_cloning import BehaviourCloning
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.algorithms.recap.recap import Recap
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.synthetic import make_spec
from sop_jax.replay.items import encode_segment, label_all, segments_of
from sop_jax.sampling.batch_source import BatchStarvedError
from sop_jax.specs.errors import UnlabelledEpisodeError
from sop_jax.specs.records import Episode
from tests.sampling.conftest import (
    INLINE,
    MAX_WORDS,
    TASKS,
    THREADED,
    World,
    assert_example_is_true,
    corrected,
    demonstration,
    trained_on,
)


def break_object(world: World, episode: Episode, change) -> None:
    path = pathlib.Path(world.store.url.removeprefix("file://")) / episode_path(episode.manifest.episode_id)
    path.write_bytes(change(path.read_bytes()))


def remove_object(world: World, episode: Episode) -> None:
    (pathlib.Path(world.store.url.removeprefix("file://")) / episode_path(episode.manifest.episode_id)).unlink()


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

"""Batches made ahead: how many, in which order, and what whoever waits for one is told."""

import concurrent.futures
import contextlib
import dataclasses
import threading
import time

import pytest

from sop_jax.episodes.images import decode_into
from sop_jax.sampling import image_cache
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.batch_source import BatchSourceStoppedError, BatchStarvedError
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import InvalidEpisodeError, RateLimitedError
from tests.sampling.conftest import (
    INLINE,
    PICKER,
    TASKS,
    THREADED,
    World,
)


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

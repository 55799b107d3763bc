import threading
import time

import numpy as np
import pytest

from sop_jax.actors import weights_feed
from sop_jax.actors.weights_feed import BackgroundFeed, InlineFeed
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Publication
from sop_jax.weights.follower import Follower, PublicationRemovedError
from sop_jax.weights.publisher import Publisher

TEMPLATE = {"head": {"kernel": np.zeros((2, 3), np.float32)}}


def params(value):
    return {"head": {"kernel": np.full((2, 3), value, np.float32)}}


class FakeSource:
    """A follower whose answers are set by the test."""

    def __init__(self):
        self.publication: Publication | None = None
        self.away: Exception | None = None
        self.broken: dict[int, Exception] = {}
        self.loaded: list[int] = []

    def publish(self, version):
        self.publication = Publication(version, 25 * version, "base", "norm", 10**9 * version, {})

    def latest(self):
        if self.away is not None:
            raise self.away
        return self.publication

    def load(self, publication, template):
        assert template is TEMPLATE
        self.loaded.append(publication.version)
        if publication.version in self.broken:
            raise self.broken[publication.version]
        return params(publication.version)


@pytest.fixture
def source():
    return FakeSource()


@pytest.fixture
def metrics():
    return MemoryMetrics()


@pytest.fixture
def feed(source, metrics):
    return InlineFeed(source, TEMPLATE, metrics)


def test_nothing_published_yet(feed, source):
    assert feed.take(0) is None
    assert source.loaded == []


def test_only_what_is_newer_is_downloaded(feed, source):
    source.publish(3)
    loaded = feed.take(2)
    assert loaded is not None
    assert (loaded.publication.version, float(loaded.params["head"]["kernel"][0, 0])) == (3, 3.0)
    assert feed.take(3) is None
    assert feed.take(7) is None
    assert source.loaded == [3]


def test_a_refused_publication_is_reported_once_and_left_alone(feed, source, metrics):
    source.publish(3)
    source.broken[3] = InvalidPublicationError("publication 3 is torn")
    assert [feed.take(0) for _ in range(3)] == [None] * 3
    assert source.loaded == [3]
    assert feed.num_refused == 1
    assert metrics.events == [
        {"event": "publication_refused", "version": 3, "reason": "InvalidPublicationError: publication 3 is torn"}
    ]
    source.publish(4)
    loaded = feed.take(0)
    assert loaded is not None
    assert loaded.publication.version == 4


def test_a_publication_that_retention_removed_meanwhile_is_not_refused(feed, source, metrics):
    source.publish(3)
    source.broken[3] = PublicationRemovedError("gone")
    assert feed.take(0) is None
    del source.broken[3]
    assert feed.take(0) is not None
    assert (feed.num_refused, metrics.events) == (0, [])


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), ValueError("UNAVAILABLE"), InvalidPublicationError("pointer")]
)
def test_a_store_that_is_away_costs_nothing_but_a_line(feed, source, metrics, error):
    source.publish(3)
    source.away = error
    assert feed.take(0) is None
    assert [event["event"] for event in metrics.events] == ["weights_unavailable"]
    source.away = None
    assert feed.take(0) is not None


def test_with_the_real_follower(tmp_path, metrics):
    publisher = Publisher(tmp_path, "base", "norm", ManualClock(5))
    follower = Follower(tmp_path, "base", "norm")
    feed = InlineFeed(follower, TEMPLATE, metrics)
    assert feed.take(0) is None
    publisher.publish(params(1.5), learner_step=25)
    loaded = feed.take(0)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.params["head"]["kernel"], params(1.5)["head"]["kernel"])
    other = InlineFeed(Follower(tmp_path, "another base", "norm"), TEMPLATE, metrics)
    assert other.take(0) is None
    assert (other.num_refused, metrics.events[-1]["event"]) == (1, "publication_refused")


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_in_the_background_the_robot_never_waits_for_a_download(feed, source):
    slow = threading.Event()
    load = source.load
    source.load = lambda *call: (slow.wait(10), load(*call))[1]
    source.publish(1)
    background = BackgroundFeed(feed, WallClock(), first_version=0, poll_s=0.01)
    assert background.take(0) is None
    slow.set()
    wait_until(lambda: source.loaded == [1] and background._waiting is not None)
    loaded = background.take(0)
    assert loaded is not None
    assert loaded.publication.version == 1
    assert background.take(1) is None
    source.publish(2)
    wait_until(lambda: background._waiting is not None)
    loaded = background.take(1)
    assert loaded is not None
    assert loaded.publication.version == 2
    background.close()
    assert source.loaded == [1, 2]


def test_the_background_polls_by_the_clock(feed, source):
    clock = ManualClock()
    background = BackgroundFeed(feed, clock, first_version=0, poll_s=5.0)
    time.sleep(0.05)
    source.publish(1)
    time.sleep(0.3)
    assert source.loaded == []
    clock.advance_s(5.0)
    wait_until(lambda: source.loaded == [1])
    background.close()


@pytest.mark.timeout(60)
def test_a_store_that_hangs_keeps_nobody_from_closing(feed, source, monkeypatch):
    monkeypatch.setattr(weights_feed, "_CLOSE_S", 0.2)
    asked, go_on = threading.Event(), threading.Event()
    source.latest = lambda: (asked.set(), go_on.wait())[0]
    background = BackgroundFeed(feed, WallClock(), first_version=0)
    assert asked.wait(10)
    background.close()
    assert background._thread.is_alive()
    go_on.set()
    background._thread.join(10)
    assert not background._thread.is_alive()

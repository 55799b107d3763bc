"""Old versions go only when no robot can be reading them; rollbacks are publications too."""

import os
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from tiny_weights import BASE, NORM, make_params, version_directory

from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError, InvalidPublicationError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.weights import management
from sop_jax.weights.follower import Follower, PublicationRemovedError
from sop_jax.weights.publisher import Publisher, RetentionConfig
from sop_jax.weights.weight_store import WeightStore


def versions(store_url) -> list[int]:
    return [publication.version for publication in management.list_publications(store_url)]


def test_a_version_stays_until_it_was_superseded_for_the_grace_period(store_url, publisher, clock):
    publisher.publish(make_params(1), 1)
    clock.advance_s(3600.0)  # an hour as the latest; robots may start on it at any time
    for step in range(2, 7):
        publisher.publish(make_params(step), step)
    assert versions(store_url) == [1, 2, 3, 4, 5, 6]
    clock.advance_s(9.9)
    publisher.publish(make_params(7), 7)
    assert versions(store_url) == [1, 2, 3, 4, 5, 6, 7]
    clock.advance_s(0.2)
    publisher.publish(make_params(8), 8)
    assert versions(store_url) == [6, 7, 8]  # keep_last = 3
    assert not version_directory(store_url, 1).exists()


def test_pinned_versions_stay(store_url, publisher, clock):
    for step in range(1, 4):
        publisher.publish(make_params(step), step)
        clock.advance_s(100)
    management.pin(store_url, 2)
    for step in range(4, 8):
        publisher.publish(make_params(step), step)
        clock.advance_s(100)
    assert versions(store_url) == [2, 5, 6, 7]
    management.unpin(store_url, 2)
    publisher.publish(make_params(8), 8)
    assert versions(store_url) == [6, 7, 8]
    with pytest.raises(InvalidPublicationError, match=r"no publication 2 in .*\[6, 7, 8\]"):
        management.pin(store_url, 2)


def test_rests_of_killed_publications_are_collected(store_url, publisher, clock):
    publisher.publish(make_params(1), 1)
    rest = version_directory(store_url, 1) / "params-dead" / "d"
    rest.mkdir(parents=True)
    (rest / "x.__lock").write_bytes(b"half")
    for step in range(2, 6):
        clock.advance_s(100)
        publisher.publish(make_params(step), step)
    assert sorted(path.name for path in rest.parents[2].iterdir()) == [
        "00000003",
        "00000004",
        "00000005",
        "latest.json",
    ]


def test_retention_survives_a_damaged_manifest(store_url, publisher, clock):
    for step in range(1, 7):
        publisher.publish(make_params(step), step)
        if step == 2:
            (version_directory(store_url, 2) / "manifest.json").write_text("{")
        clock.advance_s(100)
    assert versions(store_url) == [4, 5, 6]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("remove", PermissionError(13, "Permission denied")),
        ("numbered_directories", ValueError("PERMISSION_DENIED: s3:ListBucket")),
        ("pinned_versions", InvalidPublicationError("no pins")),
    ],
)
def test_a_publication_is_out_even_if_old_ones_cant_be_removed(store_url, clock, monkeypatch, call, error):
    """Of a learner without the right to delete, say: robots act on it, whatever happens to the others."""

    def refuse(*args):
        raise error

    metrics = MemoryMetrics()
    publisher = Publisher(store_url, BASE, NORM, clock, RetentionConfig(keep_last=3, clean_every=5), metrics)
    with monkeypatch.context() as context:
        context.setattr(WeightStore, call, refuse)
        for step in range(1, 6):
            assert publisher.publish(make_params(step), step).version == publisher.last_version == step
            clock.advance_s(1000)
    assert management.current_version(store_url) == 5
    (event,) = metrics.events
    assert event == {"event": "clean_up_failed", "version": 5, "reason": f"{type(error).__name__}: {error}"}
    for step in range(6, 11):
        publisher.publish(make_params(step), step)
    assert versions(store_url)[-1] == 10
    assert 1 not in versions(store_url)  # the next time it is done
    assert len(metrics.events) == 1


def test_rollback_is_a_new_publication_that_points_back(store_url, publisher, clock):
    for step in (10, 20, 30):
        publisher.publish(make_params(step), step)
    clock.advance_s(5)
    restored = management.rollback(store_url, 1, clock)
    assert (restored.version, restored.restores, restored.learner_step) == (4, 1, 10)
    assert restored.created_ns == clock.now_ns()
    follower = Follower(store_url, BASE, NORM)
    assert follower.latest() == restored
    loaded = follower.load(restored, make_params(0))
    jax.tree.map(np.testing.assert_array_equal, loaded, make_params(10))
    assert publisher.publish(make_params(40), 40).version == 5  # it learned of version 4 by itself
    for step in (50, 60, 70):
        clock.advance_s(100)
        publisher.publish(make_params(step), step)
    assert versions(store_url) == [1, 6, 7, 8]  # the target stays pinned


def test_rollback_to_a_damaged_or_missing_version_changes_nothing(store_url, publisher, clock):
    made = publisher.publish(make_params(1), 1)
    publisher.publish(make_params(2), 2)
    name = sorted(made.files)[0]
    (version_directory(store_url, 1) / name).write_bytes(b"")
    with pytest.raises(InvalidPublicationError, match="publication 1 is torn"):
        management.rollback(store_url, 1, clock)
    with pytest.raises(InvalidPublicationError, match="no publication 9"):
        management.rollback(store_url, 9, clock)
    assert management.current_version(store_url) == 2


def test_loading_a_removed_version_says_so_and_the_latest_is_tried_instead(store_url, publisher, monkeypatch):
    publisher.publish(make_params(1), 1)
    old = publisher.publish(make_params(2), 2)
    follower = Follower(store_url, BASE, NORM)
    publisher.publish(make_params(3), 3)
    WeightStore(store_url).remove(2)
    with pytest.raises(PublicationRemovedError):
        follower.load(old, make_params(0))
    answers = iter([old])
    latest = Follower.latest
    monkeypatch.setattr(Follower, "latest", lambda self: next(answers, None) or latest(self))
    loaded = follower.load_latest(make_params(0), newer_than=1)
    assert loaded.publication.version == 3


def test_readers_never_fail_while_versions_come_and_go(store_url):
    """Two readers load as fast as they can while a publisher keeps only three versions and a short grace period."""
    publisher = Publisher(store_url, BASE, NORM, WallClock(), RetentionConfig(keep_last=3, grace_s=1.0, clean_every=1))
    publisher.publish(make_params(0), 0)
    done, failures, loads = threading.Event(), [], []

    def read() -> None:
        follower = Follower(store_url, BASE, NORM)
        version = 0
        while not done.is_set():
            try:
                loaded = follower.load_latest(make_params(0), newer_than=version)
            except InvalidPublicationError as error:
                failures.append(error)
                return
            if loaded is not None:
                assert loaded.publication.version > version
                version = loaded.publication.version
                assert float(loaded.params["scale"]) == loaded.publication.learner_step
                loads.append(version)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 3.0
    step = 0
    while time.monotonic() < deadline:
        step += 1
        publisher.publish(make_params(step), step)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(loads) > 3
    assert len(versions(store_url)) < step + 1  # something was removed meanwhile


KILLED_PUBLISHER = """
import sys
from sop_jax.specs.clock import WallClock
from sop_jax.weights.publisher import Publisher
from tiny_weights import BASE, NORM, make_params
publisher = Publisher(sys.argv[1], BASE, NORM, WallClock())
step = 0
print("started", flush=True)
while True:
    step += 1
    publisher.publish(make_params(step), step)
"""


def assert_whole(store_url) -> int:
    """Everything listed verifies, and the latest loads; returns its version (0 if none)."""
    listed = management.list_publications(store_url)
    assert [publication.version for publication in listed] == list(range(1, len(listed) + 1))
    for publication in listed:
        management.verify(store_url, publication.version)
    follower = Follower(store_url, BASE, NORM)
    latest = follower.latest()
    if latest is None:
        return 0
    assert float(follower.load(latest, make_params(0))["scale"]) == latest.learner_step
    return latest.version


def test_kill_during_publish_leaves_whole_publications_only(store_url):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_PUBLISHER, store_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout.readline() == b"started\n"
        follower = Follower(store_url, BASE, NORM)
        while follower.latest() is None:
            time.sleep(0.01)
        time.sleep(0.05)  # somewhere inside one of the next
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    version = assert_whole(store_url)
    assert version >= 1
    restarted = Publisher(store_url, BASE, NORM, WallClock())
    restarted.publish(make_params(1000), 1000)
    assert assert_whole(store_url) in (version + 1, version + 2)  # + 2 if killed between manifest and pointer


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize(
    ("step", "seen_after", "next_version"),
    [("write_directory", 1, 2), ("commit", 1, 2), ("advance_pointer", 1, 3), ("committed_versions", 2, 3)],
)
def test_death_before_each_step_of_publishing(store_url, publisher, clock, monkeypatch, step, seen_after, next_version):
    """What robots see afterwards, and the number that the restarted learner takes."""
    publisher.publish(make_params(1), 1)

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WeightStore, step, die)
        with pytest.raises(Killed):
            publisher.publish(make_params(2), 2)
    assert assert_whole(store_url) == seen_after
    restarted = Publisher(store_url, BASE, NORM, clock)
    assert restarted.publish(make_params(3), 3).version == next_version
    assert assert_whole(store_url) == next_version


def test_two_publishers_never_share_a_number(store_url, publisher, clock):
    """A zombie of the old learner may still be there: numbers stay unique and both keep rising."""
    other = Publisher(store_url, BASE, NORM, clock)
    made = [(publisher if i % 3 else other).publish(make_params(i), i).version for i in range(6)]
    assert made == [1, 2, 3, 4, 5, 6]
    assert assert_whole(store_url) == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [({"keep_last": 2}, "at least 3"), ({"grace_s": -1.0}, ">= 0"), ({"clean_every": 0}, "least 1")],
)
def test_retention_config_is_validated(values, message):
    with pytest.raises(ConfigError, match=message):
        RetentionConfig(**values)

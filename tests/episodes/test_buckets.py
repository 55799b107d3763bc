"""Stores in a bucket: all that the data plane does with s3:// and gs://, against local servers.

They show the API, not a bucket's speed; for s3:// as moto understands it, for gs:// as Google's reference describes it.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator

import gcs_server as gcs_server_module
import numpy as np
import pytest
from episode_strategies import assert_equal, small_spec
from gcs_server import gcs_server
from s3_server import s3_server, store_spec

from sop_jax.actors.spool import Spool
from sop_jax.episodes import retirement
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.repair import Kind, Repair, find_problems, quarantine_bad, restore_from_spool
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.verify import verify_bytes
from sop_jax.replay.intake import Intake
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import EpisodeExistsError, EpisodeNotFoundError
from sop_jax.specs.records import Publication
from sop_jax.weights.follower import Follower
from sop_jax.weights.publisher import Publisher
from sop_jax.weights.weight_store import WeightStore

NOW_NS = 10**17
PREFIXES = (f"run-{number}" for number in itertools.count())


def tiny(count, **changes):
    return make_episode(count, num_frames=6, spec=small_spec, task="pick", **changes)


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket(request, tmp_path_factory) -> Iterator[Callable[[str], str]]:
    """Prefix -> a store root in the bucket."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as servers:
        if request.param == "gs":
            for name, value in servers.enter_context(gcs_server()).items():
                patch.setitem(os.environ, name, value)
            yield lambda prefix: f"gs://{gcs_server_module.BUCKET}/{prefix}/"
            return
        # Credentials that open nothing: the server takes any, and TensorStore wants some.
        patch.setitem(os.environ, "AWS_ACCESS_KEY_ID", "nobody")
        patch.setitem(os.environ, "AWS_SECRET_ACCESS_KEY", "nothing")
        endpoint = servers.enter_context(s3_server(str(tmp_path_factory.mktemp("s3") / "server.log")))
        yield functools.partial(store_spec, endpoint)


@pytest.fixture
def spec(bucket) -> str:
    return bucket(next(PREFIXES))


@pytest.fixture
def store(spec) -> EpisodeStore:
    return EpisodeStore(spec, clock=ManualClock(NOW_NS))


def test_put_list_and_read(store):
    episode = tiny(1)
    index = store.put(episode)
    store.put(episode)
    assert store.list_paths() == store.list_paths("robot-0") == [index.path]
    assert verify_bytes(store.read_bytes(index.path), index.path).manifest == episode.manifest
    assert_equal(store.read(index.path), episode)
    assert store.read_arrays(index.path, index.arrays_range)[0] == episode.manifest
    assert store.read_images([(index.path, frame) for frame in index.image_ranges]) == list(episode.jpegs)
    assert store.read_without_images(index.path).manifest == episode.manifest
    (summary,) = store.summaries()
    assert (summary.size, summary.problem) == (index.size, "")


def test_an_id_is_written_once_and_what_is_missing_is_told(store):
    store.put(tiny(1))
    with pytest.raises(EpisodeExistsError):
        store.put(tiny(1, policy_version=2))
    missing = episode_path("robot-0.00000000001000000000.000099")
    with pytest.raises(EpisodeNotFoundError, match=r"is not in the (s3|gcs) store"):
        store.read_bytes(missing)
    with pytest.raises(EpisodeNotFoundError):
        store.read_without_images(missing)


def test_quarantine_repair_and_intake(store, spec, tmp_path):
    good, bad = (store.put(tiny(count)).path for count in (1, 2))
    whole = store.read_bytes(bad)
    store.root.write(bad, whole[:-1]).result()
    tables = LocalTables(mix_tables(["pick"]))
    intake = Intake(store, tables, label_all, clock=ManualClock(NOW_NS))
    report = intake.poll()
    assert (report.inserted, report.quarantined) == (1, 1)
    (finding,) = find_problems(store)
    assert (finding.path, finding.kind, finding.set_aside) == (bad, Kind.CORRUPT, True)
    assert quarantine_bad(store, [finding]) == []
    (tmp_path / bad.rpartition("/")[2]).write_bytes(whole)
    assert restore_from_spool(store, [finding], tmp_path) == [Repair(bad, "restored")]
    assert list(store.root.list().result()) == [key.encode() for key in (good, bad)]  # no record, no mark
    assert (list(find_problems(store)), store.quarantined()) == ([], {})
    assert intake.poll().inserted == 1
    assert store.list_paths() == [good, bad]


def test_retention(store):
    clock = ManualClock(NOW_NS)
    paths = [store.put(tiny(count)).path for count in (1, 2)]
    tables = LocalTables(mix_tables(["pick"]))
    intake = Intake(store, tables, label_all, clock=clock)
    intake.poll()
    config = RetentionConfig(max_bytes=0)
    apply_plan(store, plan_for(store, clock, config))
    assert intake.poll() == IntakeReport(removed=2)
    assert tables.info()["pick/online"].size == 0
    assert store.list_paths() == paths
    clock.advance_s(3600)
    apply_plan(store, plan_for(store, clock, config))
    assert (store.list_paths(), retirement.retired_paths(store)) == ([], paths)


def test_a_spool_uploads_into_the_bucket(store, tmp_path):
    spool = Spool(tmp_path / "spool", store, ManualClock(), background=False)
    for count in (1, 2):
        spool.accept(tiny(count))
    assert spool.drain(10.0)
    spool.close()
    assert len(store.list_paths()) == 2


def test_publications(spec, tmp_path):
    weights = WeightStore(spec)
    assert weights.read_pointer() is None
    (tmp_path / "leaf").write_bytes(b"numbers")
    files = weights.write_directory(1, "params-1a2b3c4d", tmp_path)
    publication = Publication(1, 25, "base", "norm", NOW_NS, files, None)
    assert weights.commit(publication)
    assert weights.commit(publication)  # the answer to the first may have been lost
    assert not weights.commit(dataclasses.replace(publication, learner_step=50))  # somebody else's number
    weights.advance_pointer(1)
    pointer = weights.read_pointer()
    assert pointer is not None
    assert pointer.version == 1
    assert weights.read_pointer(pointer) is pointer  # a conditional read: unchanged
    assert weights.read_manifest(1) == publication
    assert weights.read_file(1, "params-1a2b3c4d/leaf") == b"numbers"
    weights.set_pin(1, True)
    assert (weights.committed_versions(), weights.pinned_versions()) == ([1], {1})
    weights.remove(1)
    assert weights.committed_versions() == []


def test_a_robot_follows_what_the_learner_publishes(spec):
    publisher = Publisher(spec, "base", "norm", ManualClock(NOW_NS))
    follower = Follower(spec, "base", "norm")
    for version in (1, 2):
        published = publisher.publish({"gain": np.full(3, float(version), np.float32)}, learner_step=25 * version)
        seen = follower.latest()
        assert seen == published
        assert seen is not None
        loaded = follower.load(seen, {"gain": np.zeros(3, np.float32)})
        np.testing.assert_array_equal(loaded["gain"], np.full(3, float(version)))

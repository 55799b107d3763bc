"""Intake: the tables are a pure function of the store, whatever goes wrong on the way."""

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.replay.intake import IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import FrameLabels, decode_segment
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, RateLimiterConfig, Sampler, TableConfig, mix_tables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import NO_POLICY, Source
from tests.replay.intake_parts import (
    DUMP,
    OFFLINE,
    ONLINE,
    TASK,
    FlakyStore,
    FlakyTables,
    drain,
    episode,
    make_intake,
)


def test_an_episode_becomes_segments_in_its_table(store):
    online = episode(1, takeovers=((3, 3, 6),), policy_version=7)
    demonstration = episode(2, source=Source.OFFLINE, policy_version=NO_POLICY)
    index = store.put(online)
    store.put(demonstration)
    tables = LocalTables(DUMP)
    intake = make_intake(store, tables)
    assert intake.poll() == IntakeReport(inserted=2, num_items=4)
    first, second = drain(tables, ONLINE)  # images on frames 0, 3, 6; 2 frames to a segment
    assert (first.frames.tolist(), second.frames.tolist()) == ([0, 3], [6])
    assert first.intervention.tolist() == [False, True]
    assert (first.path, first.policy_version, first.task) == (index.path, 7, TASK)
    np.testing.assert_array_equal(second.image_ranges, index.image_ranges[2:])
    (jpegs,) = store.read_images([(second.path, second.image_ranges[0])])
    assert jpegs == online.jpegs[2]
    assert [s.episode_id for s in drain(tables, OFFLINE)] == [demonstration.manifest.episode_id] * 2
    assert intake.poll() == IntakeReport()


def test_the_labeler_chooses_frames_and_labels(store):
    store.put(episode(1))
    store.put(episode(2))

    def labeler(manifest, arrays, images):
        keep = np.arange(arrays.num_frames) == (3 if manifest.episode_id.endswith("1") else -1)
        return FrameLabels(keep, np.full(arrays.num_frames, 0.25, np.float32))

    tables = LocalTables(DUMP)
    assert make_intake(store, tables, labeler).poll() == IntakeReport(inserted=1, num_items=1, empty=1)
    (segment,) = drain(tables, ONLINE)
    assert (segment.frames.tolist(), segment.label.tolist()) == ([3], [0.25])


def test_a_read_that_fails_is_tried_again_and_blames_nobody(store):
    paths = [store.put(episode(seed)).path for seed in (1, 2)]
    store.failing = {paths[0]}
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, unreadable=1)
    assert store.quarantined() == {}
    assert "connection reset" in str([e["reason"] for e in metrics.events if e["event"] == "unreadable_episode"])
    store.failing = {"list"}
    assert intake.poll() == IntakeReport()
    store.failing = set()
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)


def test_an_outage_loses_nothing(store):
    for seed in range(6):
        store.put(episode(seed))
    tables = FlakyTables(DUMP)
    tables.away_after_inserts = 2
    intake = make_intake(store, tables, config=IntakeConfig(segment_length=2, items_per_insert=1))
    assert intake.poll() == IntakeReport(inserted=2, num_items=4, pending=4)
    assert intake.poll() == IntakeReport(available=False)
    tables.away, tables.away_after_inserts = False, None
    assert intake.poll() == IntakeReport(inserted=4, num_items=8)
    assert len(drain(tables, ONLINE)) == 12
    assert intake.total == IntakeReport(inserted=6, num_items=12)


def test_a_held_back_insert_waits_for_the_next_look(store):
    for seed in range(4):
        store.put(episode(seed))
    limiter = RateLimiterConfig(1, 1.0, 0.0, 4.0)
    tables = LocalTables([TableConfig(ONLINE, 100, Sampler.FIFO, limiter)], clock=ManualClock())
    intake = make_intake(store, tables, config=IntakeConfig(segment_length=2, items_per_insert=2))
    assert intake.poll() == IntakeReport(inserted=2, num_items=4, pending=2)
    assert len(tables.sample(ONLINE, 4)) == 4
    assert intake.poll() == IntakeReport(inserted=2, num_items=4)


def test_a_restarted_server_is_filled_again_the_same_way(store, tmp_path):
    for seed in range(5):
        store.put(episode(seed, started_ns=10_000_000_000 - seed * 1_000_000_000))
    broken = store.put(episode(9)).path
    (tmp_path / "store" / broken).write_bytes(b"")
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    intake.poll()
    before = drain(tables, ONLINE)
    num_full_reads, num_told = store.num_full_reads, [e["event"] for e in metrics.events].count("episode")
    tables.restart()
    assert intake.poll() == IntakeReport(inserted=5, num_items=10, rebuilt=True)
    after = drain(tables, ONLINE)
    assert [(s.episode_id, s.frames.tolist()) for s in after] == [(s.episode_id, s.frames.tolist()) for s in before]
    assert store.num_full_reads == num_full_reads  # verified once; now only manifest, index and arrays
    assert [e["event"] for e in metrics.events].count("episode") == num_told == 5


def test_oldest_first_whatever_robot_it_comes_from(store):
    ends = []
    for seed, (robot, started_s) in enumerate([("b-robot", 1), ("a-robot", 3), ("c-robot", 2), ("a-robot", 4)]):
        made = episode(seed, robot_id=robot, started_ns=started_s * 1_000_000_000)
        store.put(made)
        ends.append(made.manifest.ended_ns)
    tables = LocalTables([TableConfig(ONLINE, 4, Sampler.FIFO, max_times_sampled=1)])  # room for two episodes
    make_intake(store, tables).poll()
    assert [s.ended_ns for s in drain(tables, ONLINE)] == [ends[1], ends[1], ends[3], ends[3]]


@given(data=st.data())
@settings(max_examples=15)
def test_contents_depend_on_the_store_alone(tmp_path_factory, data):
    """Episodes that trickle in between looks, outages and restarts end up as one look at the whole store would have it."""
    store = FlakyStore(f"file://{tmp_path_factory.mktemp('store')}/")
    tables = FlakyTables(DUMP)
    intake = make_intake(store, tables, config=IntakeConfig(segment_length=2, items_per_insert=2, num_readers=1))
    sources = data.draw(st.lists(st.sampled_from([Source.ONLINE, Source.OFFLINE]), min_size=1, max_size=5))
    for seed, source in enumerate(sources):
        path = store.put(episode(seed, source=source, num_frames=data.draw(st.integers(1, 9)))).path
        trouble = data.draw(st.sampled_from(["", "", "unread", "away", "cut off", "restart"]))
        store.failing = {path} if trouble == "unread" else set()
        tables.away = trouble == "away"
        tables.away_after_inserts = tables.num_inserts + 1 if trouble == "cut off" else None
        if trouble == "restart":
            tables.restart()
        intake.poll()
    store.failing, tables.away, tables.away_after_inserts = set(), False, None
    intake.poll()
    assert intake.poll() == IntakeReport()
    fresh = LocalTables(DUMP)
    make_intake(store, fresh).poll()
    for table in (ONLINE, OFFLINE):
        got = sorted((s.episode_id, tuple(s.frames)) for s in drain(tables, table))
        expected = sorted((s.episode_id, tuple(s.frames)) for s in drain(fresh, table))
        assert got == expected
        assert len(set(got)) == len(got)


def test_run_polls_by_the_clock_until_told_to_stop(store):
    store.put(episode(1))
    clock = ManualClock()
    tables = LocalTables(mix_tables([TASK], MixConfig()))
    intake = make_intake(store, tables, clock=clock, config=IntakeConfig(poll_interval_s=2.0))
    looks = iter([False, False, False, False, False, True, True])
    intake.run(lambda: clock.now_ns() >= 6_000_000_000 or next(looks))
    assert tables.info()[ONLINE].size == 1
    assert clock.now_ns() == 6_000_000_000


def test_stopping_in_the_middle_loses_nothing(store):
    for seed in range(3):
        store.put(episode(seed))
    tables = LocalTables(DUMP)
    intake = make_intake(store, tables)
    stop = threading.Event()
    stop.set()
    assert intake.poll(stop.is_set).inserted == 0
    assert intake.poll() == IntakeReport(inserted=3, num_items=6)


@pytest.mark.parametrize("field", ["segment_length", "items_per_insert", "num_readers", "poll_interval_s"])
def test_bad_configs_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        IntakeConfig(**{field: 0})


def test_a_large_store_fills_the_tables_look_by_look_oldest_first(store):
    paths = [store.put(episode(seed, robot_id=f"robot-{seed % 3}", started_ns=seed * 10**9)).path for seed in range(7)]
    store.failing = {paths[0], paths[1]}  # what can't be read now holds up nobody
    tables = FlakyTables(DUMP)
    config = IntakeConfig(segment_length=2, num_readers=2, episodes_per_look=2)
    intake = make_intake(store, tables, config=config)
    assert intake.look() == IntakeReport(unreadable=2, backlog=5)
    assert intake.look() == IntakeReport(inserted=2, num_items=4, unreadable=2, backlog=3)
    store.failing = set()
    assert intake.look().inserted == 2
    assert [s.path for s in drain(tables, ONLINE)] == [path for n in (2, 3, 4, 5) for path in (paths[n], paths[n])]
    report = intake.poll()
    assert (report.inserted, report.backlog, report.goes_on) == (2, 0, False)
    report = intake.poll()  # what can't be read is tried again in the next round
    assert (report.inserted, report.backlog, report.goes_on) == (1, 0, False)
    assert [s.path for s in drain(tables, ONLINE)] == [path for n in (0, 6, 1) for path in (paths[n], paths[n])]
    assert store.num_full_reads == 7 + 2


def test_beside_full_tables_the_newest_come_first_and_nothing_comes_back(store):
    small = tuple(dataclasses.replace(table, max_size=6) for table in DUMP)  # three episodes
    config = IntakeConfig(segment_length=2, num_readers=2, episodes_per_look=2)
    tables = LocalTables(small)
    for seed in range(1, 7):
        store.put(episode(seed, started_ns=seed * 10**9))
        make_intake(store, tables, config=config).poll()
    before = tables.info()[ONLINE].num_inserted
    store.put(episode(7, started_ns=7 * 10**9))
    late = make_intake(store, tables, config=config)  # another process
    assert late.look() == IntakeReport(inserted=2, num_items=4, backlog=5)  # 7, and 6 that is there already
    assert tables.info()[ONLINE].num_inserted == before + 2
    late.poll()
    assert tables.info()[ONLINE].num_inserted == before + 2
    store.put(episode(8, started_ns=8 * 10**9))
    assert late.poll() == IntakeReport(inserted=1, num_items=2)
    found = [decode_segment(item.columns).episode_id[-1] for item in tables.sample(ONLINE, 6)]
    assert found == ["6", "6", "7", "7", "8", "8"]

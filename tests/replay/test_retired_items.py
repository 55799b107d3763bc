"""Retirement, removal and the tables: nobody samples an item whose object is gone. On both kinds of tables."""

import pathlib

import pytest

from sop_jax.episodes import retirement
from sop_jax.episodes.paths import quarantine_path, retired_path
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.retirement import RetirementRecord
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import decode_segment, label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import RateLimitedError, ReplayUnavailableError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Source

TABLE = "relabel/online"
SPEC = make_spec(image_size=16, camera_names=("head",))
START_NS = 10**15
CONFIG = IntakeConfig(segment_length=2, num_readers=1)


@pytest.fixture
def store(store_url):
    return EpisodeStore(store_url)


def put(store, count):
    return store.put(make_episode(count, num_frames=6, spec=SPEC, image_stride=2, task="relabel")).path


def make_intake(store, tables, metrics=None):
    return Intake(store, tables, label_all, CONFIG, ManualClock(START_NS), metrics)


def sampled_paths(tables):
    """The episodes that a sampler can meet now."""
    if tables.info()[TABLE].size == 0:
        return set()
    try:
        drawn = [item for _ in range(12) for item in tables.sample(TABLE, 8, timeout_s=5.0)]
    except RateLimitedError:
        return set()
    return {decode_segment(item.columns).path for item in drawn}


def record_of(path, **changes):
    fields = {
        "task": "relabel",
        "source": Source.ONLINE,
        "num_frames": 6,
        "num_bytes": 1,
        "reason": "",
        "retired_ns": 0,
    }
    return RetirementRecord(path=path, **{**fields, **changes})


def test_items_leave_the_tables_before_objects_leave_the_store(store, tables):
    clock = ManualClock(START_NS)
    old, young = put(store, 1), put(store, 2)
    size = store.summaries()[0].size
    intake = make_intake(store, tables)
    assert intake.poll() == IntakeReport(inserted=2, num_items=4)
    config = RetentionConfig(max_bytes=size + size // 2)

    apply_plan(store, plan_for(store, clock, config))
    assert sampled_paths(tables) <= set(store.list_paths()) == {old, young}  # retired, still whole
    assert intake.poll() == IntakeReport(removed=1)
    assert (sampled_paths(tables), tables.info()[TABLE].size) == ({young}, 2)
    assert store.list_paths() == [old, young]  # nobody can draw it any more, and it is still there

    clock.advance_s(config.grace_s)
    apply_plan(store, plan_for(store, clock, config))
    assert (store.list_paths(), sampled_paths(tables)) == ([young], {young})
    assert intake.poll() == IntakeReport()


def test_a_rebuild_does_not_bring_the_retired_back(store, tables):
    old, young = put(store, 1), put(store, 2)
    make_intake(store, tables).poll()
    retirement.retire(store, record_of(old))
    tables.reset(TABLE)
    assert make_intake(store, tables).poll() == IntakeReport(inserted=1, num_items=2, removed=1)
    assert sampled_paths(tables) == {young}


def test_an_intake_that_starts_after_the_object_is_gone_still_takes_the_items_out(store, tables):
    old = put(store, 1)
    make_intake(store, tables).poll()
    retirement.retire(store, record_of(old))
    retirement.remove_object(store, old)
    assert tables.info()[TABLE].size == 2
    assert make_intake(store, tables).poll() == IntakeReport(removed=1)
    assert tables.info()[TABLE].size == 0


def test_a_damaged_record_holds_up_no_other_one(store, tables):
    paths = [put(store, count) for count in (1, 2, 3)]
    metrics = MemoryMetrics()
    intake = make_intake(store, tables, metrics)
    intake.poll()
    for path in paths[:2]:
        retirement.retire(store, record_of(path))
    store.root.write(retired_path(paths[0]), b"{").result()
    for _ in range(2):
        intake.poll()
        assert sampled_paths(tables) == {paths[0], paths[2]}
    problems = [event["problem"] for event in metrics.events if event["event"] == "intake"]
    assert any("retired episodes, or set aside: 1 records: retirement record" in problem for problem in problems)
    plan = plan_for(store, ManualClock(START_NS), RetentionConfig(max_bytes=0))
    assert [record.path for record in plan.retire] == paths[2:]
    assert "is damaged" in plan.damaged[0]
    retirement.retire(store, record_of(paths[2]))
    apply_plan(store, plan_for(store, ManualClock(START_NS), RetentionConfig(max_bytes=0)))
    assert store.list_paths()[0] == paths[0]


def test_a_late_second_upload_is_not_trained_on_again(store, tables):
    old = put(store, 1)
    intake = make_intake(store, tables)
    intake.poll()
    retirement.retire(store, record_of(old))
    intake.poll()
    retirement.remove_object(store, old)
    put(store, 1)
    assert intake.poll() == IntakeReport()
    assert make_intake(store, tables).poll().inserted == 0
    assert tables.info()[TABLE].size == 0


def test_an_intake_that_had_read_the_episode_before_it_was_retired(store):
    """It inserts what another intake has just taken out, and takes it out itself at its next look."""
    tables = LocalTables([TableConfig(TABLE, 100)])
    path = put(store, 1)
    first = make_intake(store, tables)
    plain_insert = tables.insert

    def overtaken(table, items, timeout_s=30.0):
        retirement.retire(store, record_of(path))
        assert make_intake(store, tables).poll().removed == 1
        plain_insert(table, items, timeout_s)

    tables.insert = overtaken
    assert first.poll().inserted == 1
    tables.insert = plain_insert
    assert tables.info()[TABLE].size == 2
    assert first.poll() == IntakeReport(removed=1)
    assert tables.info()[TABLE].size == 0


def test_a_retirement_that_is_taken_back_brings_the_items_back(store):
    tables = LocalTables([TableConfig(TABLE, 100)])
    path = put(store, 1)
    intake = make_intake(store, tables)
    intake.poll()
    retirement.retire(store, record_of(path))
    assert intake.poll().removed == 1
    retirement.forget(store, path)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)


def test_nothing_of_a_retired_episode_is_remembered(store):
    """One that comes back is told of like a new one: an intake that works for months must not keep every name."""
    tables, metrics = LocalTables([TableConfig(TABLE, 100)]), MemoryMetrics()
    path = put(store, 1)
    intake = make_intake(store, tables, metrics)
    intake.poll()
    tables.restart()
    intake.poll()  # the same episode in new tables: told of already
    assert sum(event["event"] == "episode" for event in metrics.events) == 1
    retirement.retire(store, record_of(path))
    intake.poll()
    retirement.forget(store, path)
    intake.poll()
    assert sum(event["event"] == "episode" for event in metrics.events) == 2


def test_tables_that_are_away_are_asked_again_and_others_are_taken_in(store, monkeypatch):
    tables = LocalTables([TableConfig(TABLE, 100)])
    path = put(store, 1)
    intake = make_intake(store, tables)
    intake.poll()
    retirement.retire(store, record_of(path))
    put(store, 2)

    def away(*args):
        raise ReplayUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "update_priorities", away)
        assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    assert intake.poll() == IntakeReport(removed=1)
    assert sampled_paths(tables) == set(store.list_paths()) - {path}


def test_a_task_whose_table_is_gone_holds_nobody_up(store):
    tables = LocalTables([TableConfig(TABLE, 100)])
    retirement.retire(store, record_of(put(store, 1), task="no_more"))
    assert make_intake(store, tables).poll() == IntakeReport(removed=1)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("readable", [False, True])
def test_items_of_an_episode_that_is_set_aside_later_leave(restarted, readable, store, store_url, tables):
    bad, good = put(store, 1), put(store, 2)
    intake = make_intake(store, tables)
    intake.poll()
    place = pathlib.Path(store_url.removeprefix("file://")) / bad
    whole = place.read_bytes()
    if not readable:
        place.write_bytes(b"rotten")
    store.quarantine(bad, "a bit has rotted")
    if restarted:  # another process, beside a server that has the items
        intake = make_intake(store, tables)
        assert intake.poll().inserted == 1
    else:
        assert intake.poll() == IntakeReport(removed=1)
    assert (sampled_paths(tables), tables.info()[TABLE].size) == ({good}, 2)
    assert intake.poll() == IntakeReport()
    # Set right again, it comes back.
    place.write_bytes(whole)
    store.root.write(quarantine_path(bad), None).result()
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    assert sampled_paths(tables) == {bad, good}

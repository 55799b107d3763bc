"""Intake: the tables are a pure function of the store, whatever goes wrong on the way."""

import dataclasses
import random
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.recap.recap import Recap
from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import quarantine_path
from sop_jax.episodes.repair import Kind, Repair, find_problems, take_back
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.episodes.verify import verify_bytes
from sop_jax.replay import episode_reader
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import FrameLabels, decode_segment, label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import MixConfig, RateLimiterConfig, Sampler, TableConfig, mix_tables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError, ReplayUnavailableError, UnlabelledEpisodeError
from sop_jax.specs.interfaces import ReplayTables
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import NO_POLICY, Episode, Outcome, Segment, Source
from tests.algorithms.value_cases import value_function

TASK = "restock_shelf"
ONLINE, OFFLINE = f"{TASK}/online", f"{TASK}/offline"
CONFIG = IntakeConfig(segment_length=2, num_readers=2)
SPEC = make_spec(image_size=16, camera_names=("head",))
DUMP = tuple(TableConfig(name, 1000, sampler=Sampler.FIFO, max_times_sampled=1) for name in (ONLINE, OFFLINE))


class FlakyTables(LocalTables):
    """In-process tables that are away when told to be, and note every insert."""

    away = False
    away_after_inserts: int | None = None
    num_inserts = 0

    def insert(self, table, items, timeout_s=30.0):
        self._check()
        super().insert(table, items, timeout_s)
        self.num_inserts += 1
        if self.num_inserts == self.away_after_inserts:
            self.away = True

    def state_id(self, timeout_s=30.0):
        self._check()
        return super().state_id(timeout_s)

    def _check(self) -> None:
        if self.away:
            raise ReplayUnavailableError("away")


class FlakyStore(EpisodeStore):
    """A store of which some reads, listings or writes fail."""

    def __init__(self, url: str):
        super().__init__(url, clock=ManualClock())
        self.failing: set[str] = set()
        self.num_full_reads = 0

    def list_paths(self, robot_id=None):
        if "list" in self.failing:
            raise OSError("listing failed")
        return super().list_paths(robot_id)

    def read_bytes(self, path):
        self.num_full_reads += 1
        if path in self.failing:
            raise ValueError("UNAVAILABLE: connection reset")
        return super().read_bytes(path)

    def quarantine(self, path, reason, *, size=None):
        if "quarantine" in self.failing:
            raise OSError("read-only")
        super().quarantine(path, reason, size=size)


@pytest.fixture
def store(store_url: str) -> FlakyStore:
    return FlakyStore(store_url)


def episode(seed: int, **options) -> Episode:
    options.setdefault("spec", SPEC)
    return make_episode(seed, **{"num_frames": 9, "image_stride": 3, "task": TASK, **options})


def make_intake(store: EpisodeStore, tables: ReplayTables, labeler=label_all, **options) -> Intake:
    options.setdefault("clock", ManualClock(start_ns=50_000_000_000))
    return Intake(store, tables, labeler, options.pop("config", CONFIG), **options)


def drain(tables: ReplayTables, table: str) -> list[Segment]:
    """All segments of a first-in-first-out table, oldest first; empties it."""
    num = tables.info()[table].size
    return [decode_segment(item.columns) for item in tables.sample(table, num)] if num else []


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


def test_an_episode_that_the_labeler_cant_judge_is_set_aside_and_the_rest_goes_on(store):
    strange, good = store.put(episode(1)).path, store.put(episode(2)).path

    def labeler(manifest, arrays, images):
        if manifest.episode_id.endswith("1"):
            raise ValueError("the batch's state has 7 dimensions, the normalisation statistics 16")
        return label_all(manifest, arrays, images)

    tables = LocalTables(DUMP)
    intake = make_intake(store, tables, labeler)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert {segment.path for segment in drain(tables, ONLINE)} == {good}
    assert "can't be labelled: the batch's state has 7 dimensions" in store.quarantined()[strange]


def test_a_verification_that_fails_itself_sets_aside_and_goes_on(store, monkeypatch):
    strange, good = store.put(episode(1)).path, store.put(episode(2)).path

    def verify(data, path, **options):
        if path == strange:
            raise struct.error("ushort format requires 0 <= number <= 65535")
        return verify_bytes(data, path, **options)

    monkeypatch.setattr(episode_reader, "verify_bytes", verify)
    assert make_intake(store, LocalTables(DUMP)).poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert "its verification failed (error: ushort" in store.quarantined()[strange]
    assert good not in store.quarantined()


def test_an_object_that_breaks_after_it_was_verified_is_set_aside(store):
    index = store.put(episode(1))
    tables = LocalTables(DUMP)
    intake = make_intake(store, tables)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)
    store.root.write(index.path, store.read_bytes(index.path)[:-50]).result()
    tables.restart()
    assert intake.poll().quarantined == 1
    assert index.path in store.quarantined()
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


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.ABORTED])
def test_broken_runs_are_kept_but_never_trained_on(store, outcome):
    path = store.put(episode(1, outcome=outcome)).path
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    assert intake.poll() == IntakeReport(untrainable=1)
    assert tables.info()[ONLINE].size == 0
    assert store.list_paths() == [path]
    assert store.quarantined() == {}
    assert [e["intake"] for e in metrics.events if e["event"] == "episode"] == ["untrainable"]
    assert intake.poll() == IntakeReport()


def test_invalid_episodes_are_set_aside_and_the_rest_goes_on(store, tmp_path):
    paths = [store.put(episode(seed)).path for seed in (1, 2, 3)]
    torn = tmp_path / "store" / paths[1]
    torn.write_bytes(torn.read_bytes()[:-40])
    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, metrics=metrics)
    assert intake.poll() == IntakeReport(inserted=2, num_items=4, quarantined=1)
    assert list(store.quarantined()) == [paths[1]]
    assert paths[1] in store.quarantined()[paths[1]]
    assert [e["path"] for e in metrics.events if e["event"] == "quarantine"] == [paths[1]]
    assert intake.poll() == IntakeReport()
    assert make_intake(store, LocalTables(DUMP)).poll() == IntakeReport(inserted=2, num_items=4)  # another process


def test_a_task_without_a_table_is_told_once_and_left_to_others(store):
    store.put(episode(1, task="restock_shelve"))
    metrics = MemoryMetrics()
    intake = make_intake(store, LocalTables(DUMP), metrics=metrics)
    assert intake.poll() == IntakeReport(foreign=1)
    assert intake.poll() == IntakeReport()
    (event,) = [e for e in metrics.events if e["event"] == "foreign_episode"]
    assert "unknown task" in event["reason"]
    assert f"Did you mean '{ONLINE}'" in event["reason"]
    assert [e["intake"] for e in metrics.events if e["event"] == "episode"] == ["foreign"]
    assert store.quarantined() == {}
    wider = tuple(TableConfig(f"restock_shelve/{source}", 10) for source in ("online", "offline"))
    assert make_intake(store, LocalTables((*DUMP, *wider))).poll() == IntakeReport(inserted=1, num_items=2)


def test_where_the_store_is_its_own_a_task_without_a_table_is_set_aside(store):
    right, wrong = store.put(episode(1)).path, store.put(episode(2, task="restock_shelve")).path
    metrics = MemoryMetrics()
    intake = make_intake(store, LocalTables(DUMP), metrics=metrics, owns_store=True)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, quarantined=1)
    assert intake.poll() == IntakeReport()
    reason = f"wrong task: 'restock_shelve' is none of this store's ({TASK}). Did the robot mean '{TASK}'?"
    assert store.quarantined() == {wrong: reason}
    assert [(e["path"], e["reason"]) for e in metrics.events if e["event"] == "quarantine"] == [(wrong, reason)]
    assert store.list_paths() == [right, wrong]  # nothing is removed
    wider = tuple(TableConfig(f"restock_shelve/{source}", 10) for source in ("online", "offline"))
    two_tasks = make_intake(store, LocalTables((*DUMP, *wider)), owns_store=True)
    assert two_tasks.poll().inserted == 1
    findings = list(find_problems(store, tasks=(TASK, "restock_shelve")))
    assert [(finding.path, finding.kind, finding.set_aside) for finding in findings] == [(wrong, Kind.RIGHT_TASK, True)]
    assert take_back(store, findings) == [Repair(wrong, "restored")]
    assert two_tasks.poll() == IntakeReport(inserted=1, num_items=2)


def test_a_labeler_may_refuse_an_episode(store):
    path = store.put(episode(1)).path

    def labeler(manifest, arrays, images):
        raise InvalidEpisodeError("too odd to learn from")

    assert make_intake(store, LocalTables(DUMP), labeler).poll().quarantined == 1
    assert store.quarantined() == {path: "too odd to learn from"}


def test_another_robot_type_is_set_aside(store):
    path = store.put(episode(1)).path
    intake = make_intake(store, LocalTables(DUMP), spec=make_spec(image_size=32, camera_names=("head",)))
    assert intake.poll().quarantined == 1
    assert "is not a synthetic" in store.quarantined()[path]


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


def test_a_quarantine_that_cannot_be_written_is_tried_again(store, tmp_path):
    path = store.put(episode(1)).path
    (tmp_path / "store" / path).write_bytes(b"nothing of the kind")
    store.failing = {"quarantine"}
    intake = make_intake(store, LocalTables(DUMP))
    assert intake.poll() == IntakeReport(unreadable=1)
    store.failing = set()
    assert intake.poll() == IntakeReport(quarantined=1)


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


def test_metrics_name_the_episode_and_how_stale_it_was(store):
    store.put(episode(1, policy_version=3, takeovers=((3, 3, 6),)))
    store.put(episode(2, policy_version=NO_POLICY, source=Source.OFFLINE))
    metrics = MemoryMetrics()
    intake = make_intake(store, LocalTables(DUMP), metrics=metrics, newest_version=lambda: 5)
    intake.poll()
    first, second = [e for e in metrics.events if e["event"] == "episode"]
    by_source = {e["source"]: e for e in (first, second)}
    online, offline = by_source["online"], by_source["offline"]
    assert online["episode_id"] == "robot-0.00000000001000000000.000001"
    assert (online["robot_id"], online["task"], online["outcome"]) == ("robot-0", TASK, "success")
    assert (online["num_interventions"], online["num_intervention_frames"], online["num_items"]) == (1, 3, 2)
    assert (online["policy_version"], online["staleness_versions"]) == (3, 2)
    assert online["intake_delay_s"] == pytest.approx(50 - 1 - 8 / 30, abs=0.04)
    assert "staleness_versions" not in offline
    sizes = {e["table"]: e["size"] for e in metrics.events if e["event"] == "table"}
    assert sizes == {ONLINE: 2, OFFLINE: 2}
    (report,) = [e for e in metrics.events if e["event"] == "intake"]
    assert (report["inserted"], report["num_items"], report["problem"]) == (2, 4, "")
    assert [e["num_new"] for e in metrics.events if e["event"] == "look"] == [2]
    intake.poll()
    assert [e["num_new"] for e in metrics.events if e["event"] == "look"] == [2]  # nothing new, nothing told


def test_a_long_look_tells_of_the_tables_all_along(store):
    """Their silence means that the server doesn't answer."""
    for seed in range(6):
        store.put(episode(seed))
    clock, tables, told_ns = ManualClock(50 * 10**9), LocalTables(DUMP), []
    insert = tables.insert

    def slow_labeler(*episode):
        clock.advance_s(30)
        return label_all(*episode)

    def slow_insert(*arguments):
        clock.advance_s(30)
        insert(*arguments)

    class Moments:
        def write(self, event, /, **values):
            if event == "table":
                told_ns.append(clock.now_ns())

    tables.insert = slow_insert  # pyright: ignore[reportAttributeAccessIssue]
    config = dataclasses.replace(CONFIG, items_per_insert=2)  # an episode's
    intake = make_intake(store, tables, slow_labeler, config=config, clock=clock, metrics=Moments())
    assert intake.look().inserted == 6
    moments_s = sorted({moment_ns / 1e9 - 50 for moment_ns in told_ns})
    assert moments_s == [
        30.0 * num for num in (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12)
    ]  # at 6 the first is being stored


def test_a_server_that_goes_within_a_look_is_not_waited_for(store):
    store.put(episode(1))
    tables, clock = FlakyTables(DUMP), ManualClock(50 * 10**9)
    asked_s, info = [], tables.info

    def asked(timeout_s=30.0):
        asked_s.append(timeout_s)
        if len(asked_s) > 1:
            raise ReplayUnavailableError("away")
        return info(timeout_s)

    tables.info = asked  # pyright: ignore[reportAttributeAccessIssue]
    metrics = MemoryMetrics()
    assert make_intake(store, tables, clock=clock, metrics=metrics).look().inserted == 1
    assert asked_s == [30.0, 5.0, 5.0]  # the look itself, the first episode read, and the change
    assert not [event for event in metrics.events if event["event"] == "table"]


def test_the_delay_of_what_no_dated_clock_recorded_is_not_told(store):
    store.put(episode(1, policy_version=NO_POLICY, source=Source.OFFLINE))
    metrics = MemoryMetrics()
    clock = ManualClock(1_790_000_000 * 10**9)
    Intake(store, LocalTables(DUMP), label_all, clock=clock, metrics=metrics).poll()
    (event,) = [e for e in metrics.events if e["event"] == "episode"]
    assert event["duration_s"] < 10
    assert event["intake_s"] == 0.0
    assert "intake_delay_s" not in event


def test_an_episode_that_waits_for_the_tables_counts_from_the_look_that_found_it(store):
    store.put(episode(1))
    metrics, tables = MemoryMetrics(), LocalTables(DUMP)
    clock = ManualClock(50 * 10**9)
    intake = Intake(store, tables, label_all, clock=clock, metrics=metrics)
    real, tables.insert = tables.insert, refuse  # pyright: ignore[reportAttributeAccessIssue]
    intake.poll()
    tables.insert = real
    clock.advance_s(7)
    intake.poll()
    (told,) = [e for e in metrics.events if e["event"] == "episode"]
    assert told["intake_s"] == 7


def refuse(table, items, timeout_s=30.0):
    raise ReplayUnavailableError("away")


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


def test_garbage_never_stops_intake(store, tmp_path):
    good = store.put(episode(0)).path
    data = (tmp_path / "store" / good).read_bytes()
    rng = random.Random(0)
    for seed in range(1, 12):
        garbled = bytearray(data)
        for _ in range(seed):
            garbled[rng.randrange(len(garbled))] = rng.randrange(256)
        path = tmp_path / "store" / good.replace(".000000.zip", f".{seed:06d}.zip")
        path.write_bytes(bytes(garbled[: rng.randrange(len(garbled))] if seed % 3 == 0 else garbled))
    report = make_intake(store, LocalTables(DUMP)).poll()
    assert (report.inserted, report.quarantined) == (1, 11)
    assert pack(store.read(good)) == data


def test_an_episode_that_was_restored_is_tried_again_by_the_same_intake(store, tmp_path):
    path = store.put(episode(1)).path
    file = tmp_path / "store" / path
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    intake = make_intake(store, LocalTables(DUMP))
    assert intake.poll() == IntakeReport(quarantined=1)
    assert intake.poll() == IntakeReport()
    file.write_bytes(whole)
    (tmp_path / "store" / quarantine_path(path)).unlink()
    assert intake.poll() == IntakeReport(inserted=1, num_items=2)


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


def test_an_episode_that_only_this_labeler_cant_read_waits_for_another(store):
    """It isn't set aside, for others may read it, and isn't read again and again either."""
    paths = [store.put(episode(seed)).path for seed in (1, 2)]
    asked = []

    def labeler(manifest, arrays, images):
        asked.append(manifest.episode_id)
        if manifest.episode_id.endswith("1"):
            raise UnlabelledEpisodeError("13 tokens, the model takes at most 12")
        return label_all(manifest, arrays, images)

    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    intake = make_intake(store, tables, labeler, metrics=metrics)
    assert intake.poll() == IntakeReport(inserted=1, num_items=2, empty=1)
    assert intake.poll() == IntakeReport()
    assert (len(asked), store.quarantined()) == (2, {})
    (event,) = [e for e in metrics.events if e["event"] == "unlabelled_episode"]
    assert (event["path"], event["reason"]) == (paths[0], "13 tokens, the model takes at most 12")
    intake.relabel(label_all)
    assert intake.poll().relabelled == 2
    assert tables.info()[ONLINE].size == 4
    intake.relabel(labeler)  # items that it can't label leave: they would carry another labeler's labels
    assert intake.poll().relabelled == 2
    assert {s.path for s in drain(tables, ONLINE)} == {paths[1]}


def test_an_episode_that_recap_cant_read_is_sound_for_others(store):
    """No frame with images; an instruction that is too long for the value function."""
    blind = episode(1)
    blind = dataclasses.replace(
        blind, arrays=dataclasses.replace(blind.arrays, image_frames=np.zeros(0, np.int32)), jpegs=()
    )
    long = episode(2)
    long = dataclasses.replace(long, manifest=dataclasses.replace(long.manifest, instruction=" ".join(["cup"] * 13)))
    for each in (blind, long):
        store.put(each)
    recap = Recap()
    recap.__dict__["value_function"] = value_function()
    intake = make_intake(store, LocalTables(DUMP), make_labeler(recap, 3))
    assert intake.poll() == IntakeReport(empty=2)
    assert store.quarantined() == {}


def test_a_task_that_the_labeler_does_not_know_stops_no_other(store):
    paths = [store.put(episode(seed)).path for seed in (1, 2)]

    def labeler(manifest, arrays, images):
        if manifest.episode_id.endswith("1"):
            raise ConfigError("the value function knows no such task")
        return label_all(manifest, arrays, images)

    tables, metrics = LocalTables(DUMP), MemoryMetrics()
    assert make_intake(store, tables, labeler, metrics=metrics).poll() == IntakeReport(
        inserted=1, num_items=2, unreadable=1
    )
    assert {s.path for s in drain(tables, ONLINE)} == {paths[1]}
    assert store.quarantined() == {}
    (event,) = [e for e in metrics.events if e["event"] == "unreadable_episode"]
    assert (event["path"], event["reason"]) == (
        paths[0], "can't be labelled here: the value function knows no such task",
    )  # fmt: skip

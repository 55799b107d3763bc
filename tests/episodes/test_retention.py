"""What is kept, what goes, and in which order."""

import dataclasses
import pathlib

import pytest
from episode_strategies import small_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors.demonstrate import collect_demonstrations
from sop_jax.episodes import retirement
from sop_jax.episodes.paths import retired_path
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for, plan_retention
from sop_jax.episodes.retirement import RetirementRecord
from sop_jax.episodes.store import EpisodeStore, EpisodeSummary
from sop_jax.episodes.synthetic import make_episode
from sop_jax.robots.fake import FakeExpert, FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError
from sop_jax.specs.records import NO_POLICY, Source

HOUR_NS = 3_600_000_000_000
NOW_NS = 100 * HOUR_NS


def summary(count, age_h, *, corrected=False, task="pick", source=Source.ONLINE, size=100):
    version = NO_POLICY if source is Source.OFFLINE else 1
    takeovers = ((0, 1, 2),) if corrected else ()
    manifest = make_episode(
        0,
        num_frames=4,
        spec=small_spec,
        count=count,
        task=task,
        source=source,
        policy_version=version,
        takeovers=takeovers,
    ).manifest
    manifest = dataclasses.replace(manifest, ended_ns=NOW_NS - round(age_h * HOUR_NS))
    return EpisodeSummary(f"episodes/robot-0/{manifest.episode_id}.zip", size, manifest)


def retired(summaries, config, records=None, quarantined=(), now_ns=NOW_NS):
    plan = plan_retention(summaries, records or {}, quarantined, now_ns, config)
    return [int(record.path[-10:-4]) for record in plan.retire]


def test_age_and_four_times_the_age_for_corrections():
    summaries = [
        summary(1, 11), summary(2, 9), summary(3, 39, corrected=True), summary(4, 41, corrected=True),
        summary(5, 39, source=Source.OFFLINE), summary(6, 41, source=Source.OFFLINE),
    ]  # fmt: skip
    assert retired(summaries, RetentionConfig(max_age_s=36_000)) == [1, 4, 6]
    assert retired(summaries, RetentionConfig(max_age_s=36_000, correction_factor=1.0)) == [1, 4, 3, 6, 5]
    assert retired(summaries, RetentionConfig()) == []


def test_size_counts_per_task_and_source_and_corrections_go_last():
    summaries = [
        summary(1, 9, corrected=True), summary(2, 8), summary(3, 7), summary(4, 6, corrected=True), summary(5, 5),
        summary(6, 9, task="place"), summary(7, 9, source=Source.OFFLINE),
    ]  # fmt: skip
    assert retired(summaries, RetentionConfig(max_bytes=300)) == [2, 3]
    assert retired(summaries, RetentionConfig(max_bytes=299)) == [2, 3, 5]
    assert retired(summaries, RetentionConfig(max_bytes=100)) == [2, 3, 5, 1]
    assert retired(summaries, RetentionConfig(max_bytes=0)) == [2, 3, 5, 1, 4, 6, 7]


def test_the_young_the_broken_and_the_set_aside_are_left_alone():
    young, broken, aside = summary(1, 0.9), EpisodeSummary("episodes/robot-0/x.zip", 0, None, "torn"), summary(2, 9)
    assert retired([young, broken, aside], RetentionConfig(max_bytes=0), quarantined={aside.path}) == []
    assert retired([young], RetentionConfig(max_bytes=0, min_age_s=0.0)) == [1]


TODAY_NS = 1_790_000_000 * 10**9


def dated(found, age_h):
    """The same episode, recorded by a clock that knows the date."""
    return dataclasses.replace(
        found, manifest=dataclasses.replace(found.manifest, ended_ns=TODAY_NS - round(age_h * HOUR_NS))
    )


def test_demonstrations_as_they_are_collected_are_of_no_age(store_url):
    """Their clock stands still at 0, so that they are the same whenever they are collected."""
    store, clock = EpisodeStore(store_url), ManualClock()
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=40), clock)
    collect_demonstrations(robot, FakeExpert(robot), 3, 0, store.put, clock, robot_id="demonstrator-0")
    assert len(store.list_paths()) == 3
    today = ManualClock(TODAY_NS)
    assert plan_for(store, today, RetentionConfig(max_age_s=3600)).retire == ()
    (record, *more) = plan_for(store, today, RetentionConfig(max_bytes=2 * store.summaries()[0].size + 9)).retire
    assert (record.path, more) == (store.list_paths()[0], [])
    assert "its age is unknown (its clock knew no date)" in record.reason


def test_what_is_of_unknown_age_leaves_last_and_for_size_only():
    unknown, corrected = summary(1, 50), summary(2, 60, corrected=True)
    old, older_correction = dated(summary(3, 0), 9), dated(summary(4, 0, corrected=True), 99)
    young = dated(summary(5, 0), 0.5)
    everything = [unknown, corrected, old, older_correction, young]
    assert retired(everything, RetentionConfig(max_age_s=1), now_ns=TODAY_NS) == [3, 4]
    assert retired(everything, RetentionConfig(max_bytes=400), now_ns=TODAY_NS) == [3]
    assert retired(everything, RetentionConfig(max_bytes=200), now_ns=TODAY_NS) == [3, 4, 1]
    assert retired(everything, RetentionConfig(max_bytes=0), now_ns=TODAY_NS) == [3, 4, 1, 2]
    plan = plan_retention(everything, {}, (), TODAY_NS, RetentionConfig(max_bytes=200))
    assert ["unknown" in record.reason for record in plan.retire] == [False, False, True]


def test_the_record_says_why_and_holds_what_intake_needs():
    plan = plan_retention([summary(1, 11)], {}, (), NOW_NS, RetentionConfig(max_age_s=36_000))
    (record,) = plan.retire
    assert (record.task, record.source, record.num_frames, record.num_bytes) == ("pick", Source.ONLINE, 4, 100)
    assert (record.reason, record.retired_ns) == ("39600 s old, kept for 36000 s", NOW_NS)


def test_objects_go_after_the_grace_and_records_long_after():
    found = summary(1, 50)

    def record(age_h):
        return {found.path: RetirementRecord(found.path, "pick", Source.ONLINE, 4, 100, "", NOW_NS - age_h * HOUR_NS)}

    config = RetentionConfig(max_bytes=0, grace_s=7200, keep_record_s=36_000)
    for age_h, present, expected in [
        (1, True, ((), ())),
        (2, True, ((found.path,), ())),
        (11, False, ((), ())),
        (12, False, ((), (found.path,))),
        (50, True, ((found.path,), ())),  # came back with a late upload: goes again
    ]:
        plan = plan_retention([found] if present else [], record(age_h), (), NOW_NS, config)
        assert plan.retire == ()
        assert (plan.remove, plan.forget) == expected


@settings(max_examples=60)
@given(
    kinds=st.lists(st.tuples(st.integers(0, 99), st.booleans(), st.integers(1, 500)), max_size=8),
    max_bytes=st.integers(0, 2000),
)
def test_no_correction_goes_before_an_autonomous_one_and_no_more_goes_than_must(kinds, max_bytes):
    summaries = [summary(i, 2 + age, corrected=kind, size=size) for i, (age, kind, size) in enumerate(kinds)]
    config = RetentionConfig(max_bytes=max_bytes)
    gone = {record.path: record for record in plan_retention(summaries, {}, (), NOW_NS, config).retire}
    kept = [found for found in summaries if found.path not in gone]
    assert sum(found.size for found in kept) <= max_bytes
    if gone:
        last = list(gone)[-1]
        size = next(found.size for found in summaries if found.path == last)
        assert sum(found.size for found in kept) + size > max_bytes
    corrections = {found.path for found in summaries if found.manifest and found.manifest.num_interventions}
    if corrections & gone.keys():
        assert {found.path for found in kept} <= corrections


def fill(store, num):
    return [store.put(make_episode(i, num_frames=4, spec=small_spec)).path for i in range(num)]


def test_a_store_from_the_first_plan_to_the_last(store_url):
    store, clock = EpisodeStore(store_url), ManualClock(NOW_NS)
    paths = fill(store, 3)
    size = store.summaries()[0].size
    config = RetentionConfig(max_bytes=2 * size + 50)
    plan = plan_for(store, clock, config)
    assert [record.path for record in plan.retire] == paths[:1]
    assert store.list_paths() == paths  # a plan changes nothing
    apply_plan(store, plan)
    assert (retirement.retired_paths(store), store.list_paths()) == (paths[:1], paths)
    assert plan_for(store, clock, config).retire == ()  # its bytes are as good as gone
    clock.advance_s(3600)
    apply_plan(store, plan_for(store, clock, config))
    assert store.list_paths() == paths[1:]
    fill(store, 1)  # the robot uploads it once more
    apply_plan(store, plan_for(store, clock, config))
    assert store.list_paths() == paths[1:]
    clock.advance_s(31 * 86_400)
    apply_plan(store, plan_for(store, clock, config))
    assert retirement.retired_paths(store) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["retire", "remove_object", "forget"])
def test_a_retention_that_is_killed_anywhere_is_finished_by_the_next(store_url, monkeypatch, step, done_first):
    """Killed around the second of three writes or deletes; the next run does the rest."""
    store, clock = EpisodeStore(store_url), ManualClock(NOW_NS)
    paths = fill(store, 3)
    config = RetentionConfig(max_bytes=0, keep_record_s=3600)
    real, calls = getattr(retirement, step), []

    def dies_once(*args):
        calls.append(args)
        if len(calls) != 2:
            return real(*args)
        if done_first:
            real(*args)
        raise Killed

    monkeypatch.setattr(retirement, step, dies_once)
    for hour in range(3):
        if hour == ["retire", "remove_object", "forget"].index(step):
            with pytest.raises(Killed):
                apply_plan(store, plan_for(store, clock, config))
            if step != "forget":
                assert {*store.list_paths(), *retirement.retired_paths(store)} == {*paths}
        apply_plan(store, plan_for(store, clock, config))
        clock.advance_s(3600)
    assert len(calls) == 4 - done_first
    assert (store.list_paths(), retirement.retired_paths(store)) == ([], [])


def test_what_was_taken_back_since_the_plan_stays_and_stops_no_other(store_url):
    store, clock = EpisodeStore(store_url), ManualClock(NOW_NS)
    first, second, third, fourth = fill(store, 4)
    config = RetentionConfig(max_bytes=0)
    assert apply_plan(store, plan_for(store, clock, config)) == []
    clock.advance_s(3600)
    plan = plan_for(store, clock, config)
    assert sorted(plan.remove) == [first, second, third, fourth]
    retirement.forget(store, first)
    (pathlib.Path(store_url.removeprefix("file://")) / retired_path(third)).write_bytes(b"{")
    taken_back, damaged = sorted(apply_plan(store, plan))
    assert taken_back.startswith(f"{first} stays: {first} was not retired")
    assert damaged.startswith(f"{third} stays: retirement record {retired_path(third)} is damaged")
    assert store.list_paths() == [first, third]


def test_only_what_was_retired_can_be_removed(store_url):
    store = EpisodeStore(store_url)
    (path,) = fill(store, 1)
    with pytest.raises(retirement.NotRetiredError, match="was not retired"):
        retirement.remove_object(store, path)
    assert store.list_paths() == [path]


@settings(max_examples=60)
@given(text=st.binary(max_size=60) | st.sampled_from([b"{}", b'{"source": "online"}', b"[" * 5000, b"1e999", b"NaN"]))
def test_damaged_records_are_told_as_such(text, tmp_path_factory):
    folder: pathlib.Path = tmp_path_factory.mktemp("records")
    store = EpisodeStore(f"file://{folder}/")
    path = summary(1, 1).path
    (folder / retired_path(path)).parent.mkdir(parents=True)
    (folder / retired_path(path)).write_bytes(text)
    with pytest.raises(InvalidEpisodeError, match=r"is damaged .* retire the episode again"):
        retirement.read_record(store, path)
    assert retirement.retired_paths(store) == [path]


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_bytes", -1), ("max_age_s", 0.0), ("correction_factor", 0.5), ("min_age_s", -1.0), ("grace_s", -1.0)],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        RetentionConfig(**{field: value})

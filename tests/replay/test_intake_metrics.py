"""What intake tells: which episode, how stale, how long it took, what the tables hold meanwhile."""

import dataclasses

import pytest

from sop_jax.replay.intake import Intake
from sop_jax.replay.items import label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ReplayUnavailableError
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import NO_POLICY, Source
from tests.replay.intake_parts import (
    CONFIG,
    DUMP,
    OFFLINE,
    ONLINE,
    TASK,
    FlakyTables,
    episode,
    make_intake,
)


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

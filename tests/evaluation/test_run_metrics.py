import json

import pytest
from fake_run import FakeStore, episode, event, improving_run

from sop_jax.evaluation.event_log import EventReader
from sop_jax.evaluation.run_metrics import (
    MAX_ATTEMPTS,
    RunReader,
    totals_of,
    write_json,
    write_merged_log,
    write_tensorboard,
)
from sop_jax.evaluation.run_tracker import RunTracker
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import JsonlMetrics
from sop_jax.specs.records import Outcome, Source, TakeoverEvent


def _line(time_s, process, name, **values):
    return json.dumps({"time_s": time_s, "process": process, "event": name, **values}) + "\n"


def test_events_are_followed_across_files_partial_lines_and_garbage(tmp_path):
    reader = EventReader(tmp_path)
    assert reader.poll() == []
    (tmp_path / "b.jsonl").write_text(_line(2.0, "b", "x", n=1) + '{"time_s": 5.0, "proc')
    (tmp_path / "a.jsonl").write_text(_line(3.0, "a", "y") + _line(1.0, "a", "z", word="w"))
    assert [(item.time_s, item.process, item.name) for item in reader.poll()] == [
        (1.0, "a", "z"),
        (2.0, "b", "x"),
        (3.0, "a", "y"),
    ]
    assert reader.poll() == []
    # b was killed inside its line; its successor appends behind it: that line is lost, and counted, the next is not.
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write(_line(6.0, "b", "x") + _line(7.0, "b", "x", n=2))
    assert [(item.time_s, item.number("n")) for item in reader.poll()] == [(7.0, 2.0)]
    assert reader.num_bad_lines == 1


def test_reads_what_our_metrics_write(tmp_path):
    metrics = JsonlMetrics(tmp_path / "m" / "learner.jsonl", "learner", ManualClock(5 * 10**9))
    metrics.write("publication", policy_version=3, learner_step=75, note="x", fine=True)
    metrics.close()
    (found,) = EventReader(tmp_path / "m").poll()
    assert (found.time_s, found.process, found.name) == (5.0, "learner", "publication")
    assert found.number("policy_version") == 3
    assert found.text("note") == "x"
    assert found.number("missing", -1.0) == -1.0


def test_totals_and_state_hand_computed():
    tracker = RunTracker()
    tracker.add_events(
        [
            event(8.0, "learner_step", step=0, steps_per_s=0.0, loss=1.0, wait_share=0.5),
            event(10.0, "learner_step", step=25, steps_per_s=30.0, loss=0.5, wait_share=0.1),
            event(13.0, "publication", version=1, learner_step=25, created_ns=10_500_000_000),  # told late
            event(14.0, "learner_step", step=50, steps_per_s=32.0, loss=0.4, wait_share=0.2),
            event(14.5, "publication", version=2, learner_step=50),
            event(11.0, "first_use", episode_id=episode(0).episode_id, learner_step=30),
            event(19.0, "first_use", episode_id=episode(0).episode_id, learner_step=99),  # a restarted learner's
            event(15.0, "sampler", task="shelf", online_share_asked=0.6, online_share_given=0.4),
            event(15.0, "table", table="shelf/online", size=12),
            event(15.0, "unknown_event", anything=1),
        ]
    )
    tracker.add_episode(episode(0, started_s=4.0, duration_s=4.0, failed_s=(6.0,)))  # ended before learning: not stale
    tracker.add_episode(episode(1, started_s=10.0, duration_s=4.0, version=0, success=False))
    tracker.add_episode(episode(2, started_s=15.0, duration_s=2.0, version=2, success=True))
    tracker.add_episode(episode(0, robot="robot-1", started_s=15.5, duration_s=1.0, version=1, outcome=Outcome.ABORTED))
    tracker.add_episode(episode(0, robot="human", source=Source.OFFLINE))

    totals = totals_of(tracker.history())
    assert totals.num_episodes == 4
    assert totals.num_demonstrations == 1
    assert totals.num_frames == 120 + 120 + 60 + 30
    assert totals.num_interventions == 1
    assert totals.num_publications == 2
    assert totals.num_swaps == 2  # robot-0 from 0 to 2, robot-1 from 0 to 1
    assert totals.learner_steps == 50
    # Episode 1: middle 12, base since 8: 4 s, 1 behind. Episode 2: middle 16, version 2 from 14.5: 1.5 s, 0 behind.
    assert totals.median_staleness_s is not None
    assert totals.median_staleness_s.value == pytest.approx((4.0 + 1.5) / 2)
    assert totals.median_staleness_versions is not None
    assert totals.median_staleness_versions.value == 0.5
    # Failed at 6, first learnt from at step 30 -> publication 2 -> episode 2 starts at 15.
    assert totals.median_correction_latency_s is not None
    assert totals.median_correction_latency_s.value == 9.0
    assert totals.num_corrections_returned == 1

    state = tracker.state()
    assert state.success == pytest.approx(1 / 3)  # episode 0 had help, episode 1 failed; the aborted one doesn't count
    assert state.num_recent == 3
    assert state.interventions_per_episode == pytest.approx(1 / 3)
    assert state.policy_version == 2
    assert state.table_sizes == {"shelf/online": 12}
    assert state.sampler["shelf"].given_share == 0.4
    assert state.learner is not None
    assert state.learner.learner_step == 50
    assert [(robot.robot_id, robot.policy_version, robot.num_episodes) for robot in state.robots] == [
        ("robot-0", 2, 3),
        ("robot-1", 1, 1),
    ]
    assert state.robots[0].num_successes == 2


@pytest.mark.parametrize(("checkpoint", "latency_s"), [(25, 14.0), (50, 9.0)])
def test_a_correction_that_a_restart_discarded_returns_when_it_is_learnt_anew(checkpoint, latency_s):
    used = episode(0, started_s=4.0, duration_s=4.0, failed_s=(6.0,))
    tracker = RunTracker()
    events = [
        event(7.0, "learner_begins", step=0),
        event(8.0, "first_use", episode_id=used.episode_id, learner_step=30),
        event(9.0, "learner_step", step=25, steps_per_s=30.0, loss=0.5, wait_share=0.1),
        event(12.0, "learner_begins", step=checkpoint),  # killed before it published step 50, or after it saved it
        event(14.0, "publication", version=1, learner_step=75),
        event(16.0, "first_use", episode_id=used.episode_id, learner_step=90),
        event(18.0, "publication", version=2, learner_step=100),
    ]
    tracker.add_events(events if checkpoint < 30 else [found for found in events if found.time_s != 16.0])
    tracker.add_episode(used)
    tracker.add_episode(episode(1, started_s=15.0, duration_s=2.0, version=1))
    tracker.add_episode(episode(2, started_s=20.0, duration_s=2.0, version=2))
    assert tracker.history().correction_latencies_s == (latency_s,)


def test_an_empty_run_has_no_numbers():
    state = RunTracker().state()
    assert (state.success, state.learner, state.median_staleness_s, state.robots) == (None, None, None, ())
    totals = totals_of(RunTracker().history())
    assert totals.num_episodes == 0
    assert totals.median_correction_latency_s is None


def test_reader_reads_each_episode_once_and_gives_up_on_torn_ones(tmp_path):
    store = FakeStore()
    store.add(1, (TakeoverEvent(30, 39, 60, "no_progress"),))
    torn = store.add(2)
    store.broken.add(torn)
    (tmp_path / "learner.jsonl").write_text(_line(1.0, "learner", "learner_step", step=5))
    reader = RunReader(tmp_path, store)
    state = reader.poll()
    assert (state.num_episodes, state.num_interventions) == (1, 1)
    (only,) = reader.history().episodes
    assert only.failed_s == (pytest.approx(1.0 + 30 * 0.033333333),)
    assert only.num_intervention_frames == 21
    for _ in range(5):
        reader.poll()
    assert store.num_reads == 1 + MAX_ATTEMPTS
    assert reader.num_unreadable == 1
    store.add(3)
    assert reader.poll().num_episodes == 2


def test_files_that_a_run_leaves(tmp_path):
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "a.jsonl").write_text(_line(2.0, "a", "x", n=1))
    (metrics / "b.jsonl").write_text(_line(1.0, "b", "y"))
    assert write_merged_log(metrics, tmp_path / "metrics.jsonl") == 2
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["time_s"] for line in lines] == [1.0, 2.0]
    write_json(tmp_path / "deep" / "summary.json", {"a": 1})
    assert json.loads((tmp_path / "deep" / "summary.json").read_text()) == {"a": 1}
    write_tensorboard(improving_run(20).history(), tmp_path / "tb")
    (written,) = (tmp_path / "tb").iterdir()
    assert written.stat().st_size > 1000

"""Each verdict from made-up metrics, and nothing where all is well."""

import pytest

from sop_jax.monitoring.diagnosis import Weight, bottleneck, diagnose
from sop_jax.monitoring.scrape import Reading, Sample, Window
from sop_jax.monitoring.vitals import vitals

NOW_S = 1000.0


def sample(line: str) -> Sample:
    """`station name label=text ... value`."""
    station, name, *labels, value = line.split()
    return Sample(name, station, dict(label.split("=") for label in labels), float(value))


def window(after: str, before: str = "", silent: dict | None = None) -> Window:
    readings = [tuple(sample(line) for line in text.strip().splitlines()) for text in (before, after)]
    return Window(Reading(NOW_S - 10, readings[0]), Reading(NOW_S, readings[1], silent or {}))


def codes(*lines: str) -> list[str]:
    return [verdict.code for verdict in diagnose(window(with_lines(*lines)))]


HEALTHY = f"""
robot-0 spool_episodes 1
robot-0 spool_bytes 100
robot-0 spool_max_bytes 1000
robot-0 last_event_timestamp_seconds event=upload_failed 900
robot-0 last_event_timestamp_seconds event=upload 990
robot-0 policy_version 6
robot-0 policy_learner_step 150
robot-0 ticks_total 300
robot-0 late_ticks_total 1
robot-0 spool_given_up_total 0
replay intake_backlog_episodes 1
replay last_event_timestamp_seconds event=table {NOW_S - 9}
replay table_inserted_items_total table=t/online 40
replay table_sampled_items_total table=t/online 160
learner events_total event=learner_step 7
learner last_event_timestamp_seconds event=learner_step 998
learner learner_step 190
learner learner_steps_per_second 21.4
learner learner_report_seconds 1.2
learner learner_wait_share 0.01
learner loader_ready_batches 3
learner sampler_online_share_asked task=t 0.5
learner sampler_online_share_given task=t 0.45
learner limiter_blocks_total table=t/online 2
learner publication_version 7
learner publication_timestamp_seconds 990
learner publication_learner_step 175
learner unpublished_steps 15
learner publish_every_steps 25
learner last_event_timestamp_seconds event=publication 990
"""


def with_lines(*lines: str) -> str:
    """HEALTHY with some lines replaced or added."""
    found = {" ".join(line.split()[:-1]): line for line in (*HEALTHY.strip().splitlines(), *lines)}
    return "\n".join(found.values())


NO_PUBLICATION = (
    "learner publication_failures_total 1",
    "learner last_event_timestamp_seconds event=publication_failed 999",
)
STARVED = (
    "learner events_total event=starved 3",
    "learner last_event_timestamp_seconds event=starved 955",  # it tells again 120 s later, long after the window
    "learner last_event_timestamp_seconds event=learner_step 835",
)
CASES = {
    "upload_fails": (["robot-0 last_event_timestamp_seconds event=upload_failed 995"], "robot-0 can't upload"),
    "upload_slow": (["robot-0 spool_episodes 9"], "9 episodes wait in its spool"),
    "spool_gives_up": (["robot-0 spool_given_up_total 2"], "gave up 2 episodes"),
    "spool_near_full": (["robot-0 spool_bytes 900"], "90% full"),
    "intake_behind": (["replay intake_backlog_episodes 40"], "40 episodes lie in the store"),
    "tables_silent": (["replay last_event_timestamp_seconds event=table 900"], "from the replay server for 100 s"),
    "intake_troubled": (["replay intake_problems_total 3"], "3 of intake's looks"),
    "episodes_set_aside": (["replay intake_quarantined_total 1"], "set 1 episodes aside"),
    "episodes_of_other_tasks": (["replay intake_foreign_total 3"], "3 episodes came of a task that has no table"),
    "limiter_blocks": (["learner sampler_online_share_given task=t 0.2"], "asks for 50% online data and gets 20%"),
    "learner_starved": ([*STARVED, "learner learner_wait_share 0.9"], "got no batch"),
    "learner_silent": (
        ["learner last_event_timestamp_seconds event=learner_step 890", "learner learner_wait_share 0.9"],
        "no step for 110 s",
    ),
    "learner_awaits_items": (["learner learner_awaited_items 5"], "lack 5 items"),
    "learner_waits": (["learner learner_wait_share 0.4", "learner loader_ready_batches 0"], "40% of its time and no batch"),
    "learner_slower_than_data": (["replay table_sampled_items_total table=t/online 20"], "took in 40 items in 10 s"),
    "publications_fail": ([*NO_PUBLICATION, "learner unpublished_steps 125"], "can't publish"),
    "publications_late": (
        ["learner unpublished_steps 125", "learner publication_interval_steps 100"],
        "125 steps since the last, one is due every 25",
    ),
    "robot_behind": (["robot-0 policy_version 4"], "acts with version 4, the newest is 7"),
    "weights_unavailable": (
        ["robot-0 policy_version 0", "robot-0 last_event_timestamp_seconds event=weights_unavailable 980"],
        "acts with version 0, the newest is 7",
    ),
    "publications_refused": (["robot-0 publications_refused_total 1"], "robot-0 refused 1"),
    "robot_late": (["robot-0 late_ticks_total 60"], "20% of its ticks"),
}  # fmt: skip


def test_where_all_is_well_nothing_is_said():
    assert diagnose(window(HEALTHY)) == []
    assert bottleneck([]) is None


@pytest.mark.parametrize("code", CASES)
def test_each_verdict_alone(code):
    lines, words = CASES[code]
    (verdict,) = diagnose(window(with_lines(*lines)))
    assert verdict.code == code
    assert words in verdict.says
    assert verdict.advice
    assert (bottleneck([verdict]) is None) == (verdict.weight is Weight.NOTE)


def test_a_station_that_does_not_answer():
    (verdict,) = diagnose(window(HEALTHY, silent={"10.0.0.7:9100": "refused"}))
    assert (verdict.code, verdict.weight) == ("station_silent", Weight.STOPPED)
    assert "10.0.0.7:9100: refused" in verdict.says


def test_a_station_that_has_nothing_to_tell_is_given_the_window():
    before, after = (Reading(time_s, (), {}, ("10.0.0.7:9100",)) for time_s in (NOW_S - 10, NOW_S))
    (verdict,) = diagnose(Window(before, after))
    assert (verdict.code, verdict.weight) == ("station_mute", Weight.SLOW)
    assert "10.0.0.7:9100 answers" in verdict.says
    assert diagnose(Window(Reading(NOW_S - 10, ()), after)) == []


@pytest.mark.parametrize("event", ["server_silent", "intake"])
def test_an_intake_that_never_reached_its_server(event):
    (verdict,) = diagnose(window(f"replay last_event_timestamp_seconds event={event} 995"))
    assert (verdict.code, verdict.weight) == ("tables_silent", Weight.STOPPED)
    assert "replay hasn't heard from the replay server yet" in verdict.says


def test_looks_for_weights_that_fail_matter_once_there_are_newer_ones():
    """A robot that may list nothing is refused until the first publication, and one look may fail."""
    failed = "robot-0 last_event_timestamp_seconds event=weights_unavailable 995"
    assert codes("robot-0 policy_version 7", failed) == []
    assert codes(failed) == ["weights_unavailable"]  # one version behind, and it looked after that was published
    assert codes(failed, "learner publication_timestamp_seconds 997") == []  # it hasn't looked since
    assert codes(failed, "robot-0 last_event_timestamp_seconds event=swap 996") == []
    behind = "robot-0 policy_version 2"
    assert codes(behind, failed, "learner publication_timestamp_seconds 997") == ["weights_unavailable"]
    assert codes(behind, failed, "robot-0 last_event_timestamp_seconds event=swap 996") == ["robot_behind"]


def test_a_learner_that_never_managed_to_publish():
    lines = "learner publication_failures_total 3\nlearner learner_step 50"
    assert [verdict.code for verdict in diagnose(window(lines))] == ["publications_fail"]


def test_a_learner_without_data_is_told_between_its_deadlines_too():
    """Its counters don't grow and its gauges stand, in both readings."""
    still = with_lines(*STARVED, "replay table_sampled_items_total table=t/online 20")
    starved = window(still, before=still)
    assert [verdict.code for verdict in diagnose(starved)] == ["learner_starved"]
    figures = vitals(starved)
    assert not figures.keys() & {"learner_steps_per_s", "learner_wait_share", "ready_batches"}
    assert figures["staleness_steps"] == 40


@pytest.mark.parametrize("event", ["learner_step", "data_came"])
def test_a_learner_that_got_data_again_is_no_longer_starved(event):
    found = window(with_lines(*STARVED, f"learner last_event_timestamp_seconds event={event} 960"))
    assert diagnose(found) == []


def test_a_learner_that_never_had_data():
    lines = "learner events_total event=starved 1\nlearner last_event_timestamp_seconds event=starved 900"
    assert [verdict.code for verdict in diagnose(window(lines))] == ["learner_starved"]


def test_a_slow_learner_is_given_time():
    lines = ["learner last_event_timestamp_seconds event=learner_step 890"]
    slow = window(with_lines(*lines, "learner learner_report_seconds 40"))
    assert diagnose(slow) == []
    assert vitals(slow)["learner_steps_per_s"] == 21.4
    assert diagnose(window(with_lines(*lines, "learner learner_report_seconds 30"))) != []


def test_a_first_publication_that_does_not_come():
    lines = "learner unpublished_steps 75\nlearner publish_every_steps 25\nlearner learner_step 75"
    assert [verdict.code for verdict in diagnose(window(lines))] == ["publications_late"]
    failed = lines + "\nlearner publication_failures_total 1"
    assert [verdict.code for verdict in diagnose(window(failed))] == ["publications_fail"]


def test_the_bottleneck_is_what_stops_before_what_is_slow_and_the_first_on_the_way():
    lines = with_lines(
        "robot-0 spool_episodes 9",
        "replay intake_quarantined_total 1",
        "learner learner_wait_share 0.4",
        *NO_PUBLICATION,
    )
    verdicts = diagnose(window(lines))
    assert [verdict.code for verdict in verdicts] == [
        "publications_fail", "upload_slow", "learner_waits", "episodes_set_aside",
    ]  # fmt: skip
    found = bottleneck(verdicts)
    assert found is not None
    assert found.code == "publications_fail"


def test_what_was_so_before_the_window_is_not_told_again():
    old = with_lines(
        "robot-0 spool_given_up_total 2", "replay intake_quarantined_total 5", "robot-0 late_ticks_total 60"
    )
    assert diagnose(window(old, before=old)) == []


def test_vitals():
    figures = vitals(
        window(
            after=with_lines("robot-0 upload_seconds_sum 9", "robot-0 upload_seconds_count 4",
                             "learner correction_published_seconds_sum 8", "learner correction_published_seconds_count 2",
                             "robot-0 swap_seconds_sum 3", "robot-0 swap_seconds_count 2"),
            before="robot-0 upload_seconds_sum 3\nrobot-0 upload_seconds_count 2",
        )
    )  # fmt: skip
    assert figures["upload_s"] == 3.0  # (9 - 3) / (4 - 2)
    assert figures["correction_s"] == 5.5
    assert figures["staleness_steps"] == 40
    assert figures["spool_bytes"] == 100
    assert "intake_s" not in figures

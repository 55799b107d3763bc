"""The small parts around the loop, by hand-computed numbers."""

import numpy as np
import pytest

from sop_jax.robots.g1.config import TimingConfig
from sop_jax.robots.g1.loop_timing import LoopReport, LoopTimer
from sop_jax.robots.g1.watchdog import FollowingWatch, Watchdog
from sop_jax.robots.g1.workplace import AttendedWorkplace, Workplace
from sop_jax.specs.records import EpisodeEnd, Outcome

MS = 1_000_000


def test_late_and_over_count_from_the_last_command():
    watchdog = Watchdog(TimingConfig(command_late_s=0.2, give_up_s=2.0))
    assert not watchdog.is_late(10**12)  # Nothing was ever commanded.
    watchdog.feed(1000 * MS)
    assert [watchdog.is_late(1000 * MS + after) for after in (0, 199 * MS, 200 * MS)] == [False, False, True]
    assert [watchdog.is_over(1000 * MS + after) for after in (1999 * MS, 2000 * MS)] == [False, True]
    watchdog.feed(3000 * MS)
    assert not watchdog.is_late(3100 * MS)
    watchdog.stop()
    assert not watchdog.is_over(10**12)


def test_a_joint_that_stays_behind_and_does_not_move_is_found():
    watch = FollowingWatch(TimingConfig(max_lag_rad=0.2, max_lag_s=1.5))
    measured, command = np.zeros(14), np.zeros(14)
    command[9] = 0.25
    assert watch.find_stuck(command, measured, 0) is None
    assert watch.find_stuck(command, measured, 1499 * MS) is None
    assert watch.find_stuck(command, measured, 1500 * MS) == 9
    moved = measured.copy()
    moved[9] = 0.02
    assert watch.find_stuck(command, moved, 1600 * MS) is None  # It moves: slow, not stuck.
    assert watch.find_stuck(command, moved, 3200 * MS) == 9
    assert watch.find_stuck(command * 0.5, moved, 3300 * MS) is None
    assert watch.find_stuck(command, moved, 3400 * MS) is None
    watch.reset()
    assert watch.find_stuck(command, moved, 9900 * MS) is None


def test_a_jammed_joint_is_found_while_others_move():
    watch = FollowingWatch(TimingConfig(max_lag_rad=0.2, max_lag_s=1.5))
    command, measured, found = np.zeros(14), np.zeros(14), []
    command[9] = 0.25
    for tick in range(40):
        measured[2] = command[2] = 0.02 * tick  # the other arm works
        found.append(watch.find_stuck(command, measured, tick * 50 * MS))
    assert found == [None] * 30 + [9] * 10


def test_the_loop_report():
    timer = LoopTimer(period_ns=33 * MS)
    assert timer.report() == LoopReport(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for observed_ms, commanded_ms in ((0, 5), (33, 38), (66, 75)):
        timer.observed(observed_ms * MS)
        timer.commanded(commanded_ms * MS)
    report = timer.report()
    assert report.num_commands == 3
    assert report.mean_interval_s == pytest.approx(0.035)
    assert report.max_jitter_s == pytest.approx(0.004)
    assert report.rms_jitter_s == pytest.approx(np.sqrt(0.004**2 / 2))
    assert report.mean_latency_s == pytest.approx(0.019 / 3)
    assert report.max_latency_s == pytest.approx(0.009)
    timer.reset()
    assert timer.report().num_commands == 0


def test_a_person_sets_the_scene_and_the_first_judgement_counts():
    seeds = []
    workplace = AttendedWorkplace("restock_shelf", "put the cola back", seeds.append)
    assert isinstance(workplace, Workplace)
    workplace.mark(EpisodeEnd(Outcome.FAILURE, "dropped"))
    workplace.prepare(7)
    assert (seeds, workplace.verdict()) == ([7], None)
    workplace.mark(EpisodeEnd(Outcome.SUCCESS))
    workplace.mark(EpisodeEnd(Outcome.FAILURE, "dropped"))
    assert workplace.verdict() == EpisodeEnd(Outcome.SUCCESS)
    assert (workplace.task, workplace.instruction) == ("restock_shelf", "put the cola back")

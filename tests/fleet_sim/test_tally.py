import pytest

from fleet_sim.deployment import Deployment, Operators, Robots
from fleet_sim.tally import Tally


def test_only_what_falls_into_a_measured_stretch_counts():
    tally = Tally()
    early, long = tally.open(0.0, "moving_s"), tally.open(5.0, "moving_s")
    tally.note(9.0, "episode")
    tally.begin(10.0)
    tally.note(10.0, "episode")
    tally.close(12.0, early)
    tally.end(20.0)
    tally.note(20.0, "episode")  # what is due when a stretch ends comes after it
    tally.begin(30.0)
    tally.note(31.0, "episode", 3.0)
    late = tally.open(33.0, "moving_s")
    assert tally.total(34.0, "moving_s") == 2.0 + (10.0 + 4.0) + 1.0
    tally.close(35.0, late)
    assert tally.total(36.0, "moving_s") == 2.0 + (10.0 + 6.0) + 2.0
    tally.close(36.0, long)
    assert tally.total(99.0, "moving_s") == 2.0 + (10.0 + 6.0) + 2.0
    assert (tally.total(36.0, "episode"), tally.mean("episode")) == (4.0, 2.0)
    assert tally.measured_s(40.0) == 10.0 + 10.0


def test_figures_are_of_the_measured_time():
    tally = Tally()
    tally.begin(100.0)
    for time_s in (90.0, 100.0, 150.0):
        tally.note(time_s, "episode")
        tally.note(time_s, "delivered")
    helping = tally.open(140.0, "people_s")
    tally.end(160.0)
    tally.close(300.0, helping)
    result = tally.result(Deployment(Robots(1), operators=Operators(2)), 500.0, robot_s=60.0, backlog=7)
    assert (result.num_episodes, result.backlog, result.help_minutes) == (2, 7, pytest.approx(20 / 60))
    assert result.figures.delivered_per_hour == pytest.approx(120.0)
    assert result.figures.operator_load == pytest.approx(20 / (2 * 60))

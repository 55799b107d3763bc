import dataclasses
import math

import pytest

from fleet_sim.deployment import Deployment, Network, Operators, Robots, Training
from fleet_sim.planning import FanOut, predict
from sop_jax.specs.errors import ConfigError

UNLIMITED = Network(link_bps=math.inf, latency_s=0.0)
NOBODY = Operators(takeovers_per_episode=0.0)


def test_one_robot_by_hand():
    plan = predict(Deployment(Robots(1)))
    figures = plan.figures
    assert figures.episodes_per_hour == pytest.approx(3600 / (60 + 15 + 0.5 * 3))
    assert figures.delivered_per_hour == figures.episodes_per_hour
    assert figures.moving_share == pytest.approx(75 / 76.5)
    assert figures.upload_s == pytest.approx(0.05 + 60 * 10 * 36e3 * 8 / 50e6)
    service = 21.6e6 / 100e6
    load = service / 76.5
    assert figures.intake_s == pytest.approx(service + load * service / 2 / (1 - load))
    assert figures.fan_out_s == pytest.approx(
        0.05 + 780e6 * 8 / 50e6
    )  # 124.85 s, longer than the 25 s between versions
    assert figures.weights_age_s == pytest.approx(12.5 + 1.5 * 124.85 + 61.5 / 2)
    assert figures.versions_behind == pytest.approx((1.5 * 124.85 + 61.5 / 2) / 25)
    assert figures.operator_wait_s == pytest.approx(0, abs=1e-9)
    assert figures.operator_load == pytest.approx(0.5 * 13 / 76.5)
    latency_s = 61.5 / 2 + figures.upload_s + figures.intake_s + 1 + 12.5 + 1.5 * 124.85 + 76.5 / 2
    assert plan.correction_latency_s == pytest.approx(latency_s)
    assert plan.steps_per_episode == pytest.approx(76.5)
    assert plan.online_share == 0.5
    assert plan.draws_per_frame == pytest.approx(128 * 76.5 / 600)
    assert plan.stored_bytes_per_day == pytest.approx(21.6e6 * 86400 / 76.5)
    assert plan.fetched_bytes_per_day == pytest.approx(780e6 * 86400 / 124.85)
    assert plan.help_hours_per_day == pytest.approx(24 * 5 / 76.5)
    assert plan.bottleneck.name == "publication on robot links"
    assert plan.bottleneck.load == pytest.approx(124.8 / 25)


def test_nothing_in_the_way():
    plan = predict(Deployment(Robots(200, reset_s=0.0), UNLIMITED, Training(intake_bytes_per_s=math.inf), NOBODY))
    figures = plan.figures
    assert figures.episodes_per_hour == pytest.approx(200 * 60)
    assert (figures.upload_s, figures.intake_s, figures.fan_out_s, figures.operator_wait_s) == (0, 0, 0, 0)
    assert figures.moving_share == 1
    assert figures.weights_age_s == pytest.approx(12.5 + 30)
    # Half an episode, a step, half a period, and on average half an episode to the next boundary.
    assert plan.correction_latency_s == pytest.approx(30 + 1 + 12.5 + 30)
    assert [load.name for load in plan.loads if load.load] == ["learner"]


def test_a_full_uplink_delivers_what_it_can_carry():
    network = Network(site_link_bps=1e9, loss=0.1)
    plan = predict(Deployment(Robots(1000), network, Training(intake_bytes_per_s=1e9), NOBODY))
    assert plan.figures.episodes_per_hour == pytest.approx(1000 * 3600 / 75)
    assert plan.figures.delivered_per_hour == pytest.approx(3600 * 0.9e9 / (21.6e6 * 8))
    assert plan.figures.upload_s == math.inf
    assert plan.correction_latency_s == math.inf
    uplink = next(load for load in plan.loads if load.name == "shared uplink")
    assert uplink.saturates_at == pytest.approx(0.9e9 / (21.6e6 * 8) * 75)
    assert plan.stored_bytes_per_day == pytest.approx(0.9e9 / 8 * 86400)


def test_too_few_people_slow_the_robots_down_and_no_more():
    operators = Operators(num_operators=2, takeovers_per_episode=1.0)
    plan = predict(Deployment(Robots(200), operators=operators))
    assert plan.figures.operator_load == pytest.approx(1)
    assert plan.figures.episodes_per_hour == pytest.approx(3600 * 2 / 13)  # people set the pace
    assert plan.figures.operator_wait_s == pytest.approx(200 * 13 / 2 - 65 - 13)
    asked = next(load for load in plan.loads if load.name == "operators")
    assert asked.load == pytest.approx(200 * 13 / 78 / 2)
    assert asked.saturates_at == pytest.approx(12)


def test_a_cache_takes_the_robots_number_out_of_the_fan_out():
    network = Network(link_bps=1e9, site_link_bps=1e9, latency_s=0.0)
    robots = Robots(100)
    assert predict(Deployment(robots, network)).figures.fan_out_s == pytest.approx(100 * 6.24)
    cached = predict(Deployment(robots, dataclasses.replace(network, site_cache=True)))
    assert cached.figures.fan_out_s == pytest.approx(2 * 6.24)
    assert cached.site_fetched_bytes_per_day == pytest.approx(cached.fetched_bytes_per_day / 100)
    slow_link = predict(Deployment(robots, dataclasses.replace(network, link_bps=50e6, site_cache=True)))
    assert slow_link.fetched_bytes_per_day == pytest.approx(100 * 780e6 * 86_400 / 124.8)
    assert slow_link.site_fetched_bytes_per_day == pytest.approx(780e6 * 86_400 / 25)  # the cache keeps up all the same


def test_outages_and_failures_take_their_share():
    network = Network(latency_s=0.0, outage_every_s=900.0, outage_s=100.0)
    robots = Robots(1, failure_every_s=7500.0, repair_s=3750.0)
    figures = predict(Deployment(robots, network, operators=NOBODY)).figures
    assert figures.upload_s == pytest.approx(3.456 / 0.9 + 0.1 * 100)
    assert figures.episodes_per_hour == pytest.approx(3600 / (75 * 1.5))
    assert figures.moving_share == pytest.approx(1 / 1.5)


def test_the_replays_limit_holds_a_fast_learner_back():
    plan = predict(Deployment(Robots(1), training=Training(learner_steps_per_s=10.0), operators=NOBODY))
    assert plan.draws_per_frame == pytest.approx(32)
    assert plan.online_share == pytest.approx(32 * 600 / 75 / 2560)


def test_age_of_the_weights():
    assert FanOut(25.0, 0.0, 10.0).age_s == 10 + 12.5
    assert FanOut(25.0, 0.0, 50.0).age_s == 12.5 + 75
    assert FanOut(25.0, 5.0, 5.0).age_s == 10 + 12.5
    assert FanOut(25.0, 20.0, 20.0).age_s == 40 + 12.5  # each stage follows, though both together take longer than P
    assert FanOut(25.0, 5.0, 60.0).age_s == 5 + 12.5 + 60 + 30  # what lies in the cache is half a period old
    assert FanOut(25.0, 60.0, 5.0).age_s == 12.5 + 60 + 5 + 30  # a robot waits for the cache
    assert FanOut(25.0, 5.0, 60.0).taught_s == 12.5 + 30 + 65
    assert FanOut(25.0, 60.0, 5.0).taught_s == 12.5 + 30 + 65


def test_waiting_for_people_hides_no_other_limit():
    def full_at(num_robots, num_operators):
        deployment = Deployment(Robots(num_robots), Network(50e6, 10e9), operators=Operators(num_operators))
        return {load.name: load.saturates_at for load in predict(deployment).loads}

    few, many, enough = full_at(200, 1), full_at(4000, 1), full_at(200, 100)
    assert few == pytest.approx(many)
    for name in ("shared uplink", "intake", "learner"):
        assert few[name] == pytest.approx(enough[name], rel=0.01)
    assert enough["operators"] == pytest.approx(100 * few["operators"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deployment(Robots(0)), "Robots.num_robots must be at least 1, got 0"),
        (lambda: Deployment(Robots(episode_s=0.0)), "Robots.episode_s must be above 0"),
        (lambda: Deployment(network=Network(loss=1.0)), r"Network.loss must lie in \[0, 1\)"),
        (lambda: Deployment(network=Network(latency_s=math.nan)), "Network.latency_s must be a number"),
        (lambda: Deployment(training=Training(online_share=2.0)), "Training.online_share"),
        (lambda: Deployment(operators=Operators(help_s=121.0)), "more than an episode's 60 s"),
    ],
)
def test_what_can_not_be(make, message):
    with pytest.raises(ConfigError, match=message):
        make()

"""The way of an emulated G1 to its start: slow, able to be stopped, and refused where its posture isn't as configured."""

import dataclasses

import numpy as np
import pytest
from g1_parts import CONFIG, HOME, START_NS, make_bench, run

import envs
from sop_jax.actors.episode import EmptyEpisodeError
from sop_jax.robots.g1.config import PostureConfig, TimingConfig, UnitsConfig
from sop_jax.robots.g1.faults import StartStoppedError
from sop_jax.specs.records import EpisodeEnd, Outcome


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


def test_the_way_to_the_start_is_slow_and_ends_there(environment):
    # The world's own start is near HOME.
    start = HOME + np.tile([0, 0, 0, 0, 0.5, 0, 0.5], 2)
    bench = make_bench(environment, dataclasses.replace(CONFIG, start_rad=tuple(start)))
    environment_start = environment.reset(3).observation["state"][:14]
    bench.robot.reset(3)
    furthest = np.abs(environment_start - start).max()
    state = bench.robot.observe(images=False).state
    np.testing.assert_allclose(state[:14], start, atol=0.031)
    assert (bench.clock.now_ns() - START_NS) / 1e9 > (furthest - 0.03) / 0.5
    assert furthest > 0.4
    assert bench.robot.check_end() is None


def test_a_blocked_way_to_the_start_is_an_end(environment):
    start = HOME + np.tile([0, 0, 0, 0, 0.1, 0, 0.1], 2)
    config = dataclasses.replace(CONFIG, start_rad=tuple(start), timing=TimingConfig(reset_s=1.0))
    bench = make_bench(environment, config)
    bench.emulator.at(-7, ignores=True)
    with pytest.raises(EmptyEpisodeError, match="posture"):
        run(bench)


def stopping(bench_of, after_ticks, error):
    """Raises at that tick of the way, and keeps the times at which it was asked."""
    asked = []

    def watch():
        asked.append(bench_of().clock.now_ns())
        if len(asked) > after_ticks:
            raise error

    return watch


def _expect_stop(bench, error):
    started_ns = bench.clock.now_ns()
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            bench.robot.reset(3)
    else:
        bench.robot.reset(3)
        assert bench.robot.check_end() == EpisodeEnd(Outcome.ERROR, "start_stopped")
    assert (bench.clock.now_ns() - started_ns) / 1e9 < 1.0  # of the 20 s that the way may take


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StartStoppedError("a person stopped it")])
def test_the_way_of_the_arms_to_the_start_can_be_stopped(environment, error):
    start = HOME.copy()
    start[1] += 0.5
    config = dataclasses.replace(CONFIG, start_rad=tuple(start))
    bench = make_bench(environment, config, on_the_way=stopping(lambda: bench, 10, error))
    _expect_stop(bench, error)
    assert 0.02 < bench.emulator.target[1] - HOME[1] < 0.3  # Under way, and not there.
    sent = bench.emulator.target
    for _ in range(30):
        bench.clock.advance_s(0.1)
        bench.robot.watch()
    np.testing.assert_array_equal(bench.emulator.target, sent)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StartStoppedError("a person stopped it")])
def test_a_lift_on_its_way_is_sent_to_where_it_is(environment, error):
    posture = PostureConfig(lift_m=0.2, commanded=True)
    config = dataclasses.replace(CONFIG, posture=posture)
    bench = make_bench(environment, config, on_the_way=stopping(lambda: bench, 10, error))
    place, sent = bench.emulator.place, []

    def slowly(head=None, waist=None):
        if waist is not None:
            sent.append(waist[1])
            place(waist=(waist[0], 0.07))  # It gets so far by the time that it is stopped.

    bench.emulator.place = slowly
    _expect_stop(bench, error)
    assert sent == [pytest.approx(0.2), pytest.approx(0.07)]


def test_a_lift_that_does_not_arrive_in_time_is_sent_to_where_it_is(environment):
    posture = PostureConfig(lift_m=0.2, commanded=True)
    config = dataclasses.replace(CONFIG, posture=posture, timing=TimingConfig(reset_s=1.0))
    bench = make_bench(environment, config)
    place, sent = bench.emulator.place, []

    def blocked(head=None, waist=None):
        if waist is not None:
            sent.append(waist[1])
            place(waist=(waist[0], 0.07))

    bench.emulator.place = blocked
    bench.robot.reset(3)
    assert bench.robot.check_end() == EpisodeEnd(Outcome.ERROR, "posture")
    assert sent == [pytest.approx(0.2), pytest.approx(0.07)]


def test_a_posture_that_is_not_the_configured_one_is_refused_or_brought_about(environment):
    posture = PostureConfig(lift_m=0.2, head_yaw_rad=0.3)
    bench = make_bench(environment, dataclasses.replace(CONFIG, posture=posture))
    with pytest.raises(EmptyEpisodeError, match="posture"):
        run(bench)
    reason = bench.events("g1_fault")[0]["reason"]
    assert "lift is at 0.0200 m, expected 0.2000 within 0.02; head yaw is at 0.0000 rad" in reason
    commanded = dataclasses.replace(posture, commanded=True)
    bench = make_bench(environment, dataclasses.replace(CONFIG, posture=commanded))
    bench.robot.reset(3)
    assert bench.robot.check_end() is None


@pytest.mark.parametrize(("says", "speaks", "kind"), [("rad", "deg", "wrong_units"), ("deg", "rad", "posture")])
def test_a_head_that_speaks_another_unit_is_noticed_at_reset(environment, says, speaks, kind):
    config = dataclasses.replace(CONFIG, units=UnitsConfig(head_state=says))
    bench = make_bench(environment, config, units=UnitsConfig(head_state=speaks))
    bench.robot.reset(3)
    assert bench.robot.check_end() == EpisodeEnd(Outcome.ERROR, kind)
    assert "UnitsConfig" in bench.events("g1_fault")[0]["reason"]

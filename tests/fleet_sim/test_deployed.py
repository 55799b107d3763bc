"""A fleet's surroundings in a deployment, with episodes whose length and helps are given: no world, no worker."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest
import simpy

from fleet_sim.config import Operation, SimulatedFleetConfig, TimingConfig, operated
from fleet_sim.crew import EpisodeInPlay, EpisodeOrder, Helps, PlayedEpisode
from fleet_sim.deployed import DeployedFleet
from fleet_sim.deployment import Deployment, Network, Operators, Robots, Shift, Training
from fleet_sim.lost_episodes import NOBODY_CAME, cut
from fleet_sim.surroundings import HZ, FixedTimes
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.episodes.format import pack, unpack
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

DEPLOYMENT = Deployment(
    Robots(2, reset_s=4.0, kept_hz=10.0, frame_bytes=12_500.0),
    Network(link_bps=1e6, latency_s=0.5),
    Training(learner_steps_per_s=2.0, checkpoint_bytes=500_000.0, num_accelerators=1, intake_bytes_per_s=1e5),
    Operators(1, reaction_s=2.0),
)
"""A second of moving takes a second to upload; a publication takes 4 s and the latency."""


class SlowWorker(EpisodeInPlay):
    """Has never come further than it is asked for."""

    def __init__(self, order, num_frames, helps):
        super().__init__(order)
        self._end, self._all = num_frames, helps

    def wait(self, tick):
        if tick >= self._end:
            self.finish(PlayedEpisode(self._end, pathlib.Path(), True), helps=self._all)
        else:
            known = (tuple(edge for edge in edges if edge <= tick + 1) for edges in (self._all.starts, self._all.ends))
            self.note(tick + 1, Helps(*known))
        return super().wait(tick)


def played(num_frames, helps, slow=False):
    order = EpisodeOrder("robot-0.0.0", "robot-0", "restock_shelf", 0, 0, 0)
    if slow:
        return SlowWorker(order, num_frames, helps)
    playing = EpisodeInPlay(order)
    playing.finish(PlayedEpisode(num_frames, pathlib.Path(), True), helps=helps)
    return playing


def make(**changes):
    environment = simpy.Environment()
    return environment, DeployedFleet(environment, Operation(**{"deployment": DEPLOYMENT, **changes}), seed=0)


def lives(environment, fleet, robot, playing, ends, after_s=0.0):
    """A process: one episode of a robot; notes (when it ended, how)."""
    yield environment.timeout(after_s)
    try:
        lived = yield from fleet.live(robot, playing)
        ends.append((environment.now, lived))
    except simpy.Interrupt:
        ends.append((environment.now, None))


@pytest.mark.parametrize("slow", [False, True])
def test_robots_hold_still_until_the_only_person_is_free(slow):
    environment, fleet = make()
    fleet.begin()
    ends = []
    for robot in range(2):
        # Moves for 1.5 s, asks, is helped for 1 s, moves for 2.5 s; the second begins a second later.
        playing = played(150, Helps((45,), (75,)), slow)
        environment.process(lives(environment, fleet, robot, playing, ends, after_s=float(robot)))
    environment.run(until=20.0)
    (first_s, first), (second_s, second) = ends
    assert first_s == pytest.approx(5.0 + 2.0)
    assert second_s == pytest.approx(1.0 + 5.0 + 2.0 + 2.0)  # asked at 2.5; the person was free at 4.5
    assert (first.waited_s, second.waited_s) == (pytest.approx(2.0), pytest.approx(4.0))
    assert first.moved_s == second.moved_s == 5.0
    figures = fleet.result().figures
    assert figures.operator_wait_s == pytest.approx(1.0)
    assert figures.operator_load == pytest.approx(2 * 3.0 / 20)
    assert fleet.result().num_successes == 2


def test_how_far_a_worker_is_makes_no_difference_to_the_last_bit():
    def end_of(slow):
        environment, fleet = make()
        ends = []
        playing = played(1000, Helps((31, 500), (60, 1000)), slow)
        environment.process(lives(environment, fleet, 0, playing, ends, after_s=0.1))
        environment.run(until=100.0)
        return ends[0][0], ends[0][1].waited_s

    assert end_of(False) == end_of(True)

    def fixed_end_of(slow):
        environment = simpy.Environment()
        ends = []
        fixed = FixedTimes(environment, TimingConfig())
        environment.process(lives(environment, fixed, 0, played(1003, Helps(), slow), ends, after_s=0.1))
        environment.run(until=100.0)
        return ends[0][0]

    assert fixed_end_of(False) == fixed_end_of(True) == 0.1 + 1003 / HZ  # however often it was looked at


def test_nobody_comes():
    environment, fleet = make(patience_s=1e-6)
    fleet.begin()
    ends = []
    environment.process(lives(environment, fleet, 0, played(300, Helps((10,), (300,))), ends))
    environment.process(lives(environment, fleet, 1, played(300, Helps((40,), (70,))), ends))
    environment.run(until=60.0)
    (helped_s, helped), (lost_s, lost) = sorted(ends, key=lambda end: end[1].lost)
    assert not helped.lost
    assert helped_s == pytest.approx(12.0)
    assert lost.lost
    assert lost_s == pytest.approx(40 / 30)
    assert lost.num_frames == 40
    assert lost.moved_s == pytest.approx(40 / 30)
    assert fleet.result().num_lost == 1


@pytest.mark.parametrize("at_s", [1.5, 3.0, 5.0])
def test_the_end_of_a_stage_frees_people(at_s):
    """Interrupted at 1.5 s of its life while its person reacts, at 3 while it is helped; the other waits at 5."""
    environment, fleet = make()
    ends = []
    first = environment.process(lives(environment, fleet, 0, played(600, Helps((30,), (120,))), ends))
    second = environment.process(lives(environment, fleet, 1, played(600, Helps((60,), (600,))), ends))
    environment.run(until=at_s)
    for robot in (first, second):
        robot.interrupt()
    environment.run(until=at_s + 1)
    assert [end for _, end in ends] == [None, None]
    later = []
    environment.process(lives(environment, fleet, 0, played(60, Helps((30,), (60,))), later))
    environment.run(until=at_s + 10)
    assert later[0][1].waited_s == pytest.approx(2.0)


def test_uploads_and_publications_take_their_time():
    environment, fleet = make()
    ends, stored = [], []

    def deliver(lived):
        yield from fleet.deliver(0, lived)
        stored.append(environment.now)

    environment.process(lives(environment, fleet, 0, played(60, Helps()), ends))
    environment.run(until=2.5)
    environment.process(deliver(ends[0][1]))
    environment.run(until=10.0)
    # 2 s of moving are 250 KB: 2 s on the link, 0.5 s latency, 2.5 s in the intake.
    assert stored == [pytest.approx(2.5 + 2 + 0.5 + 2.5)]
    fleet.published()
    assert fleet.version_of(0) == 0
    environment.run(until=14.4)
    assert fleet.version_of(0) == 0
    fleet.settle()
    assert fleet.version_of(0) == fleet.version_of(1) == 1
    assert (fleet.version_at(14.4), fleet.version_at(14.6)) == (0, 1)
    assert fleet.learner_steps_per_s == 2.0


def test_robots_come_go_break_and_drift():
    robots = dataclasses.replace(DEPLOYMENT.robots, failure_every_s=50.0, repair_s=100.0, drift_every_s=100.0)
    deployment = dataclasses.replace(DEPLOYMENT, robots=robots)
    environment, fleet = make(deployment=deployment, shifts=(Shift(0, 1, 30.0, 80.0),))

    def joins():
        yield from fleet.join(0)
        assert environment.now == 30.0

    fleet.begin()
    environment.run(until=environment.process(joins()))
    assert fleet.is_there(0)

    drifts = []

    def rests():
        for _ in range(100):
            yield from fleet.rest(1, 46.0)
            drifts.append((fleet.drifts_of(0), fleet.drifts_of(1)))

    environment.run(until=environment.process(rests()))
    # Once in 50 s of moving, 100 s each: 100 repairs are spread by a tenth of their number, and so is their time.
    assert environment.now - 30.0 == pytest.approx(100 * 4.0 + 100 * 100.0, rel=0.4)
    assert not fleet.is_there(0)
    assert drifts == sorted(drifts)
    assert any(one != two for one, two in drifts)
    assert np.mean(drifts[-1]) == pytest.approx(environment.now / 100, rel=0.4)


def test_a_stretch_counts_who_was_there():
    environment, fleet = make(shifts=(Shift(0, 1, 30.0, 80.0),))
    for stretch, missing_s in ((100.0, 50.0), (20.0, 20.0)):
        fleet.begin()
        environment.run(until=environment.now + stretch)
        assert fleet.end() == pytest.approx(missing_s)
        environment.run(until=environment.now + 7.0)  # between two stretches
    assert fleet.result().robot_s == pytest.approx(150.0 + 20.0)


def test_a_lost_episode_keeps_what_came_before():
    whole = make_episode(num_frames=30, image_stride=3, takeovers=((3, 4, 8), (18, 20, 30)))
    kept = unpack(pack(cut(whole, 20)))
    assert kept.manifest.num_frames == 20
    assert (kept.manifest.outcome, kept.manifest.failure_kind) == (Outcome.FAILURE, NOBODY_CAME)
    assert [event.takeover_frame for event in kept.manifest.takeovers] == [4]
    np.testing.assert_array_equal(kept.arrays.action, whole.arrays.action[:20])
    np.testing.assert_array_equal(kept.arrays.image_frames, [0, 3, 6, 9, 12, 15, 18])
    assert kept.jpegs == whole.jpegs[:7]
    assert kept.manifest.ended_ns < whole.manifest.ended_ns
    with pytest.raises(ValueError, match="can't keep 0 of 30 frames"):
        cut(whole, 0)


def test_accelerators_share_a_step():
    one = Training(learner_steps_per_s=2.0, num_accelerators=1, serial_share=0.1)
    assert one.with_accelerators(9).learner_steps_per_s == pytest.approx(2.0 / (0.1 + 0.9 / 9))
    assert one.with_accelerators(9).with_accelerators(1).learner_steps_per_s == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="serial_share must lie in"):
        Deployment(training=Training(serial_share=1.5))


def test_one_description_for_both_modes():
    config = SimulatedFleetConfig(robots={"restock_shelf": 2}, algorithm=HgDaggerConfig())
    fleet = operated(config, Operation(DEPLOYMENT))
    assert fleet.learner.batch_size == fleet.loader.batch_size == DEPLOYMENT.training.batch_size
    assert fleet.learner.publish_every == DEPLOYMENT.training.publish_every
    with pytest.raises(ConfigError, match="num_robots is 2 in the deployment and 3 in the fleet"):
        operated(dataclasses.replace(config, robots={"restock_shelf": 3}), Operation(DEPLOYMENT))
    drifting = dataclasses.replace(DEPLOYMENT, robots=Robots(2, drift_every_s=60.0))
    with pytest.raises(ConfigError, match="choose a distribution of individuals"):
        operated(config, Operation(drifting))
    with pytest.raises(ConfigError, match="unknown rule 'loudest'"):
        Operation(DEPLOYMENT, rule="loudest")
    with pytest.raises(ConfigError, match="patience_s must be above 0"):
        Operation(DEPLOYMENT, patience_s=0.0)
    with pytest.raises(ConfigError, match=r"Operation.shifts: robot 2 of 2"):
        Operation(DEPLOYMENT, shifts=(Shift(0, 3),))
    assert math.isinf(Operation(DEPLOYMENT).patience_s)

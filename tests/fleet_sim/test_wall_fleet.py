"""The same small fleet of replayed robots on both clocks: what virtual time predicts is what wall time shows."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest

from fleet_sim.agreement import Agreement, compare_journals
from fleet_sim.config import Stage, TimingConfig
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.journal import EpisodeRecord, Journal, PublicationRecord
from fleet_sim.replayed import Recordings
from fleet_sim.wall_fleet import run_wall
from fleet_sim.wall_journal import make_journal
from fleet_sim.wall_learner import LearnerReport, LearnerSettings, WallLearner, fleet_config
from fleet_sim.wall_processes import WallOrder
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import NO_POLICY, Source

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"
TIMING = TimingConfig(learner_steps_per_s=1.0, reset_s=2.0, upload_s=0.2, swap_s=0.3)
SETTINGS = LearnerSettings(
    str(POLICY), "", "", {"restock_shelf": 8}, steps_per_s=1.0, batch_size=8, publish_every=5, warm_steps=2
)


def recordings():
    """Of 2 to 5 s, each helped in its middle."""
    return [
        make_episode(seed, 60 + 15 * seed, image_stride=6, takeovers=((20, 20, 50),), robot_id="recorded-0")
        for seed in range(7)
    ]


def demonstrations(root):
    store = EpisodeStore(f"file://{root}/store/")
    for seed in range(2):
        store.put(make_episode(seed, 60, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0"))
    return f"file://{root}/store/"


@pytest.mark.slow
@pytest.mark.reverb
def test_virtual_time_predicts_wall_time(tmp_path):
    duration_s = 40.0
    config = fleet_config(SETTINGS, TIMING)
    recorded = EpisodeStore(f"file://{tmp_path}/recorded/")
    for episode in recordings():
        recorded.put(episode)
    demonstrations(tmp_path / "virtual")
    fleet = SimulatedFleet(
        config, load_bundle(POLICY), POLICY, create_algorithm(config.algorithm), tmp_path / "virtual", 1,
        recordings=Recordings.of_store(recorded, "restock_shelf"),
    )  # fmt: skip
    try:
        fleet.run(Stage(0.0, then_steps=SETTINGS.warm_steps))
        fleet.run(Stage(duration_s, learner_steps=1000))
        virtual = fleet.journal()
    finally:
        fleet.close()
    store = demonstrations(tmp_path / "wall")
    settings = dataclasses.replace(SETTINGS, store=store)
    wall = run_wall(config, settings, f"file://{tmp_path}/recorded/", tmp_path / "wall", duration_s)
    found = compare_journals(virtual, wall.journal)
    print(found, wall.learner, wall.crowds)
    assert abs(found.episodes) <= 0.03
    assert abs(found.publications) <= 1  # on virtual time the rest is published when the stage ends
    assert abs(found.median_staleness_s) <= 1.5
    assert found.staleness_ks <= 0.25  # on an idle machine 0.14 to 0.20
    assert abs(found.online_share) <= 0.1


def journal(ages, **changes):
    episodes = tuple(
        EpisodeRecord(f"e{n}", "r", "t", 0.0, 1.0, 1, "success", "", 0, 0.0, age, 0) for n, age in enumerate(ages)
    )
    values = {"publications": (), "learner_steps": 10, "last_version": 3, "duration_s": 10.0, "num_robots": 1}
    return Journal(episodes=episodes, online_share=0.5, **{**values, **changes})


def test_how_two_journals_differ():
    made = tuple(PublicationRecord(n, n, 1.0 * n) for n in range(1, 4))
    one = journal([1.0, 2.0, 3.0, 4.0], publications=made)
    assert compare_journals(one, one) == Agreement(0.0, 0, 0.0, 0.0, 0.0, 0)
    other = dataclasses.replace(
        journal([3.0, 4.0, 5.0, 6.0, 7.0], publications=made[:1], learner_steps=12), online_share=0.75
    )
    # More than 4 s old are none of the first and three of five of the second; up to 2 s two of four and none.
    assert compare_journals(one, other) == Agreement(0.25, -2, pytest.approx(0.6), 2.5, 0.25, 2)
    assert math.isnan(compare_journals(one, journal([])).staleness_ks)


@pytest.mark.parametrize(("pace", "published_s", "age_s"), [(1.0, 4.0, 7.0), (2.0, 8.0, 3.0)])
def test_the_journal_is_in_the_robots_seconds(tmp_path, pace, published_s, age_s):
    """An episode of 2 s from the 10th second on, with a version that was published after 4 s of the wall clock."""
    url = f"file://{tmp_path}/store/"
    EpisodeStore(url).put(make_episode(0, 60, started_ns=15_000_000_000, policy_version=2, takeovers=((5, 8, 20),)))
    EpisodeStore(url).put(
        make_episode(1, 60, source=Source.OFFLINE, policy_version=NO_POLICY, robot_id="demonstrator-0")
    )
    report = LearnerReport(((2, 7, 4.0),), 9, 0.5, 1.0, 0.0)
    found = make_journal(
        fleet_config(SETTINGS, TIMING),
        dataclasses.replace(SETTINGS, store=url),
        report,
        WallOrder(5_000_000_000, 30.0),
        pace,
    )
    (episode,) = found.episodes
    assert (episode.started_s, episode.ended_s) == (10.0, pytest.approx(12.0))
    assert (episode.version, episode.versions_behind, episode.num_takeovers) == (2, 0, 1)
    assert episode.staleness_s == pytest.approx(age_s)
    assert episode.human_s == pytest.approx(12 / 30)
    assert [made.published_s for made in found.publications] == [0.0, published_s]
    assert (found.duration_s, found.num_robots) == (30.0 * pace, 8)


class Counting:
    """A learning side whose steps take time, and whose data come at the third look."""

    def __init__(self, clock, step_s):
        self._clock, self._step_s = clock, step_s
        self.num_steps = self.last_version = self.num_looks = 0

    def take_in_stored(self):
        self.num_looks += 1

    def is_ready(self):
        return self.num_looks > 3

    def step(self, fetch_ahead):
        self._clock.sleep_s(self._step_s)
        self.num_steps += 1
        self.last_version += self.num_steps % 5 == 0

    def publish(self):
        self.last_version += 1

    def online_share(self):
        return 0.5


@pytest.mark.parametrize(("step_s", "late_s"), [(0.4, 0.0), (3.0, 20.0)])
def test_the_learner_keeps_its_speed_or_says_how_late_it_was(step_s, late_s):
    clock = ManualClock(0)
    learning = Counting(clock, step_s)
    learner = WallLearner(SETTINGS, learning, clock)  # type: ignore[arg-type]
    learner.warm_up()
    assert (learning.num_steps, learning.last_version) == (2, 1)
    report = learner.run(clock.now_ns(), 20.0)
    assert report.began_s == pytest.approx(3.0)
    assert report.num_steps == 2 + 17  # ticks 3 to 19
    assert [version for version, _, _ in report.publications] == [2, 3, 4]
    assert report.publications[0][1] == 5
    assert report.max_late_s >= late_s
    if not late_s:
        assert np.diff([at_s for _, _, at_s in report.publications]) == pytest.approx([5.0, 5.0])
        assert report.max_late_s == 0.0

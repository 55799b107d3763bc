"""Replayed robots on both clocks: the same lives, without a world."""

import pathlib

import numpy as np
import pytest

from fleet_sim import fleet as fleet_module
from fleet_sim import learning_side as learning_side_module
from fleet_sim.config import SimulatedFleetConfig, Stage, TimingConfig
from fleet_sim.crew import EpisodeOrder
from fleet_sim.crowd import Crowd, CrowdSettings
from fleet_sim.deployment import Deployment, Operators, Robots, Training
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.planning import predict
from fleet_sim.replayed import Recordings, relive
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.format import pack
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.verify import verify_bytes
from sop_jax.learner.config import LearnerConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.replay.items import DEFAULT_SEGMENT_LENGTH
from sop_jax.replay.tables import MixConfig
from sop_jax.sampling.adaptive import SamplerConfig
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import NO_POLICY, Source
from tests.fleet_sim.test_fleet_deployed import CountingLearner

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"
EPISODES = [make_episode(seed, 60 + 30 * seed, image_stride=30, image_size=8) for seed in range(3)]
"""Of 2, 3 and 4 s."""


def test_a_recording_becomes_another_robots_episode():
    demonstration = make_episode(image_size=8, source=Source.OFFLINE, policy_version=NO_POLICY)
    order = EpisodeOrder("robot-7.00000000000000000005.000002", "robot-7", "restock_shelf", 11, 5_000_000_000, 3)
    again = relive(demonstration, order)
    manifest, arrays = again.manifest, again.arrays
    assert (manifest.robot_id, manifest.policy_version, manifest.source) == ("robot-7", 3, Source.ONLINE)
    assert manifest.num_interventions == 1
    assert (arrays.policy_version == 3).all()
    assert arrays.time_ns[0] == manifest.started_ns == 5_000_000_000
    np.testing.assert_array_equal(np.diff(arrays.time_ns), np.diff(demonstration.arrays.time_ns))
    np.testing.assert_array_equal(arrays.action, demonstration.arrays.action)
    verify_bytes(pack(again), f"episodes/robot-7/{order.episode_id}.zip")
    with pytest.raises(ConfigError, match="at least one episode"):
        Recordings([])


def crowd(root, num_robots, duration_s, clock, start_ns=None):
    ids = tuple(SimulatedFleetConfig({"restock_shelf": num_robots}, HgDaggerConfig()).robot_ids)
    settings = CrowdSettings(
        recordings="", store=f"file://{root}/store/", task="restock_shelf", robot_ids=ids,
        first_s=tuple(2.0 * n / num_robots for n in range(num_robots)), duration_s=duration_s, reset_s=2.0,
        start_ns=clock.now_ns() if start_ns is None else start_ns,
    )  # fmt: skip
    return Crowd(settings, Recordings(EPISODES), clock)


def lives_of(root):
    """What is in the store: robot -> [(start, end) of each episode, in order], to the microsecond."""
    lives = {}
    for summary in EpisodeStore(f"file://{root}/store/").summaries():
        manifest = summary.manifest
        times = tuple(round(ns / 1e3) for ns in (manifest.started_ns, manifest.ended_ns))
        lives.setdefault(manifest.robot_id, []).append(times)
    return {robot: sorted(times) for robot, times in lives.items()}


def test_replayed_robots_live_alike_on_both_clocks(tmp_path, monkeypatch):
    """The wall clock here is one that a test moves: what is compared is the plan of the lives, not the machine."""
    monkeypatch.setattr(fleet_module, "LearningSide", CountingLearner)
    config = SimulatedFleetConfig(
        {"restock_shelf": 5}, HgDaggerConfig(), timing=TimingConfig(reset_s=2.0, upload_s=0.0, swap_s=0.0)
    )
    fleet = SimulatedFleet(
        config, None, tmp_path, create_algorithm(config.algorithm), tmp_path / "virtual", 1,  # type: ignore[arg-type]
        recordings=Recordings(EPISODES),
    )  # fmt: skip
    fleet.run(Stage(31.0))
    report = crowd(tmp_path / "wall", 5, 31.0, ManualClock(0)).run()
    virtual, wall = lives_of(tmp_path / "virtual"), lives_of(tmp_path / "wall")
    assert virtual == wall
    assert report.num_episodes == sum(map(len, wall.values())) == len(fleet.journal().episodes)
    assert report.num_episodes > 5 * 31 / (4 + 2 + 1)
    assert report.max_late_s == 0.0


def test_a_late_machine_says_so(tmp_path):
    class Slow(ManualClock):
        """Every look at it takes a tenth of a second."""

        def now_ns(self):
            self.sleep_s(0.1)
            return super().now_ns()

    report = crowd(tmp_path, 20, 10.0, Slow()).run()
    assert report.max_late_s > 1.0
    assert report.num_episodes > 20


def test_a_crowd_that_is_started_again_goes_on(tmp_path, monkeypatch):
    clock, store = ManualClock(0), EpisodeStore(f"file://{tmp_path}/store/")
    first = crowd(tmp_path, 5, 31.0, clock).run(lambda: clock.now_ns() >= 7e9)
    before = {path: store.read_bytes(path) for path in store.list_paths()}
    assert first.num_episodes == len(before) >= 5
    now_ns = clock.now_ns()
    monkeypatch.setattr("fleet_sim.crowd.current_version", lambda root: 3)
    again = crowd(tmp_path, 5, 31.0, clock, start_ns=0).run()
    assert {path: store.read_bytes(path) for path in before} == before
    new = [store.read_without_images(path).manifest for path in store.list_paths() if path not in before]
    assert again.num_episodes == len(new) > 5 * 24 / (4 + 2 + 1)
    assert {manifest.policy_version for manifest in new} == {3}
    assert min(manifest.started_ns for manifest in new) == now_ns
    assert len({manifest.started_ns for manifest in new if manifest.started_ns < now_ns + 2e9}) == 5  # still one by one
    assert again.max_late_s == 0.0
    seeds = [store.read_without_images(path).manifest.seed for path in store.list_paths()]
    assert len(set(seeds)) == len(seeds)  # nobody sees a scene again


def test_robots_that_had_not_begun_yet_keep_their_time(tmp_path):
    clock = ManualClock(1_000_000_000)
    crowd(tmp_path, 5, 12.0, clock, start_ns=0).run()  # due at 0, 0.4, 0.8, 1.2 and 1.6 s
    begun_s = [min(times)[0] / 1e6 for _, times in sorted(lives_of(tmp_path).items())]
    assert begun_s == pytest.approx([1.0, 1.4, 1.8, 1.2, 1.6])


class Draws:
    """In the learner's place: takes batches, and learns nothing of them."""

    def __init__(self, config, model, algorithm, params, norm, loader, publisher, metrics, clock):
        self._loader, self.current_step, self.last_version = loader, 0, 0

    def step(self, fetch_ahead):
        self._loader.next()
        self.current_step += 1

    def settle(self):
        pass

    def publish(self):
        self.last_version += 1

    def close(self):
        pass


@pytest.mark.parametrize(("draws_per_frame", "expected"), [(2.0, 0.5), (1.0, 0.2857)])
def test_the_plans_share_of_online_data_is_what_a_fleet_draws(tmp_path, monkeypatch, draws_per_frame, expected):
    """A fixed share is asked of real tables, loader and limiter: 20 examples a second, of 11.4 new frames a second."""
    monkeypatch.setattr(learning_side_module, "Learner", Draws)
    timing = TimingConfig(learner_steps_per_s=5.0, reset_s=3.0, upload_s=0.5, swap_s=0.5)
    config = SimulatedFleetConfig(
        {"restock_shelf": 2}, HgDaggerConfig(), timing=timing, learner=LearnerConfig(batch_size=8, publish_every=4),
        loader=LoaderConfig(batch_size=8), sampler=SamplerConfig(mode="fixed", fixed_online_share=0.5),
        mix=MixConfig(online_samples_per_insert=draws_per_frame * DEFAULT_SEGMENT_LENGTH),
    )  # fmt: skip
    recorded = [
        make_episode(seed, 120, image_stride=3, image_size=64, source=Source.OFFLINE, policy_version=NO_POLICY)
        for seed in range(2)
    ]
    store = EpisodeStore(f"file://{tmp_path}/store/")
    for episode in recorded:
        store.put(episode)
    algorithm = create_algorithm(config.algorithm)
    fleet = SimulatedFleet(config, load_bundle(POLICY), POLICY, algorithm, tmp_path, 1, recordings=Recordings(recorded))
    fleet.run(Stage(100.0, learner_steps=500))
    found = fleet.journal().online_share
    fleet.close()
    training = Training(learner_steps_per_s=5.0, batch_size=8, samples_per_frame=draws_per_frame, publish_every=4)
    robots, nobody = Robots(2, episode_s=4.0, reset_s=3.0), Operators(takeovers_per_episode=0.0)
    planned = predict(Deployment(robots, training=training, operators=nobody)).online_share
    assert planned == pytest.approx(expected, abs=1e-4)
    assert found == pytest.approx(planned, rel=0.1)

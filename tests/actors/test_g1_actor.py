"""The whole actor over an emulated G1: policy, supervisor, spool and store, on a simulated clock."""

import dataclasses
import itertools

import numpy as np
import pytest
from actor_parts import FlakyStore, make_runner

import envs
from sop_jax.actors.actor import Actor, ActorConfig, RobotBrokenError
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.verify import verify_bytes
from sop_jax.robots.g1.config import CameraConfig, G1RobotConfig
from sop_jax.robots.g1.emulated_sdk import connect_emulator
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Outcome

START_NS = 10**18
CAMERAS = tuple(CameraConfig(name, name, 16, 16, 16, 16) for name in ("head", "hand_left", "hand_right"))
CONFIG = G1RobotConfig(cameras=CAMERAS, time_limit_s=1.0)
AWAY = ConnectionError("no route to the store")


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=16)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def runner():
    return make_runner()


class Site:
    """One robot, its actor's parts, and the store that it reaches over a network that may be gone."""

    def __init__(self, environment, store_url, directory, config=CONFIG):
        self.clock, self.metrics, self.store = ManualClock(START_NS), MemoryMetrics(), FlakyStore(store_url)
        self.environment = environment
        self.emulator = Emulator(environment, self.clock, config.units, config.cameras)
        link = connect_emulator(self.emulator)
        self.robot = G1Robot(config, link, self.emulator, self.clock, self.metrics, background=False)
        spool = SpoolConfig(first_retry_s=1.0, max_retry_s=60.0)
        self.spool = Spool(directory, self.store, self.clock, self.metrics, spool, background=False)

    def run(self, runner, on_episode=None, supervisor=None, **settings):
        config = ActorConfig(
            "g1-1",
            "restock_shelf",
            supervised=supervisor is not None,
            rollout=RolloutConfig(execute_steps=4, realtime=True),
            **settings,
        )
        parts = {"supervisor": supervisor, "metrics": self.metrics, "on_episode": on_episode}
        return Actor(config, self.robot, runner, self.spool, self.clock, **parts).run()

    def stored(self):
        for path in self.store.store.list_paths():
            episode_id = path.rpartition("/")[2].removesuffix(".zip")
            yield verify_bytes(self.store.store.read_bytes(path), episode_path(episode_id), spec=self.robot.spec)

    def events(self, name):
        return [event for event in self.metrics.events if event["event"] == name]


@pytest.fixture
def site(environment, store_url, tmp_path):
    site = Site(environment, store_url, tmp_path / "spool")
    yield site
    site.spool.close()


def test_a_supervisor_saves_the_task_on_the_emulated_robot(environment, store_url, tmp_path, runner):
    site = Site(environment, store_url, tmp_path / "spool", dataclasses.replace(CONFIG, time_limit_s=30.0))
    supervisor = ScriptedSupervisor(environment, envs.make_expert(environment), envs.make_gate(environment))
    report = site.run(runner, supervisor=supervisor, num_episodes=1)
    assert (report.num_episodes, report.num_successes) == (1, 1)
    assert site.spool.drain(1.0)
    (end,) = site.events("episode_end")
    assert end["num_interventions"] == 1
    assert len(list(site.stored())) == 1
    (robots_own,) = site.events("g1_episode")
    assert robots_own["episode_started_ns"] == end["started_ns"]  # By this, events find their episode.
    assert robots_own["num_frames"] == end["num_frames"]
    site.spool.close()


def test_an_hour_without_a_network_costs_no_episode(site, runner):
    """The robot goes on, its spool grows; an hour later all that it did is in the store, once."""
    site.store.broken = AWAY
    pending = []

    def between(episode):
        site.spool.upload_due()
        pending.append((site.spool.num_pending, site.spool.pending_bytes))
        site.clock.advance_s(600.0)  # People set the next scene.

    report = site.run(runner, on_episode=between, num_episodes=7)
    assert (site.clock.now_ns() - START_NS) / 1e9 > 3600
    assert report.num_episodes == 7
    assert [count for count, _ in pending] == list(range(1, 8))
    assert all(earlier < later for (_, earlier), (_, later) in itertools.pairwise(pending))
    assert list(site.store.store.list_paths()) == []
    assert len(site.events("upload_failed")) >= 7
    assert site.events("g1_fault") == []

    site.store.broken = None
    assert site.spool.drain(120.0)
    ids = [event["episode_id"] for event in site.events("episode_end")]
    assert [event["episode_id"] for event in site.events("upload")] == ids
    assert len(list(site.stored())) == 7
    assert (site.spool.num_pending, site.spool.pending_bytes) == (0, 0)


def test_a_stop_in_the_middle_of_a_chunk_is_an_episode_and_the_next_one_waits_for_its_release(site, runner):
    site.emulator.at(10, emergency_stop=True)

    def release(episode):
        site.emulator.inject(emergency_stop=False)

    report = site.run(runner, on_episode=release, num_episodes=2)
    assert report.num_episodes == 2
    first, second = site.events("episode_end")
    assert (first["outcome"], first["failure_kind"]) == (Outcome.ERROR, "emergency_stop")
    assert first["num_frames"] % 4 == 3  # Frames 8 to 11 are one chunk.
    assert second["outcome"] == Outcome.TIMEOUT
    assert site.spool.drain(1.0)
    assert len(list(site.stored())) == 2


def test_a_robot_that_stays_stopped_is_broken(site, runner):
    site.emulator.at(0, emergency_stop=True)
    site.emulator.prepare(0)
    site.clock.advance_s(1.0)
    site.emulator.catch_up()
    with pytest.raises(RobotBrokenError, match="5 episodes in a row"):
        site.run(runner)
    assert site.emulator.num_commands == 0


def test_the_same_seeds_give_the_same_episodes(environment, store_url, tmp_path, runner):
    episodes = []
    for name in ("a", "b"):
        site = Site(environment, f"{store_url}{name}/", tmp_path / name)
        site.run(runner, on_episode=episodes.append, num_episodes=1)
        site.spool.close()
    first, second = episodes
    assert first.manifest == second.manifest
    assert first.jpegs == second.jpegs
    np.testing.assert_array_equal(first.arrays.action, second.arrays.action)

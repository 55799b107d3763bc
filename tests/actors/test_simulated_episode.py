"""Whole episodes in a MuJoCo world: what the actor records passes every check of intake."""

import numpy as np
import pytest

import envs
from sop_jax.actors.demonstrate import DemonstrationConfig, StartNoise, collect_demonstrations
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.verify import verify_bytes
from sop_jax.robots.scripted_supervisor import ScriptedSupervisor
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import Outcome

EPISODE_ID = "sim-1.00000000000000000001.000000"


@pytest.fixture(scope="module")
def environment():
    environment = envs.load("restock_shelf", image_size=32)
    yield environment
    environment.close()


def check(episode, robot):
    episode_id = episode.manifest.episode_id
    verify_bytes(pack(episode), episode_path(episode_id), spec=robot.spec, decode_all_images=True)


def test_the_supervisor_saves_an_episode_of_a_policy_that_stands_still(environment):
    robot = SimulatedRobot(environment, ManualClock(10**18))
    supervisor = ScriptedSupervisor(environment, envs.make_expert(environment), envs.make_gate(environment))

    def once():
        header = EpisodeHeader(EPISODE_ID, seed=3, world=robot.world)
        return run_episode(robot, FakePolicy(), supervisor, header, RolloutConfig(), ManualClock())

    episode = once()
    check(episode, robot)
    assert episode.manifest.outcome is Outcome.SUCCESS
    (event,) = episode.manifest.takeovers
    assert event.takeover_frame - event.asked_frame == 9
    assert event.handback_frame == episode.manifest.num_frames
    jump = np.abs(episode.arrays.action[event.takeover_frame] - episode.arrays.state[event.takeover_frame])
    assert np.max(jump[:14]) < 0.2  # The expert starts from where the robot is.
    assert pack(once()) == pack(episode)


def test_demonstrations_from_noisy_starts(environment):
    robot = SimulatedRobot(environment, ManualClock(10**18))
    episodes = []
    config = DemonstrationConfig(start_noise=StartNoise(0.05, 0.3, dims=tuple(range(7, 14))))
    expert = envs.make_expert(environment)
    report = collect_demonstrations(
        robot, expert, 2, 0, episodes.append, ManualClock(10**18), robot_id="demo", world=robot.world, config=config
    )
    assert report.num_tried == 2
    for episode in episodes:
        check(episode, robot)

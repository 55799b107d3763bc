"""Stages of a recorded episode, from a replay of its actions."""

import dataclasses

import numpy as np
import pytest

import envs
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.stages import StageFinder
from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import Outcome, Source


@pytest.fixture(scope="module")
def episode():
    robot = make_robot(WorldConfig(image_size=8), ManualClock(), "demonstrator-0")
    expert = envs.make_expert(robot.environment)
    header = EpisodeHeader("demonstrator-0.1.0", seed=7, source=Source.OFFLINE)
    made = run_episode(robot, None, None, header, RolloutConfig(), ManualClock(), expert=expert)
    robot.close()
    return made


def test_a_replay_says_where_the_task_stood(episode):
    finder = StageFinder()
    stages = finder.find(episode.manifest, episode.arrays)
    finder.close()
    assert episode.manifest.outcome == Outcome.SUCCESS
    assert stages is not None
    assert len(stages) == episode.manifest.num_frames
    assert list(dict.fromkeys(stages))[:4] == ["approach", "grasp", "move", "place"]


def test_an_episode_that_comes_out_differently_has_no_stages(episode):
    finder = StageFinder()
    assert finder.find(dataclasses.replace(episode.manifest, seed=8), episode.arrays) is None
    arrays = dataclasses.replace(episode.arrays, state=episode.arrays.state + np.float32(0.01))
    assert finder.find(episode.manifest, arrays) is None
    assert finder.find(dataclasses.replace(episode.manifest, task="cooking"), episode.arrays) is None
    finder.close()

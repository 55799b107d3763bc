import dataclasses

import numpy as np
import pytest

from sop_jax.actors.demonstrate import DemonstrationConfig, collect_demonstrations
from sop_jax.actors.disturbance import DisturbanceConfig, DisturbedRobot
from sop_jax.robots.fake import FakeExpert, FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome

ALWAYS = DisturbanceConfig(joint_std_rad=0.3, every_s=0.2, lasts_s=(0.1, 0.2), share=1.0)
GRIPPERS = [14, 15]


def states(config, seed, num_ticks=60):
    """Where the robot stands after each tick of holding its start pose [ticks, 16], and what it said it executed."""
    robot = DisturbedRobot(FakeRobot(FakeRobotConfig(max_step=0.1), ManualClock()), config)
    robot.reset(seed)
    hold = robot.observe(images=False).state
    found = []
    for _ in range(num_ticks):
        np.testing.assert_array_equal(robot.apply(hold), hold)  # the record holds what was meant
        found.append(robot.observe(images=False).state - hold)
    return np.array(found)


def test_arms_are_pushed_off_and_let_go_again_and_grippers_are_not():
    away = states(ALWAYS, seed=3)
    assert np.abs(away[:, :14]).max(axis=0).min() > 0.05  # every arm joint was off at some time
    assert np.abs(away).max() <= 0.6 + 1e-6  # two deviations
    assert not away[:, GRIPPERS].any()
    still = ~away.any(axis=1)
    assert still[10:].any()  # between two pushes it is back
    assert still.sum() < len(still)


def test_pushes_follow_from_the_seed():
    np.testing.assert_array_equal(states(ALWAYS, seed=3), states(ALWAYS, seed=3))
    assert (states(ALWAYS, seed=3) != states(ALWAYS, seed=4)).any()


def test_only_a_share_of_the_episodes_is_disturbed():
    config = dataclasses.replace(ALWAYS, share=0.3)
    disturbed = [states(config, seed, 30).any() for seed in range(60)]
    assert 0.15 < np.mean(disturbed) < 0.45
    assert not states(dataclasses.replace(ALWAYS, share=0.0), seed=3).any()


def test_demonstrations_show_the_way_back():
    robot = FakeRobot(clock=ManualClock())
    episodes = []
    config = DemonstrationConfig(disturbance=dataclasses.replace(ALWAYS, joint_std_rad=0.1))
    collect_demonstrations(
        robot, FakeExpert(robot), 3, 0, episodes.append, ManualClock(), robot_id="demonstrator-0", config=config
    )
    plain = []
    collect_demonstrations(robot, FakeExpert(robot), 3, 0, plain.append, ManualClock(), robot_id="demonstrator-0")
    for episode, undisturbed in zip(episodes, plain, strict=True):
        assert episode.manifest.outcome is Outcome.SUCCESS
        assert episode.arrays.intervention.all()
        # The robot went another way; the expert's commands always lead from where it stands towards the goal.
        assert not np.array_equal(episode.arrays.state[:20], undisturbed.arrays.state[:20])
        goal = undisturbed.arrays.action[-1]
        left = np.abs(episode.arrays.action - goal).max(axis=1)
        assert (left <= np.abs(episode.arrays.state - goal).max(axis=1) + 1e-6).all()


@pytest.mark.parametrize(
    "change", [{"joint_std_rad": -0.1}, {"every_s": 0.0}, {"lasts_s": (0.5, 0.2)}, {"share": 1.5}, {"every_s": np.nan}]
)
def test_nonsense_is_refused(change):
    with pytest.raises(ConfigError, match="DisturbanceConfig needs"):
        DisturbanceConfig(**change)

"""Tiny episodes with a scripted time line -> who acted on every frame, and the edges of the interventions.

In the tables: p = the policy acts, a = the policy acts while a takeover has been asked for, S = the supervisor acts.
"""

import numpy as np
import pytest

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.takeover import Control, Takeover
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig, TimelineSupervisor
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import TakeoverEvent as Event

LETTERS = {Control.POLICY: "p", Control.ASKED: "a", Control.SUPERVISOR: "S"}

LOST = {"pppaa": {3}}  # Requests without an event.

# (asks at frames, holds for, delay in frames, episode length) -> letters, events (asked, takeover, handback)
TIMELINES = [
    ((), 2, 2, "pppppp", []),
    ((2,), 3, 2, "ppaaSSSppp", [(2, 4, 7)]),
    ((2,), 3, 0, "ppSSSppp", [(2, 2, 5)]),
    ((0,), 1, 0, "Sppp", [(0, 0, 1)]),
    ((0,), 99, 1, "aSSSS", [(0, 1, 5)]),  # Acts until the end.
    ((3,), 2, 3, "pppaa", []),  # The end comes before the takeover.
    ((3,), 2, 2, "pppaaS", [(3, 5, 6)]),
    ((1, 2), 2, 2, "paaSSpp", [(1, 3, 5)]),  # A second request while asked changes nothing.
    ((1, 6), 2, 1, "paSSppaSSp", [(1, 2, 4), (6, 7, 9)]),
    ((1, 4), 2, 1, "paSSppp", [(1, 2, 4)]),  # Nobody listens on the tick of the handback.
    ((1, 5), 2, 1, "paSSpaSSp", [(1, 2, 4), (5, 6, 8)]),  # But on the next.
    ((1, 4), 2, 0, "pSSpSSp", [(1, 1, 3), (4, 4, 6)]),
    ((1, 3), 3, 1, "paSSSpp", [(1, 2, 5)]),  # Nobody listens while the supervisor acts.
]


@pytest.mark.parametrize(("asks_at", "hold", "delay", "letters", "events"), TIMELINES)
def test_timelines(asks_at, hold, delay, letters, events):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=len(letters)), ManualClock())
    supervisor = TimelineSupervisor(robot, asks_at, hold, action=np.full(16, 0.5))
    config = RolloutConfig(execute_steps=4, reaction_delay_s=delay / 30)
    episode = run_episode(robot, FakePolicy(version=7), supervisor, _header(), config, ManualClock())

    assert episode.manifest.takeovers == tuple(Event(*edges, reason="operator") for edges in events)
    np.testing.assert_array_equal(episode.arrays.intervention, [letter == "S" for letter in letters])
    np.testing.assert_array_equal(episode.arrays.action[:, 0] == 0.5, episode.arrays.intervention)
    assert set(episode.arrays.policy_version.tolist()) == {7}


@pytest.mark.parametrize(("asks_at", "hold", "delay", "letters", "events"), TIMELINES)
def test_the_machine_alone(asks_at, hold, delay, letters, events):
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=10**6))
    robot.reset(0)
    supervisor = TimelineSupervisor(robot, asks_at, hold, action=np.zeros(16))
    takeover = Takeover(supervisor, delay)
    got = ""
    for frame in range(len(letters)):
        control = takeover.begin_tick(frame)
        assert takeover.control is control
        heard = {event[0] for event in events} | LOST.get(letters, set())
        assert takeover.new_request == ("operator" if frame in heard else "")
        got += LETTERS[control]
        if control is Control.SUPERVISOR:
            supervisor.act()
        robot.apply(np.zeros(16))
    assert got == letters


def test_the_gate_sees_every_tick_on_which_the_policy_acts():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=12))
    supervisor = TimelineSupervisor(robot, [3], 4, action=np.zeros(16))
    frames = []
    listen = supervisor.wants_control
    supervisor.wants_control = lambda: (frames.append(robot.frame), listen())[1]
    run_episode(robot, FakePolicy(), supervisor, _header(), RolloutConfig(reaction_delay_s=2 / 30), ManualClock())
    assert frames == [0, 1, 2, 3, 4, 10, 11]  # On 5 to 8 the supervisor acts, on 9 it hands back.


def test_the_stale_chunk_is_dropped_and_the_policy_looks_afresh_after_the_handback():
    robot = FakeRobot(FakeRobotConfig(time_limit_frames=14), ManualClock())
    supervisor = TimelineSupervisor(robot, [2], 3, action=np.full(16, 0.3))
    policy = FakePolicy()  # Holds the pose it saw.
    config = RolloutConfig(execute_steps=8, reaction_delay_s=2 / 30)
    episode = run_episode(robot, policy, supervisor, _header(), config, ManualClock())
    frames = [round(time_ns * 30 / 1e9) for time_ns in policy.times_ns]
    assert frames == [0, 7]  # At the start, and at the handback; the chunk of frame 0 would have lasted to frame 8.
    np.testing.assert_array_equal(episode.arrays.action[7], episode.arrays.state[7])


def test_a_negative_delay_is_refused():
    with pytest.raises(ConfigError, match="delay_frames"):
        Takeover(None, -1)
    with pytest.raises(ConfigError, match="reaction_delay_s"):
        RolloutConfig(reaction_delay_s=-0.1)


def test_the_delay_is_rounded_to_ticks():
    assert RolloutConfig(reaction_delay_s=0.3).delay_frames(30.0) == 9
    assert RolloutConfig(reaction_delay_s=0.02).delay_frames(30.0) == 1


def _header():
    return EpisodeHeader("fake-1.00000000000000000001.000000", seed=0)

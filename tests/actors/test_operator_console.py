import threading

import numpy as np
import pytest

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.operator.attended_robot import AttendedRobot
from sop_jax.actors.operator.commands import HandBack, Mark, Move, Ready, StageMark, Take, Targets
from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.standstill import StandstillGate
from sop_jax.actors.operator.steering import Steering
from sop_jax.actors.operator.supervisor import OperatorSupervisor
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig
from sop_jax.robots.g1.workplace import AttendedWorkplace
from sop_jax.robots.two_arm import two_arm_spec
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.interfaces import Request, Supervisor
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import EpisodeEnd, EpisodeMark, Outcome

SPEC = two_arm_spec("g1", 16)
HOME = np.array([-1.075, 0.6108, 0.279, -1.284, 0.731, 1.495, -0.188])
POSE = np.concatenate([HOME, -HOME, [0.0, 0.0]]).astype(np.float32)
HEADER = EpisodeHeader("g1-1.00000000000000000001.000000", seed=5)
FAILURE, SUCCESS = Mark(Outcome.FAILURE), Mark(Outcome.SUCCESS)


class ScriptedGate:
    def __init__(self, says):
        self.says, self.resets = list(says), 0

    def reset(self):
        self.resets += 1

    def check(self):
        return self.says.pop(0) if self.says else ""


@pytest.fixture(scope="module")
def steering():
    return Steering(SPEC)


class Place:
    """A console, a fake robot and a person's supervisor."""

    def __init__(self, steering, gate=None, **robot):
        self.clock, self.metrics = ManualClock(5), MemoryMetrics()
        self.console = Console("g1-1", self.clock, lambda: 4, self.metrics)
        self.robot = AttendedRobot(FakeRobot(clock=self.clock), self.console, **robot)
        self.supervisor = OperatorSupervisor(self.console, self.robot, steering, gate)
        self.robot.reset(3)
        self.supervisor.reset()


@pytest.fixture
def place(steering):
    return Place(steering)


def test_control_goes_where_the_person_wants_it(place):
    assert isinstance(place.supervisor, Supervisor)
    state = place.robot.observe().state
    assert place.supervisor.wants_control() is None
    assert place.console.status.control == "policy"
    place.console.obey(Take())
    assert place.supervisor.wants_control() == Request("operator")
    np.testing.assert_array_equal(place.supervisor.act(), state)  # The person lets go: it holds.
    assert place.console.status.control == "operator"
    assert not place.supervisor.releases_control()
    place.console.obey(HandBack())
    assert place.supervisor.releases_control()
    assert place.console.status.control == "policy"
    assert [event["event"] for event in place.metrics.events] == ["operator_take", "operator_hand_back"]


def test_a_person_begins_where_the_robot_was_sent_last(place):
    place.robot.observe()
    place.robot.apply(POSE)  # The fake robot is far from there yet.
    np.testing.assert_array_equal(place.supervisor.act(), POSE)


def test_motions_run_out_and_grippers_stay(place):
    place.console.obey(Move("left", (0.1, 0.0, 0.0), gripper=1.0))
    place.clock.advance_s(0.29)
    assert place.console.motion == Move("left", (0.1, 0.0, 0.0), gripper=1.0)
    place.clock.advance_s(0.02)
    assert place.console.motion is None
    place.console.obey(Move("left", (0.0, 0.1, 0.0)))
    assert place.console.motion == Move("left", (0.0, 0.1, 0.0), gripper=1.0)
    place.console.obey(Move("right", (0.0, 0.1, 0.0)))
    assert place.console.motion == Move("right", (0.0, 0.1, 0.0))
    targets = Targets((0.0,) * 16)
    place.console.obey(targets)
    place.clock.advance_s(60.0)
    assert place.console.motion == targets


def test_what_the_gate_says_stands_until_a_person_has_acted(steering):
    gate = ScriptedGate(["", "no_progress", "", ""])
    place = Place(steering, gate)
    assert [place.supervisor.wants_control() for _ in range(3)] == [None] * 3
    assert place.console.status.asks == "no_progress"
    place.console.obey(Take())
    assert place.supervisor.wants_control() == Request("no_progress")
    place.supervisor.act()
    assert place.console.status.asks == ""
    place.console.obey(HandBack())
    place.supervisor.releases_control()
    assert place.supervisor.wants_control() is None
    assert (place.console.status.asks, gate.resets) == ("", 2)


def test_marks_end_the_episode_with_the_persons_label(place):
    place.robot.observe()
    place.console.obey(StageMark("grasped"))
    assert place.console.status.stage == "grasped"
    place.console.obey(FAILURE)
    place.console.obey(SUCCESS)  # The first judgement counts.
    assert place.robot.check_end() == EpisodeEnd(Outcome.FAILURE, "after_grasped")
    assert place.console.status.last_end == "failure (after_grasped)"
    assert place.console.status.control == "between"
    place.console.obey(SUCCESS)  # Nothing is under way.
    place.robot.reset(4)
    assert place.robot.check_end() is None
    place.console.obey(FAILURE)
    assert place.robot.check_end() == EpisodeEnd(Outcome.FAILURE, "operator")
    place.robot.reset(5)
    place.console.obey(SUCCESS)
    assert place.robot.check_end() == EpisodeEnd(Outcome.SUCCESS)
    stage, mark = place.metrics.events[:2]
    assert (stage["stage"], mark["outcome"]) == ("grasped", "failure")
    assert stage["episode_started_ns"] == mark["episode_started_ns"] == 5


def test_stage_marks_belong_to_the_episode(place):
    place.robot.observe()
    place.robot.apply(np.zeros(place.robot.spec.action_dim))
    place.robot.observe()
    place.console.obey(StageMark("grasped"))
    assert place.robot.take_marks() == [EpisodeMark(1, "stage", "grasped")]
    assert place.robot.take_marks() == []
    place.console.obey(StageMark("lifted"))
    place.robot.reset(6)
    assert place.robot.take_marks() == []


def test_a_workplace_may_be_told_instead(steering):
    workplace = AttendedWorkplace("fold", "fold it", lambda seed: None)
    place = Place(steering, judge=workplace.mark)
    place.console.obey(SUCCESS)
    assert workplace.verdict() == EpisodeEnd(Outcome.SUCCESS)
    assert place.robot.check_end() is None  # The robot that has this workplace says so itself.


def test_takeovers_need_an_episode(place):
    console = Console("g1-1", ManualClock())
    console.obey(Take())
    console.obey(SUCCESS)
    assert not console.operator_wanted
    place.console.obey(Take())
    place.robot.reset(9)
    assert not place.console.operator_wanted  # Nor does one outlive its episode.


def test_the_scene_waits_for_a_person():
    console = Console("g1-1", clock := ManualClock())
    console.obey(Ready())  # Too early: said before anybody asked.
    waits = threading.Event()

    def sleep_s(duration_s):
        assert console.status.control == "scene"
        console.obey(Ready())
        waits.set()

    clock.sleep_s = sleep_s
    assert console.wait_for_scene("fold", "fold it")
    assert waits.is_set()
    assert (console.status.control, console.status.instruction) == ("between", "fold it")
    assert not console.wait_for_scene("fold", "fold it", should_stop=lambda: True)


def test_a_takeover_on_the_way_to_the_start_stops_the_robot(place):
    place.console.end_episode(EpisodeEnd(Outcome.SUCCESS))
    place.console.obey(Take())  # Nothing moves yet.
    assert place.console.allow_way()
    assert place.console.status.control == "start"
    place.console.obey(FAILURE)
    place.console.obey(Take())
    assert not place.console.allow_way()
    assert [event["event"] for event in place.metrics.events] == ["operator_stop"]
    place.robot.reset(5)
    assert place.console.status.control == "policy"
    assert place.console.allow_way()  # The next way is another one.


class StoppedAtItsStart(FakeRobot):
    """Somebody says stop when it has just arrived at its start: nobody asks any more whether it may go on."""

    def reset(self, seed):
        super().reset(seed)
        assert self.console.allow_way()
        self.console.obey(Take())


def test_a_stop_that_comes_too_late_for_the_way_is_a_takeover(steering):
    clock, metrics = ManualClock(5), MemoryMetrics()
    robot = StoppedAtItsStart(FakeRobotConfig(time_limit_frames=10), clock)
    robot.console = console = Console("g1-1", clock, metrics=metrics)
    attended = AttendedRobot(robot, console)
    supervisor = OperatorSupervisor(console, attended, steering)
    episode = run_episode(attended, FakePolicy(), supervisor, HEADER, RolloutConfig(reaction_delay_s=0.0), clock)
    assert episode.arrays.intervention.all()  # The policy never acts, and the robot holds.
    np.testing.assert_array_equal(episode.arrays.action, np.tile(episode.arrays.action[0], (10, 1)))
    assert [takeover.reason for takeover in episode.manifest.takeovers] == ["operator"]
    assert [event["event"] for event in metrics.events] == ["operator_stop"]


def test_a_stop_that_was_heard_on_the_way_takes_nothing_over(place):
    place.console.end_episode(EpisodeEnd(Outcome.SUCCESS))
    place.console.allow_way()
    place.console.obey(Take())
    assert not place.console.allow_way()
    place.robot.reset(5)
    assert not place.console.operator_wanted


def test_what_is_said_of_one_episode_does_not_meet_another(place):
    place.robot.observe()
    place.console.end_episode(EpisodeEnd(Outcome.TIMEOUT, "timeout"))
    place.robot.reset(4)
    for late in (Mark(Outcome.SUCCESS, episode=0), StageMark("grasped", episode=0), Mark(Outcome.SUCCESS, episode=2)):
        place.console.obey(late)
    assert place.robot.check_end() is None
    assert (place.console.status.stage, place.robot.take_marks(), place.metrics.events) == ("", [], [])
    place.console.obey(StageMark("grasped", episode=1))
    place.console.obey(Mark(Outcome.FAILURE, episode=1))
    assert place.robot.check_end() == EpisodeEnd(Outcome.FAILURE, "after_grasped")


def test_a_scene_is_set_for_the_episode_that_was_meant():
    console = Console("g1-1", clock := ManualClock())
    console.end_episode(EpisodeEnd(Outcome.SUCCESS))
    said = [Ready(episode=0), Ready(episode=1)]
    clock.sleep_s = lambda duration_s: console.obey(said.pop(0))
    assert console.wait_for_scene("fold", "fold it")
    assert said == []


def test_no_episode_begins_while_one_is_judged(place):
    console, still_waits = place.console, []

    def judge(end):
        def go_on():
            console.end_episode(end)
            console.begin_episode("fold", "fold it", 30.0)

        racer = threading.Thread(target=go_on)
        racer.start()
        racer.join(0.2)
        still_waits.append(racer)
        assert racer.is_alive()

    console.set_judge(judge)
    console.obey(SUCCESS)
    (racer,) = still_waits
    racer.join()
    assert console.status.num_episodes == 1


def test_a_robot_that_stands_still_asks_for_help(place):
    gate = StandstillGate(place.robot, 30.0, patience_s=0.1)
    place.robot.observe()
    assert [gate.check() for _ in range(5)] == ["", "", "", "standstill", "standstill"]
    place.robot.apply(place.robot.pose + 0.02)
    place.robot.observe()
    assert gate.check() == "standstill"  # not far enough to count
    place.robot.apply(place.robot.pose + 0.04)
    place.robot.observe()
    assert gate.check() == ""
    gate.check(), gate.check(), gate.reset()
    assert gate.check() == ""


def test_faults_show(place):
    place.console.end_episode(EpisodeEnd(Outcome.ERROR, "emergency_stop"))
    assert place.console.status.fault == "emergency_stop"
    assert place.console.status.last_end == "error (emergency_stop)"
    place.robot.reset(1)
    assert place.console.status.fault == ""


class Photographer:
    def __init__(self):
        self.num_taken, self.closed = 0, False

    def take(self):
        self.num_taken += 1
        return {"head": np.zeros((4, 4, 3), np.uint8)}

    def close(self):
        self.closed = True


def test_pictures_for_people_are_made_while_somebody_watches(steering):
    place = Place(steering, photographer=(photographer := Photographer()))
    for _ in range(10):
        place.robot.apply(place.robot.observe(images=False).state)
    assert (photographer.num_taken, place.console.pictures[0]) == (0, 0)
    place.console.watched = True
    for _ in range(10):
        place.robot.apply(place.robot.observe(images=False).state)
    assert photographer.num_taken == 2  # every fifth tick
    assert list(place.console.pictures[1]) == ["head"]
    place.console.watched = False
    place.robot.observe(images=True)
    assert sorted(place.console.pictures[1]) == ["hand_left", "hand_right", "head"]
    place.robot.close()
    assert photographer.closed


def _drive(steering, motion, ticks=30):
    """On a robot that does all that it is told."""
    steering.begin(pose := POSE)
    for _ in range(ticks):
        pose = steering.step(motion, pose)
    return pose


class LimitedRobot:
    """Executes at most `max_step_rad` per tick and joint, and nothing while it is blocked, as a safety filter may."""

    def __init__(self, max_step_rad):
        self.pose, self.max_step_rad, self.is_blocked = POSE, max_step_rad, False

    def apply(self, action):
        step = np.clip(action - self.pose, -self.max_step_rad, self.max_step_rad)
        step[14:] = (action - self.pose)[14:]
        self.pose = self.pose if self.is_blocked else self.pose + step
        return self.pose


def _drive_limited(steering, robot, motion, ticks):
    """The robot's poses."""
    return np.array([robot.apply(steering.step(motion, robot.pose)) for _ in range(ticks)])


@pytest.mark.parametrize(
    "motion",
    [Move("right", (0.25, 0.0, 0.0)), Move("left", angular=(0.0, 0.0, 1.2)), Targets((0.0,) * 14 + (0.5, 0.5))],
)
def test_who_lets_go_of_a_slow_robot_has_stopped_it(steering, motion):
    robot = LimitedRobot(0.5 / 30)  # the shipped station's max_speed
    steering.begin(robot.pose)
    driven = _drive_limited(steering, robot, motion, 60)
    assert np.abs(driven[-1, :14] - driven[-2, :14]).max() > 0.005  # It was on its way.
    rested = _drive_limited(steering, robot, None, 60)
    np.testing.assert_array_equal(rested, np.tile(driven[-1], (60, 1)))


def test_a_slow_robot_is_driven_at_its_speed_and_the_way_that_it_is_told(steering):
    robot = LimitedRobot(0.5 / 30)
    steering.begin(robot.pose)
    start = steering.hand_position("right")
    driven = _drive_limited(steering, robot, Move("right", (0.0, 0.0, 0.25)), 30)
    assert np.median(np.abs(np.diff(driven, axis=0)).max(axis=1)) == pytest.approx(0.5 / 30, rel=0.01)
    moved = steering.hand_position("right") - start
    assert moved[2] > 0.1
    assert np.abs(moved[:2]).max() < 0.003


@pytest.mark.parametrize(
    ("held", "away"),
    [
        (Move("right", (0.1, 0.0, 0.0)), Move("right", (-0.1, 0.0, 0.0))),
        (Move("right", (0.1, 0.0, 0.0)), Move("right", (0.0, 0.1, 0.0))),
        (Move("right", angular=(0.0, 0.0, 0.5)), Move("right", angular=(0.0, 0.0, -0.5))),
    ],
)
def test_a_key_held_against_a_limit_needs_no_way_back(steering, held, away):
    robot = LimitedRobot(1.0)
    robot.is_blocked = True
    steering.begin(robot.pose)
    _drive_limited(steering, robot, held, 90)
    robot.is_blocked = False
    turned = robot.apply(steering.step(away, robot.pose))
    # The same as if nothing had been held: the first tick goes the new way.
    steering.begin(POSE)
    np.testing.assert_allclose(turned, steering.step(away, POSE), atol=1e-6)


def test_the_wanted_pose_stays_near_an_arm_that_is_held(steering):
    robot = LimitedRobot(1.0)
    robot.is_blocked = True
    steering.begin(robot.pose)
    start = steering.hand_position("right")
    for _ in range(90):
        steering.step(Move("right", (0.25, 0.0, 0.0)), robot.pose)
    assert np.linalg.norm(steering.hand_position("right") - start) < 0.03 + 0.25 / 30


def test_a_policy_that_is_handed_a_slow_robot_holds_what_was_executed(steering):
    """Steered by hand through the whole loop, with an inference that takes three ticks after the handback."""
    robot = SlowRobot(FakeRobotConfig(time_limit_frames=40, tolerance=1e-6), ManualClock())
    console = Console("g1-1", ManualClock())
    attended = AttendedRobot(robot, console)
    supervisor = OperatorSupervisor(console, attended, steering)
    apply, label = robot.apply, {5: Take(), 20: HandBack()}

    def apply_and_command(action):
        if (command := label.get(robot.frame)) is not None:
            console.obey(command)
        if robot.frame == 6:
            console.obey(Targets((1.0,) * 14 + (0.0, 0.0)))
        return apply(action)

    robot.apply = apply_and_command
    config = RolloutConfig(execute_steps=4, reaction_delay_s=0.0, inference_delay_frames=3)
    episode = run_episode(attended, FakePolicy(), supervisor, HEADER, config, ManualClock())
    actions, acted = episode.arrays.action, np.flatnonzero(episode.arrays.intervention)
    assert acted[-1] == 20
    assert actions[20, 0] - actions[10, 0] == pytest.approx(10 * SlowRobot.MAX_STEP_RAD, abs=1e-5)
    np.testing.assert_array_equal(actions[21:24], np.tile(actions[20], (3, 1)))


class SlowRobot(FakeRobot):
    """Lets a command through slowly, and says so."""

    MAX_STEP_RAD = 0.01

    def reset(self, seed):
        super().reset(seed)
        self._command = self._state.copy()

    def apply(self, action):
        self._command = self._command + np.clip(action - self._command, -self.MAX_STEP_RAD, self.MAX_STEP_RAD)
        return super().apply(self._command)


@pytest.mark.parametrize("hand", ["left", "right"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_hand_goes_where_it_is_sent_and_the_other_one_stays(steering, hand, axis):
    linear = [0.0, 0.0, 0.0]
    linear[axis] = -0.06 if axis == 1 else 0.06
    steering.begin(POSE)
    before = steering.hand_position(hand)
    action = _drive(steering, Move(hand, tuple(linear)))
    np.testing.assert_allclose(steering.hand_position(hand) - before, linear, atol=0.012)
    other = slice(7, 14) if hand == "left" else slice(0, 7)
    np.testing.assert_array_equal(action[other], POSE[other])


def test_what_cant_be_reached_is_not_run_after(steering):
    action = _drive(steering, Move("right", (0.25, 0.0, 0.0)), ticks=150)
    assert np.all(np.isfinite(action))
    reached = steering.hand_position("right")
    for _ in range(12):
        action = steering.step(Move("right", (-0.25, 0.0, 0.0)), action)
    assert steering.hand_position("right")[0] < reached[0] - 0.03  # It turns round at once.


def test_no_joint_hurries_and_none_passes_its_limits(steering):
    steering.begin(POSE)
    far = Targets((4.0,) * 14 + (0.5, 1.0))
    poses = [POSE]
    for _ in range(200):
        poses.append(steering.step(far, poses[-1]))
    assert np.max(np.abs(np.diff(poses, axis=0)[:, :14])) <= 0.06 + 1e-6
    np.testing.assert_allclose(poses[-1], [*SPEC.action_high[:14], 0.5, 1.0], atol=1e-6)


def test_turning_keeps_the_hand_in_its_place(steering):
    steering.begin(POSE)
    before = steering.hand_position("left")
    action = _drive(steering, Move("left", angular=(0.0, 0.0, 0.5), gripper=0.7), ticks=20)
    np.testing.assert_allclose(steering.hand_position("left"), before, atol=0.01)
    assert np.max(np.abs(action[:7] - POSE[:7])) > 0.1
    assert action[14] == np.float32(0.7)
    np.testing.assert_array_equal(steering.step(None, action), action)

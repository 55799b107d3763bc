"""From what a person's hand does to targets of the robot's joints.

Legend: `A` action dimensions (16).
"""

import dataclasses
import math

import numpy as np

from envs.g1.arm_ik import ArmIk
from envs.g1.config import G1Config
from envs.g1.kinematics import load_kinematics
from sop_jax.actors.operator.commands import Hand, Motion, Move, Targets
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import RobotSpec

_ARMS = {"left": slice(0, 7), "right": slice(7, 14)}
_GRIPPERS = {"left": 14, "right": 15}
_SAME_WAY = 0.9  # cosine


@dataclasses.dataclass(frozen=True)
class SteeringConfig:
    """max_step_rad: the most that a joint's target may lie beyond what the robot was last sent, whatever the person asks for.
    max_lead_m, max_lead_rad: how far the wanted pose may lie ahead of the arm, where the arm can't follow.
    """

    max_step_rad: float = 0.06
    max_lead_m: float = 0.03
    max_lead_rad: float = 0.2

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value > 0 for value in dataclasses.astuple(self)):
            raise ConfigError(f"SteeringConfig: all values must be positive and finite, got {self}")


@dataclasses.dataclass
class _Wanted:
    """Where one hand shall be: position [3] and rotation matrix [3, 3] in the base frame; and the motion [3], [3] for which
    each of the two began.
    """

    position: np.ndarray
    rotation: np.ndarray
    linear: np.ndarray
    angular: np.ndarray


class Steering:
    """Moves joint targets so that one hand follows a velocity; all else stays. Holds scratch memory: not thread-safe.

        steering.begin(pose)                          # float32 [A], where the robot was sent last
        action = steering.step(motion, executed)      # float32 [A], every tick; None = hold

    `executed` is the command that the robot made of the last action, which a safety filter may have slowed down or held.
    Every step starts there, so nothing that was asked for and not done is done later: who lets go has stopped.

    Hands are moved by differential inverse kinematics on the G1's arms. What a motion can't reach is not tried for long: the
    wanted pose never runs far ahead of the arm, and a motion another way starts from the arm itself.
    """

    def __init__(self, spec: RobotSpec, config: SteeringConfig | None = None, body: G1Config | None = None):
        home = load_kinematics().home
        self._config = config or SteeringConfig()
        self._period_s = 1.0 / spec.control_hz
        self._low = np.asarray(spec.action_low, np.float64)
        self._high = np.asarray(spec.action_high, np.float64)
        self._arms = {
            "left": ArmIk("left", np.array(home.left_arm_rad), body),
            "right": ArmIk("right", np.array(home.right_arm_rad), body),
        }
        self._pose = np.zeros(len(self._low))
        self._wanted: dict[str, _Wanted] = {}

    def begin(self, pose: np.ndarray) -> None:
        """A person acts from here on."""
        self._start_from(pose)
        self._wanted = {}

    def step(self, motion: Motion | None, executed: np.ndarray) -> np.ndarray:
        self._start_from(executed)
        if isinstance(motion, Targets):
            self._wanted = {}
            self._approach(slice(0, 14), np.array(motion.action[:14]))
            self._pose[14:] = motion.action[14:]
        elif isinstance(motion, Move):
            self._move(motion)
        else:
            self._wanted = {}
        self._pose = np.clip(self._pose, self._low, self._high)
        return self._pose.astype(np.float32)

    def hand_position(self, hand: Hand) -> np.ndarray:
        """The tool point [m], float64 [3], in the base frame, at the present targets."""
        return self._arms[hand].pose(self._pose[_ARMS[hand]])[0]

    def _start_from(self, pose: np.ndarray) -> None:
        self._pose = np.clip(np.asarray(pose, np.float64), self._low, self._high)

    def _move(self, motion: Move) -> None:
        if motion.gripper is not None:
            self._pose[_GRIPPERS[motion.hand]] = motion.gripper
        if not (any(motion.linear) or any(motion.angular)):
            self._wanted.pop(motion.hand, None)
            return
        arm, joints = self._arms[motion.hand], _ARMS[motion.hand]
        wanted = self._aim(motion, *arm.pose(self._pose[joints]))
        wanted.position = wanted.position + np.array(motion.linear) * self._period_s
        wanted.rotation = _turn(np.array(motion.angular) * self._period_s) @ wanted.rotation
        self._approach(joints, arm.step(self._pose[joints], wanted.position, wanted.rotation))
        self._wanted[motion.hand] = wanted

    def _aim(self, motion: Move, position: np.ndarray, rotation: np.ndarray) -> _Wanted:
        """What was wanted before this motion, near enough to where the hand was sent. What another motion left unreached is
        forgotten: else a hand that was held at a limit would first have to be driven back out of it.
        """
        linear, angular = np.array(motion.linear), np.array(motion.angular)
        wanted = self._wanted.get(motion.hand) or _Wanted(position, rotation, linear, angular)
        if _turns_away(wanted.linear, linear):
            wanted.position, wanted.linear = position, linear
        if _turns_away(wanted.angular, angular):
            wanted.rotation, wanted.angular = rotation, angular
        return self._rein_in(wanted, position, rotation)

    def _approach(self, joints: slice, target: np.ndarray) -> None:
        step = np.clip(target - self._pose[joints], -self._config.max_step_rad, self._config.max_step_rad)
        self._pose[joints] += step

    def _rein_in(self, wanted: _Wanted, position: np.ndarray, rotation: np.ndarray) -> _Wanted:
        lead = wanted.position - position
        distance = float(np.linalg.norm(lead))
        if distance > self._config.max_lead_m:
            wanted.position = position + lead * (self._config.max_lead_m / distance)
        cosine = (float(np.trace(wanted.rotation @ rotation.T)) - 1.0) / 2.0
        if math.acos(min(1.0, max(-1.0, cosine))) > self._config.max_lead_rad:
            wanted.rotation = rotation
        return wanted


def _turns_away(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two motions [3] are not the same way: one of them rests, or they are more than about 25 degrees apart."""
    lengths = float(np.linalg.norm(before)), float(np.linalg.norm(now))
    if 0.0 in lengths:
        return lengths[0] != lengths[1]
    return float(before @ now) < _SAME_WAY * lengths[0] * lengths[1]


def _turn(vector: np.ndarray) -> np.ndarray:
    """The rotation matrix of a rotation vector [3] (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)

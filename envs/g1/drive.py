"""The robot's joint drive: 16 absolute targets in, 16 measured values out.

Order everywhere: left arm j1-7 [rad], right arm j1-7 [rad], left gripper, right gripper [0 open .. 1 closed].
"""

import math

import mujoco
import numpy as np

from envs.errors import InvalidActionError
from envs.g1.kinematics import ARM_JOINTS, GRIPPER_NAMES, SIDES, load_kinematics
from envs.g1.robot import short_name

STATE_DIM = 16
CONTROL_HZ = 30
MAX_STEP_RAD = 0.2618  # a command further than this from where a joint is gets clipped (15 degrees)
LEFT_ARM, RIGHT_ARM = slice(0, ARM_JOINTS), slice(ARM_JOINTS, 2 * ARM_JOINTS)
LEFT_GRIPPER, RIGHT_GRIPPER = 14, 15
NUM_ARM_JOINTS = 2 * ARM_JOINTS


class G1Drive:
    """Turns actions into servo references of a compiled model, and reads the state back.

    An action is clipped to the joint limits and to `MAX_STEP_RAD` around the measured joints: that is the executed
    action. The servo's reference then moves towards it at no more than the joints' rated speed.
    """

    def __init__(self, model: mujoco.MjModel, prefix: str = "g1/") -> None:
        joints = [joint for side in SIDES for joint in load_kinematics().arm_joints(side)]
        names = [prefix + short_name(joint) for joint in joints]
        fingers = [f"{prefix}{side}_finger_0" for side in SIDES]
        opposite = [f"{prefix}{side}_finger_1" for side in SIDES]
        self._qpos = np.array([model.joint(name).qposadr[0] for name in names])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in fingers])
        self._opposite = np.array([model.joint(name).qposadr[0] for name in opposite])
        self._ctrl = np.array([model.actuator(name).id for name in [*names, *(prefix + g for g in GRIPPER_NAMES)]])
        self._travel_m = np.array([model.joint(name).range[1] for name in fingers])
        self._travels_m = self._travel_m.tolist()
        self._closures = {
            side: (int(finger), float(travel_m))
            for side, finger, travel_m in zip(SIDES, self._fingers, self._travel_m, strict=True)
        }
        limits = np.array([model.joint(name).range for name in names])
        self.lower = np.concatenate([limits[:, 0], np.zeros(2)])
        self.upper = np.concatenate([limits[:, 1], np.ones(2)])
        self._max_reference_step = np.array([*(joint.velocity for joint in joints), np.inf, np.inf]) / CONTROL_HZ
        # Small arrays, worked on in place: these run on every tick, and a Python number or a new array costs as much again.
        self._measured = np.concatenate([self._qpos, self._fingers])
        self._max_step = np.full(NUM_ARM_JOINTS, MAX_STEP_RAD)
        self._ones = np.ones(STATE_DIM)
        self._reference = np.zeros(STATE_DIM)

    def place(self, data: mujoco.MjData, state: np.ndarray) -> None:
        """Puts the robot at rest at `state` [16]."""
        state = np.clip(state, self.lower, self.upper)
        data.qpos[self._qpos] = state[:NUM_ARM_JOINTS]
        data.qpos[self._fingers] = data.qpos[self._opposite] = state[NUM_ARM_JOINTS:] * self._travel_m
        self._reference[:] = state
        data.ctrl[self._ctrl] = state

    def state(self, data: mujoco.MjData) -> np.ndarray:
        """What the robot measures, float64 [16]; grippers are how far the pads have really closed."""
        state = data.qpos[self._measured]
        left_m, right_m = self._travels_m
        state[LEFT_GRIPPER] = min(max(state.item(LEFT_GRIPPER) / left_m, 0.0), 1.0)
        state[RIGHT_GRIPPER] = min(max(state.item(RIGHT_GRIPPER) / right_m, 0.0), 1.0)
        return state

    def closure(self, data: mujoco.MjData, side: str) -> float:
        """How far one gripper's pads are closed, 0 open .. 1 closed."""
        finger, travel_m = self._closures[side]
        return min(max(data.qpos.item(finger) / travel_m, 0.0), 1.0)

    def clip(self, data: mujoco.MjData, action: np.ndarray) -> np.ndarray:
        """An action [16] as it may be executed from here: inside the limits and near the measured joints. float64 [16].

        Raises:
            InvalidActionError: wrong shape, or a value that is not finite.
        """
        target = np.asarray(action).astype(np.float64)
        if target.shape != (STATE_DIM,) or not math.isfinite(self._ones.dot(target)):
            raise InvalidActionError(f"action must be {STATE_DIM} finite numbers, got shape {target.shape}: {target}")
        np.maximum(target, self.lower, out=target)
        np.minimum(target, self.upper, out=target)
        arms = target[:NUM_ARM_JOINTS]
        near = data.qpos[self._qpos]
        lowest = near - self._max_step
        near += self._max_step
        np.maximum(arms, lowest, out=arms)
        np.minimum(arms, near, out=arms)
        return target

    def follow(self, data: mujoco.MjData, target: np.ndarray) -> None:
        """Moves the servo references towards a clipped target [16], once per control tick."""
        # The grippers' references may move any distance: their steps are infinite.
        reference, step = self._reference, self._max_reference_step
        lowest = reference - step
        reference += step
        np.minimum(target, reference, out=reference)
        np.maximum(reference, lowest, out=reference)
        data.ctrl[self._ctrl] = reference

    def command(self, data: mujoco.MjData, action: np.ndarray) -> np.ndarray:
        """Clips an action and follows it at once; returns the executed action, float32 [16]. Raises InvalidActionError."""
        target = self.clip(data, action)
        self.follow(data, target)
        return target.astype(np.float32)

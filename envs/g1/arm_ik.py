"""Differential inverse kinematics of one arm (mink), on a small model that holds that arm alone.

ik = ArmIk("right")
q = ik.step(q, position_m, rotation)      # one damped step towards the pose, inside the joint limits
"""

import mink
import mujoco
import numpy as np

from envs.g1.config import G1Config
from envs.g1.kinematics import ARM_JOINTS
from envs.g1.robot import G1


class ArmIk:
    """Moves seven joint angles towards a tool pose. Holds scratch memory: not thread-safe."""

    def __init__(
        self, side: str, posture_rad: np.ndarray, config: G1Config | None = None, posture_cost: float = 0.02
    ) -> None:
        """`posture_rad` [7] resolves the arm's spare degree of freedom: the step is drawn weakly towards it."""
        self._configuration = mink.Configuration(arm_model(side, config))
        self._site = f"{side}_tcp"
        self._frame = mink.FrameTask(self._site, "site", position_cost=1.0, orientation_cost=0.1, lm_damping=1e-3)
        self._posture = mink.PostureTask(self._configuration.model, cost=posture_cost)
        self._posture.set_target(np.asarray(posture_rad, dtype=float))
        self._limits = [mink.ConfigurationLimit(self._configuration.model, gain=0.9)]

    def step(self, joints_rad: np.ndarray, position_m: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Joint angles [7] one step closer to the pose (base frame: position [3], rotation matrix [3, 3])."""
        self._configuration.update(np.asarray(joints_rad, dtype=float))
        self._frame.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position_m))
        velocity = mink.solve_ik(
            self._configuration, [self._frame, self._posture], 1.0, "daqp", damping=1e-4, limits=self._limits
        )
        return self._configuration.integrate(velocity, 1.0)

    def solve(
        self, joints_rad: np.ndarray, position_m: np.ndarray, rotation: np.ndarray, num_steps: int = 60
    ) -> np.ndarray:
        """Joint angles [7] after many steps: the pose itself where it can be reached."""
        for _ in range(num_steps):
            joints_rad = self.step(joints_rad, position_m, rotation)
        return joints_rad

    def pose(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position [3] and rotation matrix [3, 3] in the base frame."""
        self._configuration.update(np.asarray(joints_rad, dtype=float))
        data = self._configuration.data.site(self._site)
        return data.xpos.copy(), data.xmat.reshape(3, 3).copy()


def arm_model(side: str, config: G1Config | None = None) -> mujoco.MjModel:
    """A model of the robot in which only the joints of one arm move."""
    root = G1(config).mjcf_model
    for kind in ("actuator", "equality"):
        for element in root.find_all(kind):
            element.remove()
    for joint in root.find_all("joint"):
        if not joint.name.startswith(f"{side}_j"):
            joint.remove()
    for geom in root.find_all("geom"):
        geom.remove()
    model = mujoco.MjModel.from_xml_string(root.to_xml_string())
    if model.nq != ARM_JOINTS:
        raise ValueError(f"arm model of side {side!r} has {model.nq} joints, expected {ARM_JOINTS}")
    return model


def tool_rotation(tilt_rad: float, yaw_rad: float = 0.0) -> np.ndarray:
    """A hand that points down, tilted forward by `tilt_rad` and turned by `yaw_rad` about the vertical; its top
    (the camera's side, the tool's x axis) faces forward and up, its pads close sideways. Rotation matrix [3, 3].
    """
    sin, cos = np.sin(tilt_rad), np.cos(tilt_rad)
    untwisted = np.array([[cos, 0.0, sin], [0.0, -1.0, 0.0], [sin, 0.0, -cos]])
    turn = np.array(
        [[np.cos(yaw_rad), -np.sin(yaw_rad), 0.0], [np.sin(yaw_rad), np.cos(yaw_rad), 0.0], [0.0, 0.0, 1.0]]
    )
    return turn @ untwisted

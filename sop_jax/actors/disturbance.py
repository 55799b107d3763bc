"""A robot that something keeps pushing: what a demonstrator does about it is what a policy needs to learn.

A clone of undisturbed demonstrations has seen nothing but the demonstrator's own path, and doesn't know the way back to it.
So arms are pushed while the demonstration runs, and its record holds what the demonstrator commanded (DART, Laskey et al.,
arXiv 1703.09327; noise that comes and goes takes the robot further off than fresh noise in every tick would).

Legend: `A` action dimensions.
"""

import dataclasses
import math

import numpy as np

from sop_jax.actors.robot_wrapper import RobotWrapper
from sop_jax.actors.seeds import derive_seed
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Robot


@dataclasses.dataclass(frozen=True)
class DisturbanceConfig:
    """Pushes that come at random times, hold for a while and go.

    joint_std_rad: spread of an arm joint's offset while a push lasts (drawn normally, cut at two deviations).
    every_s: mean time from the end of one push to the next. lasts_s: shortest and longest push.
    share: of episodes that are disturbed at all.
    """

    joint_std_rad: float = 0.08
    every_s: float = 1.0
    lasts_s: tuple[float, float] = (0.2, 0.5)
    share: float = 0.5

    def __post_init__(self) -> None:
        shortest, longest = self.lasts_s
        numbers = (self.joint_std_rad, self.every_s, shortest, longest, self.share)
        fits = self.joint_std_rad >= 0 and self.every_s > 0 and 0 < shortest <= longest and 0 <= self.share <= 1
        if not (all(map(math.isfinite, numbers)) and fits):
            raise ConfigError(
                "DisturbanceConfig needs joint_std_rad >= 0, every_s > 0, 0 < lasts_s[0] <= lasts_s[1] and share in 0 .. 1, "
                f"got {self}"
            )


class DisturbedRobot(RobotWrapper[Robot]):
    """A robot whose arms are pushed aside, and that reports its commands as they were meant.

    The pushes of an episode follow from its seed. Grippers are left alone.
    """

    def __init__(self, robot: Robot, config: DisturbanceConfig):
        super().__init__(robot)
        self._config = config
        names = robot.spec.action_names
        self._arms = np.array(["gripper" not in name for name in names])
        self._limits = np.array([robot.spec.action_low, robot.spec.action_high], np.float32)
        self._rng = np.random.default_rng(0)
        self._offset = np.zeros(len(names), np.float32)
        self._is_disturbed = False
        self._ticks_left = 0

    def reset(self, seed: int) -> None:
        self._robot.reset(seed)
        self._rng = np.random.default_rng(derive_seed(seed, "disturbance"))
        self._is_disturbed = self._rng.random() < self._config.share
        self._offset[:] = 0.0
        self._ticks_left = self._draw_ticks(self._rng.exponential(self._config.every_s))

    def apply(self, action: np.ndarray) -> np.ndarray:
        """As any robot's, but the robot gets the command with the push on top, and what comes back is the command itself,
        clipped to the limits."""
        self._push()
        self._robot.apply(action + self._offset)
        return np.clip(action, *self._limits)

    def _push(self) -> None:
        if not self._is_disturbed:
            return
        self._ticks_left -= 1
        if self._ticks_left > 0:
            return
        if self._offset.any():
            self._offset[:] = 0.0
            self._ticks_left = self._draw_ticks(self._rng.exponential(self._config.every_s))
        else:
            draws = np.clip(self._rng.normal(size=int(self._arms.sum())), -2.0, 2.0)
            self._offset[self._arms] = self._config.joint_std_rad * draws
            self._ticks_left = self._draw_ticks(self._rng.uniform(*self._config.lasts_s))

    def _draw_ticks(self, seconds: float) -> int:
        return max(1, round(seconds * self.spec.control_hz))

"""How the arms pass from one hand to another: from the policy to a supervisor, and back.

A device in a person's hands rarely stands where the robot does, and a policy's fresh chunk doesn't start where a person left
off. Without easing, the first action of the new hand is a jump.

Legend: `A` action dimensions.
"""

import dataclasses
import math
from typing import final

import numpy as np

from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import RobotSpec


@dataclasses.dataclass(frozen=True)
class HandoverConfig:
    """How takeovers and handbacks are eased.

    blend_s: time in which the command eases from the present pose into what the new hand asks for [robot seconds]. 0 = off:
        the new hand's first action is executed as it is.
    max_step_rad: with `blend_s`, the most that a joint's target moves in one tick until the new hand is caught up with, also
        where that takes longer than `blend_s`.
    """

    blend_s: float = 0.0
    max_step_rad: float = 0.05

    def __post_init__(self) -> None:
        if not (math.isfinite(self.blend_s) and self.blend_s >= 0):
            raise ConfigError(f"HandoverConfig.blend_s must be >= 0, got {self.blend_s}")
        if not (math.isfinite(self.max_step_rad) and self.max_step_rad > 0):
            raise ConfigError(f"HandoverConfig.max_step_rad must be positive, got {self.max_step_rad}")


@final
class Handover:
    """Eases the arms' command for a while after somebody else began to act.

        handover.begin()                             # from this tick on somebody else acts
        action = handover.ease(target, state)        # float32 [A], every tick
        handover.end_tick(executed)                  # what the robot made of it

    The command moves from what was executed last (before the first tick: from the measured state) by a share of what is
    missing to the target. The share grows evenly to 1 within `blend_s`, so the arm leaves gently, follows the new hand's own
    motion ever closer, and a chunk that is renewed meanwhile does no harm. Then it is the target itself.

    Grippers are not eased: a half-closed gripper is a third command that nobody gave, and late fingers drop what they
    were to hold.
    """

    def __init__(self, config: HandoverConfig, spec: RobotSpec):
        blend_ticks = config.blend_s * spec.control_hz
        self._num_ticks = max(1, round(blend_ticks)) if blend_ticks > 0 else 0
        self._max_step = config.max_step_rad
        self._is_eased = np.array(["gripper" not in name for name in spec.action_names])
        self._ticks_eased: int | None = None
        self._executed: np.ndarray | None = None

    def begin(self) -> None:
        """Somebody else acts from this tick on."""
        if self._num_ticks:
            self._ticks_eased = 0

    def ease(self, target: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The command that leads towards `target`; `target` itself while no handover is under way."""
        if self._ticks_eased is None:
            return target
        self._ticks_eased += 1
        share = min(1.0, self._ticks_eased / self._num_ticks)
        start = state[: len(target)] if self._executed is None else self._executed
        missing = np.where(self._is_eased, target - start, 0.0)
        step = np.clip(share * missing, -self._max_step, self._max_step)
        if share == 1.0 and np.array_equal(step, missing):
            self._ticks_eased = None
            return target
        return np.where(self._is_eased, start + step, target).astype(np.float32)

    def end_tick(self, executed: np.ndarray) -> None:
        """What the robot executed on this tick, whoever acted."""
        self._executed = executed

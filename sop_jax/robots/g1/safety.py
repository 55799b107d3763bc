"""What a command must pass before it is sent, whoever gave it: a policy, a person, or a script.

    filter.reset(measured, now_ns)                       # at rest where the robot is; the next moves are slow
    verdict = filter.check(target, measured, now_ns)     # the nearest command that may be sent, and what was wrong

In this order: finite numbers; the arms that aren't ours stay; joint limits; speed and acceleration of the command; the step
from the measured joints, which is the last word (it only ever brings the command nearer to where the robot is); then the
workspace and the robot's own body, on the way to the command and at its end. A command that fails there is tried again with
one arm only, and then becomes a hold.

Legend: 16 values everywhere, 14 joints [rad] and 2 grippers, as in records.
"""

import dataclasses

import numpy as np

from sop_jax.robots.g1.body_model import BodyModel, Reach
from sop_jax.robots.g1.config import NUM_ARM_JOINTS, G1RobotConfig
from sop_jax.robots.two_arm import ACTION_NAMES

ARMS = slice(0, NUM_ARM_JOINTS)
SIDES = {"left": (slice(0, 7), 14), "right": (slice(7, 14), 15)}
_EPSILON = 1e-6
_BETTER_M = 1e-4  # out of a forbidden place, a command must lead at least so much


@dataclasses.dataclass(frozen=True)
class Breach:
    """One limit that a command would have passed: kind, by how much at worst, and where."""

    kind: str
    amount: float
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`command` float64 [16] may be sent; without breaches and after the soft start it is the target itself."""

    command: np.ndarray
    breaches: tuple[Breach, ...]


class SafetyFilter:
    """Keeps the last command and its speed. Not thread-safe."""

    def __init__(self, config: G1RobotConfig, body: BodyModel):
        limits = config.limits
        self._limits = limits
        self._body = body
        self._low, self._high = np.array(limits.low), np.array(limits.high)
        self._period_s = 1.0 / config.timing.control_hz
        self._max_speed = np.r_[np.full(NUM_ARM_JOINTS, limits.max_speed), np.full(2, np.inf)]
        self._max_gain = np.r_[np.full(NUM_ARM_JOINTS, limits.max_acceleration), np.full(2, np.inf)]
        self._held = np.ones(16, bool)
        for side in config.arms:
            joints, gripper = SIDES[side]
            self._held[joints] = self._held[gripper] = False
        self._command = self._held_at = np.zeros(16)
        self._speed = np.zeros(16)
        self._reach = Reach(np.inf, "", 0.0)
        self._rest_ns = self._command_ns = 0

    @property
    def command(self) -> np.ndarray:
        """The last command: what holds the robot where it is."""
        return self._command.copy()

    def reset(self, measured: np.ndarray, now_ns: int) -> None:
        """The robot is at rest at `measured`, and starts softly; arms that aren't ours are held here from now on."""
        self._held_at = np.clip(measured, self._low, self._high)
        self._command = self._held_at.copy()
        self._reach = self._body.examine(self._command[ARMS])
        self.rest(now_ns)

    def rest(self, now_ns: int) -> None:
        """The last command has been held for a while: the next moves start softly again."""
        self._speed = np.zeros(16)
        self._rest_ns = now_ns
        self._command_ns = now_ns - round(self._period_s * 1e9)

    def check(self, target: np.ndarray, measured: np.ndarray, now_ns: int) -> Verdict:
        """`now_ns` must not go back. Raises ValueError for a wrong shape."""
        target = np.array(target, np.float64)
        if target.shape != (16,):
            raise ValueError(f"a command for the G1 has 16 values, got shape {target.shape}")
        breaches: list[Breach] = []
        if not np.isfinite(target).all():
            breaches.append(Breach("not_finite", float(np.count_nonzero(~np.isfinite(target)))))
            target = self._command.copy()
        target = np.where(self._held, self._held_at, target)
        # A command sooner than a period after the last one may not hurry for it.
        elapsed_s = min(self._period_s, max(1e-3, (now_ns - self._command_ns) / 1e9))
        command = _clip(target, self._low, self._high, "joint_limit", breaches)
        command = self._slow_down(command, elapsed_s, now_ns, breaches)
        command = self._near_measured(command, measured, breaches)
        command, reach = self._keep_clear(command, measured, breaches)
        self._speed = (command - self._command) / elapsed_s
        self._command, self._reach, self._command_ns = command, reach, now_ns
        return Verdict(command.copy(), tuple(breaches))

    def _slow_down(self, command: np.ndarray, elapsed_s: float, now_ns: int, breaches: list[Breach]) -> np.ndarray:
        wanted = (command - self._command) / elapsed_s
        speed = _clip(wanted, -self._max_speed, self._max_speed, "speed", breaches)
        gain = self._max_gain * elapsed_s
        lowest, highest = np.minimum(self._speed, 0.0) - gain, np.maximum(self._speed, 0.0) + gain
        speed = _clip(speed, lowest, highest, "acceleration", breaches)
        limits = self._limits
        rested_s = (now_ns - self._rest_ns) / 1e9
        risen = 1.0 if rested_s >= limits.soft_start_s else rested_s / limits.soft_start_s
        most = self._max_speed * (limits.soft_start_share + (1.0 - limits.soft_start_share) * risen)
        speed = np.clip(speed, -most, most)
        # What was not slowed down is the target itself, to the last bit.
        return np.where(speed == wanted, command, self._command + speed * elapsed_s)

    def _near_measured(self, command: np.ndarray, measured: np.ndarray, breaches: list[Breach]) -> np.ndarray:
        near = command.copy()
        step = self._limits.max_step_rad
        near[ARMS] = _clip(command[ARMS], measured[ARMS] - step, measured[ARMS] + step, "step", breaches)
        return near

    def _keep_clear(
        self, command: np.ndarray, measured: np.ndarray, breaches: list[Breach]
    ) -> tuple[np.ndarray, Reach]:
        ignored: list[Breach] = []
        hold = self._near_measured(self._command, measured, ignored)
        reach = self._judge(command, breaches)
        if reach is not None:
            return command, reach
        for side in SIDES.values():
            alone = hold.copy()
            for part in side:
                alone[part] = command[part]
            if (reach := self._judge(alone, ignored)) is not None:
                return alone, reach
        hold[NUM_ARM_JOINTS:] = command[NUM_ARM_JOINTS:]
        return hold, self._body.examine(hold[ARMS])

    def _judge(self, command: np.ndarray, breaches: list[Breach]) -> Reach | None:
        """What is reached, if the command may be sent: clear at the end and halfway, or a way out of where it isn't."""
        reach = self._reach
        for share in (0.5, 1.0):
            reach = self._body.examine((self._command + share * (command - self._command))[ARMS])
            least_m = min(self._limits.clearance_m, self._reach.clearance_m + share * _BETTER_M)
            most_m = max(0.0, self._reach.outside_m - share * _BETTER_M)
            if reach.clearance_m < least_m:
                breaches.append(Breach("self_collision", self._limits.clearance_m - reach.clearance_m, reach.nearest))
                return None
            if reach.outside_m > most_m:
                breaches.append(Breach("workspace", reach.outside_m))
                return None
        return reach


def _clip(values: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, breaches: list[Breach]) -> np.ndarray:
    clipped = np.minimum(np.maximum(values, low), high)
    excess = np.abs(values - clipped)
    worst = int(np.argmax(excess))
    if excess[worst] > _EPSILON:
        breaches.append(Breach(kind, float(excess[worst]), ACTION_NAMES[worst]))
    return clipped

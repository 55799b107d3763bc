"""A robot without physics: small, deterministic, fast, and with a goal that a tiny policy could learn.

The fake world: each seed draws a start pose and a goal pose. The robot moves every dimension towards its target by at most
`max_step` per tick. Standing within `tolerance` of the goal is success. The images show the goal and the pose as one column
of pixels per dimension (goal in red, pose in green), so whoever sees them knows what to do.

Legend: `A` action dimensions (16), also the state's.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sop_jax.robots.two_arm import two_arm_spec
from sop_jax.specs.clock import Clock, ManualClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Request
from sop_jax.specs.records import EpisodeEnd, Observation, Outcome, RobotSpec


@dataclasses.dataclass(frozen=True)
class FakeRobotConfig:
    """The fake world's knobs. Lengths of time are in control ticks, distances in radians (grippers: share of closing).

    `fault_at_frame` breaks the robot at that tick: the episode ends as ERROR, kind "robot_fault".
    """

    task: str = "fake_task"
    instruction: str = "move to the red pose"
    image_size: int = 16
    control_hz: float = 30.0
    time_limit_frames: int = 120
    max_step: float = 0.02
    goal_range: float = 0.4
    tolerance: float = 0.03
    out_of_bounds: float = 1.4
    fault_at_frame: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise ConfigError(
                f"FakeRobotConfig.image_size must be >= 16 (a pixel column per dimension), got {self.image_size}"
            )
        if self.time_limit_frames < 1 or self.max_step <= 0 or self.tolerance <= 0:
            raise ConfigError(
                f"FakeRobotConfig: time_limit_frames, max_step and tolerance must be positive, got {self}"
            )


class FakeRobot:
    """Implements `specs.interfaces.Robot`. The same seed and actions give the same episode, bit for bit."""

    def __init__(self, config: FakeRobotConfig | None = None, clock: Clock | None = None):
        self._config = config or FakeRobotConfig()
        self._clock = clock or ManualClock()
        self._spec = two_arm_spec("fake", self._config.image_size, self._config.control_hz)
        self._low = np.asarray(self._spec.action_low, np.float32)
        self._high = np.asarray(self._spec.action_high, np.float32)
        self._state = np.zeros(self._spec.state_dim, np.float32)
        self._goal = np.zeros(self._spec.state_dim, np.float32)
        self._frame = 0
        self._start_ns = 0
        self.num_renders = 0
        self.closed = False

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def task(self) -> str:
        return self._config.task

    @property
    def instruction(self) -> str:
        return self._config.instruction

    @property
    def world(self) -> str:
        return "fake/1"

    @property
    def goal(self) -> np.ndarray:
        """The pose that this episode asks for, float32 [A]."""
        return self._goal.copy()

    @property
    def distance(self) -> float:
        """The farthest dimension's distance to the goal."""
        return float(np.max(np.abs(self._state - self._goal)))

    @property
    def frame(self) -> int:
        """Control ticks since the episode began."""
        return self._frame

    @property
    def control_hz(self) -> float:
        return self._config.control_hz

    def stage(self) -> str:
        """ "far" until the pose is halfway in range of the goal, then "near"."""
        return "near" if self.distance < self._config.goal_range / 2 else "far"

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        reach = self._config.goal_range
        self._state = rng.uniform(-0.1, 0.1, self._spec.state_dim).astype(np.float32)
        self._goal = rng.uniform(-reach, reach, self._spec.state_dim).astype(np.float32)
        self._state[14:] = 0.0
        self._goal[14:] = np.abs(self._goal[14:])
        self._frame = 0
        self._start_ns = self._clock.now_ns()

    def observe(self, images: bool = True) -> Observation:
        return Observation(
            images=self._render() if images else {},
            state=self._state.copy(),
            instruction=self._config.instruction,
            time_ns=self._start_ns + round(self._frame * 1e9 / self._config.control_hz),
        )

    def apply(self, action: np.ndarray) -> np.ndarray:
        executed = np.clip(np.asarray(action, np.float32), self._low, self._high)
        step = np.clip(executed - self._state, -self._config.max_step, self._config.max_step)
        self._state = self._state + step
        self._frame += 1
        return executed

    def check_end(self) -> EpisodeEnd | None:
        fault = self._config.fault_at_frame
        if fault is not None and self._frame >= fault:
            return EpisodeEnd(Outcome.ERROR, "robot_fault")
        if self.distance < self._config.tolerance:
            return EpisodeEnd(Outcome.SUCCESS)
        if np.max(np.abs(self._state)) > self._config.out_of_bounds:
            return EpisodeEnd(Outcome.FAILURE, "out_of_bounds")
        if self._frame >= self._config.time_limit_frames:
            return EpisodeEnd(Outcome.TIMEOUT, "timeout")
        return None

    def close(self) -> None:
        self.closed = True

    def _render(self) -> dict[str, np.ndarray]:
        self.num_renders += 1
        size, dims = self._config.image_size, self._spec.state_dim
        image = np.zeros((size, size, 3), np.uint8)
        image[:, :dims, 0] = _to_pixels(self._goal)
        image[:, :dims, 1] = _to_pixels(self._state)
        views = {}
        for number, camera in enumerate(self._spec.cameras):
            view = image.copy()
            view[:, :, 2] = 60 * number
            views[camera.name] = view
        return views


def _to_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip((values + 1.0) * 127.5, 0, 255).astype(np.uint8)


class FakeExpert:
    """Drives a FakeRobot straight to its goal, from any state."""

    def __init__(self, robot: FakeRobot):
        self._robot = robot

    def reset(self) -> None:
        pass

    def act(self) -> np.ndarray:
        return self._robot.goal


class FakeGate:
    """Reports "no_progress" once the distance to the goal hasn't shrunk for `patience_frames` checks."""

    def __init__(self, robot: FakeRobot, patience_frames: int = 6):
        self._robot = robot
        self._patience = patience_frames
        self._best = np.inf
        self._stale = 0

    def reset(self) -> None:
        self._best, self._stale = np.inf, 0

    def check(self) -> str:
        distance = self._robot.distance
        if distance < self._best - 1e-4:
            self._best, self._stale = distance, 0
        else:
            self._stale += 1
        return "no_progress" if self._stale >= self._patience else ""


class TimelineSupervisor:
    """A supervisor for tests: asks at the given frames of a FakeRobot's episode, then acts for `hold_frames` ticks.

    Its action is `action`, float32 [A].
    """

    def __init__(
        self, robot: FakeRobot, asks_at: Sequence[int], hold_frames: int, action: np.ndarray, reason: str = "operator"
    ):
        self._robot = robot
        self._asks_at = frozenset(asks_at)
        self._hold_frames = hold_frames
        self._action = np.asarray(action, np.float32)
        self._reason = reason
        self._held = 0

    def reset(self) -> None:
        self._held = 0

    def wants_control(self) -> Request | None:
        self._held = 0
        return Request(self._reason) if self._robot.frame in self._asks_at else None

    def act(self) -> np.ndarray:
        self._held += 1
        return self._action

    def releases_control(self) -> bool:
        return self._held >= self._hold_frames

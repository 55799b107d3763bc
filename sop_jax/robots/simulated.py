"""A robot whose body is a MuJoCo world."""

import dm_env
import numpy as np

from envs.environment import Environment
from envs.errors import DivergedError
from sop_jax.robots.two_arm import ACTION_NAMES
from sop_jax.specs.clock import Clock
from sop_jax.specs.records import CameraSpec, EpisodeEnd, Observation, Outcome, RobotSpec

ROBOT_TYPE = "g1_sim"
DIVERGED = EpisodeEnd(Outcome.ERROR, "diverged_physics")
TIMEOUT_KIND = "timeout"


class SimulatedRobot:
    """Implements `specs.interfaces.Robot` over one of our worlds.

    Time: each episode starts at the clock's present and advances by one control period per tick, however fast the machine
    is. So stamps are those of the robot's own life and strictly increasing inside an episode; in a run that isn't paced the
    last ones lie ahead of the clock, and the next episode is anchored to the clock again.

    Physics that diverge end the episode as ERROR, kind "diverged_physics". Cameras cost time only when they are asked for:
    the robot switches the world's own rendering off.
    """

    def __init__(self, environment: Environment, clock: Clock):
        self._environment = environment
        self._clock = clock
        self._spec = _make_spec(environment)
        self._timestep: dm_env.TimeStep | None = None
        self._end: EpisodeEnd | None = None
        self._start_ns = 0
        self._num_ticks = 0

    @property
    def environment(self) -> Environment:
        return self._environment

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def task(self) -> str:
        return self._environment.task_name

    @property
    def instruction(self) -> str:
        return self._environment.instruction

    @property
    def world(self) -> str:
        """Name and version of the world, for manifests."""
        return self._environment.world

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The task's stages, in the order in which they are passed."""
        return self._environment.stage_names

    def stage(self) -> str:
        """How far the task has come, from the world's own state."""
        return self.stage_names[0] if self._timestep is None else self._environment.stage()

    def reset(self, seed: int) -> None:
        self._start_ns = self._clock.now_ns()
        self._num_ticks = 0
        self._end = None
        try:
            self._timestep = self._environment.reset(seed)
        except DivergedError:
            self._end = DIVERGED

    def observe(self, images: bool = True) -> Observation:
        return Observation(
            images=self._environment.render() if images else {},
            state=np.array(self._present().observation["state"], np.float32),
            instruction=self._environment.instruction,
            time_ns=self._start_ns + round(self._num_ticks * 1e9 / self._spec.control_hz),
        )

    def apply(self, action: np.ndarray) -> np.ndarray:
        executed = self.begin_apply(action)
        self._environment.advance_physics()
        self.end_apply()
        return executed

    # In parts, for whoever moves many robots together: between the two goes the environment's `advance_physics`.

    def begin_apply(self, action: np.ndarray) -> np.ndarray:
        """Commands the robot; what it executes."""
        if self.check_end() is not None:
            raise RuntimeError(
                f"task {self.task}: the episode is over ({self._end}); reset the robot before it moves again"
            )
        self._num_ticks += 1
        self._environment.begin_step(action)
        return np.array(self._environment.executed_action, np.float32)

    def end_apply(self) -> None:
        """Looks at what became of it."""
        try:
            self._timestep = self._environment.end_step()
        except DivergedError:
            self._end = DIVERGED

    def check_end(self) -> EpisodeEnd | None:
        if self._end is None and self._present().last():
            self._end = read_end(self._environment, self._present())
        return self._end

    def close(self) -> None:
        self._environment.close()

    def _present(self) -> dm_env.TimeStep:
        if self._timestep is None:
            raise RuntimeError(f"task {self.task}: the robot was never reset; call reset(seed) first")
        return self._timestep


def read_end(environment: Environment, timestep: dm_env.TimeStep) -> EpisodeEnd:
    """What the last timestep of an episode means."""
    if environment.success():
        return EpisodeEnd(Outcome.SUCCESS)
    if timestep.discount:  # dm_env: cut short by time, not ended by what happened.
        return EpisodeEnd(Outcome.TIMEOUT, environment.failure_kind() or TIMEOUT_KIND)
    return EpisodeEnd(Outcome.FAILURE, environment.failure_kind() or "failure")


def _make_spec(environment: Environment) -> RobotSpec:
    environment.render_on_step = True
    observation_spec = environment.observation_spec()
    environment.render_on_step = False
    action_spec = environment.action_spec()
    cameras = [(name, array.shape) for name, array in observation_spec.items() if len(array.shape) == 3]
    return RobotSpec(
        robot_type=ROBOT_TYPE,
        cameras=tuple(CameraSpec(name, height, width) for name, (height, width, _) in cameras),
        action_names=ACTION_NAMES,
        action_low=tuple(float(value) for value in action_spec.minimum),
        action_high=tuple(float(value) for value in action_spec.maximum),
        control_hz=float(environment.control_hz),
    )

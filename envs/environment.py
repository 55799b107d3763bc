"""The environment: time, actions, images and ends of episodes around a task, as a `dm_env.Environment`."""

import math

import dm_env
import mujoco
import numpy as np
from dm_env import specs

from envs.errors import DivergedError
from envs.g1.drive import CONTROL_HZ, STATE_DIM
from envs.individual import DelayLine, Disguise, Individual
from envs.rendering import MAX_IMAGE_SIZE, CameraRenderer
from envs.task import Task

CAMERAS = ("head", "hand_left", "hand_right")
_SHUFFLE = 1  # keeps the draw of a shuffled instruction apart from the episode's own draws


class Environment(dm_env.Environment):
    """One robot in one world at 30 Hz. Not thread-safe; images come from the thread that first asked for one.

        env = envs.load("restock_shelf")
        timestep = env.reset(seed=7)
        while not timestep.last():
            timestep = env.step(action)          # 16 absolute targets
            images = env.render()                # {"head": uint8[h, w, 3], ...}, only when you want them

    An episode ends with reward 1 and discount 0 on success, reward 0 and discount 0 on a clear failure, and reward 0
    and discount 1 when time is up. As in dm_env, a step after the end starts the next episode.
    """

    control_hz = CONTROL_HZ

    def __init__(
        self,
        task: Task,
        image_size: int = 64,
        seed: int = 0,
        render_on_step: bool = False,
        individual: Individual | None = None,
        shuffle_instructions: bool = False,
    ) -> None:
        """`individual` says how this robot and its workplace differ from the nominal ones, for all episodes.

        `shuffle_instructions` tells the robot anything that could be asked for in the scene, while the episode is judged by
        what it did ask for: who still succeeds more often than chance doesn't listen.
        """
        if not 8 <= image_size <= MAX_IMAGE_SIZE:
            raise ValueError(f"image_size must be 8 .. {MAX_IMAGE_SIZE} pixels, got {image_size}")
        self.task = task
        self.render_on_step = render_on_step
        self._shuffles_instructions = shuffle_instructions
        self._instruction = ""
        self._model = task.model
        self.data = mujoco.MjData(task.model)
        self._qpos = self.data.qpos  # a view
        self._image_size = image_size
        self._num_substeps = round(1.0 / CONTROL_HZ / task.model.opt.timestep)
        self._next_seed = seed
        self._episode_seed = seed
        self._num_ticks = 0
        self._over = True
        self._executed = self._followed = np.zeros(STATE_DIM, np.float32)
        self._fatal: mujoco.FatalError | None = None
        self._renderer: CameraRenderer | None = None
        self.individual = individual or Individual()
        self._disguise = Disguise(task.model, self.individual)
        self._delay = DelayLine(self.individual.delay_ticks)

    @property
    def task_name(self) -> str:
        """The task's registered name."""
        return self.task.name

    @property
    def world(self) -> str:
        """Name and version of the world, for manifests."""
        return self.task.world

    @property
    def instruction(self) -> str:
        """What the robot is told to do in this episode."""
        return self._instruction

    @property
    def episode_seed(self) -> int:
        """The seed that made this episode."""
        return self._episode_seed

    @property
    def time_s(self) -> float:
        """Time since reset."""
        return self._num_ticks / CONTROL_HZ

    @property
    def executed_action(self) -> np.ndarray:
        """The last action after clipping, float32 [16]; after reset, the robot's posture. An individual with a delay moves
        towards it later."""
        return self._executed

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The task's stages, in the order in which they are passed."""
        return self.task.stage_names

    def stage(self) -> str:
        """How far the episode has come, one of the task's stages."""
        return self.task.stage()

    def success(self) -> bool:
        """Whether the task is done, from simulator state."""
        return self.task.success()

    def failure_kind(self) -> str:
        """Why the episode failed; "" while it has not."""
        return self.task.failure_kind()

    def reset(self, seed: int | None = None) -> dm_env.TimeStep:
        """Starts the episode that `seed` determines; without one, that of the seed after the last."""
        self._episode_seed = self._next_seed if seed is None else seed
        self._next_seed = self._episode_seed + 1
        mujoco.mj_resetData(self.task.model, self.data)
        self._num_ticks = 0
        self._over = False
        self._disguise.take_off()
        self.task.initialize(self.data, np.random.default_rng(self._episode_seed))
        self._disguise.put_on()
        self._instruction = self._draw_instruction() if self._shuffles_instructions else self.task.instruction
        posture = self.task.drive.state(self.data)
        self._executed = posture.astype(np.float32)
        self._delay.reset(posture)
        return dm_env.restart(self._observation())

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        """Advances one control tick (1/30 s) towards 16 absolute targets.

        Raises:
            InvalidActionError: the action has the wrong shape or is not finite; nothing has moved.
            DivergedError: the physics left the realm of finite numbers; the episode is over.
        """
        if self._over:
            return self.reset()
        self.begin_step(action)
        self.advance_physics()
        return self.end_step()

    @property
    def is_over(self) -> bool:
        """Whether the next `step` starts the next episode."""
        return self._over

    # A step in three parts, for whoever steps many environments: Python, physics (which frees Python's lock), Python.

    def begin_step(self, action: np.ndarray) -> None:
        """Commands the robot. Raises InvalidActionError; nothing has moved then."""
        target = self.task.drive.clip(self.data, action)
        self._executed = target.astype(np.float32)
        followed = self._delay.pass_through(target)
        # What is followed is what was commanded, unless the individual has a delay.
        self._followed = self._executed if followed is target else followed.astype(np.float32)
        self.task.drive.follow(self.data, followed)
        self._num_ticks += 1

    def advance_physics(self) -> None:
        """Lets the world go on for one control tick. Never raises."""
        try:
            mujoco.mj_step(self._model, self.data, self._num_substeps)
        except mujoco.FatalError as error:  # so many contacts that MuJoCo's memory is full: everything is everywhere
            self._fatal = error

    def end_step(self) -> dm_env.TimeStep:
        """Looks at what became of it. Raises DivergedError."""
        task, time_s = self.task, self._num_ticks / CONTROL_HZ
        if self._fatal is not None:
            error, self._fatal = self._fatal, None
            raise self._diverged(f" ({str(error).splitlines()[0]})") from error
        # Positions are integrated with the new velocities, those with the accelerations: what isn't finite is in here. The
        # sum of squares is not finite where any element isn't, and three times as fast as to look at each.
        if not math.isfinite(self._qpos.dot(self._qpos)):
            raise self._diverged()
        task.after_step(self.data, self._followed, time_s)
        observation = self._observation()
        if task.success():
            self._over = True
            return dm_env.termination(1.0, observation)
        if time_s >= task.time_limit_s - 1e-9:
            self._over = True
            return dm_env.truncation(0.0, observation)
        if task.failure_kind():
            self._over = True
            return dm_env.termination(0.0, observation)
        return dm_env.transition(0.0, observation)

    def render(self) -> dict[str, np.ndarray]:
        """What the cameras see now: uint8 RGB [h, w, 3] per camera."""
        if self._renderer is None:
            self._renderer = CameraRenderer(self.task.model, {name: f"g1/{name}" for name in CAMERAS}, self._image_size)
        return self._renderer.render(self.data)

    # dm_env declares its specs without types, which reads as None.
    def observation_spec(self) -> dict[str, specs.Array]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """State and, where `render_on_step` is set, images."""
        spec: dict[str, specs.Array] = {"state": specs.Array((STATE_DIM,), np.float32, name="state")}
        if self.render_on_step:
            shape = (self._image_size, self._image_size, 3)
            spec |= {name: specs.BoundedArray(shape, np.uint8, 0, 255, name=name) for name in CAMERAS}
        return spec

    def action_spec(self) -> specs.BoundedArray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sixteen absolute targets inside the joint limits; grippers 0 open .. 1 closed."""
        drive = self.task.drive
        return specs.BoundedArray(
            (STATE_DIM,), np.float32, drive.lower.astype(np.float32), drive.upper.astype(np.float32), name="action"
        )

    def close(self) -> None:
        """Frees the renderer's GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _draw_instruction(self) -> str:
        return str(np.random.default_rng((self._episode_seed, _SHUFFLE)).choice(self.task.instructions))

    def _diverged(self, why: str = "") -> DivergedError:
        """Ends the episode."""
        self._over = True
        return DivergedError(
            f"{self.world}, seed {self._episode_seed}: diverged at {self.time_s:.2f} s{why}; reset and go on"
        )

    def _observation(self) -> dict[str, np.ndarray]:
        observation = {"state": self.task.drive.state(self.data).astype(np.float32)}
        if self.render_on_step:
            observation |= self.render()
        return observation

"""Individuals: what makes one robot and its workplace differ from the next, for its whole life (the paper's phi).

    individual = draw_individual("workshop", "robot-3")      # always the same one
    env = envs.load("restock_shelf", individual=individual)

What changes from episode to episode is the task's business; this is what stays.
"""

import collections
import dataclasses
import hashlib
import types
from collections.abc import Mapping

import mujoco
import numpy as np

from envs.room import SURFACES, TEXTURE_PIXELS, paint_surface

Vector = tuple[float, float, float]
_CAMERAS = ("head", "hand_left", "hand_right")
_NOWHERE: tuple[Vector, Vector, Vector] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclasses.dataclass(frozen=True)
class Individual:
    """One robot at its workplace. Factors multiply what the world says; 1 changes nothing.

    brightness: of every light. tint: colour of what stands fixed in the world (walls, table), per RGB channel.
    camera_shift_m, camera_turn_rad: how the head, left hand and right hand cameras are mounted off their places, along
        and about each camera's own axes.
    friction: of all geoms; contacts that a world sets pair by pair (the box's tabs) and cloth keep theirs.
    stiffness, damping: of the arms' servos.
    delay_ticks: control ticks between a command and its taking effect.
    grain: how much darker the darkest veins of floor and table are, 0 plain .. 1 black. pattern: which veins, a seed.
    """

    brightness: float = 1.0
    tint: Vector = (1.0, 1.0, 1.0)
    camera_shift_m: tuple[Vector, Vector, Vector] = _NOWHERE
    camera_turn_rad: tuple[Vector, Vector, Vector] = _NOWHERE
    friction: float = 1.0
    stiffness: float = 1.0
    damping: float = 1.0
    delay_ticks: int = 0
    grain: float = 0.0
    pattern: int = 0

    def __post_init__(self) -> None:
        factors = (self.brightness, *self.tint, self.friction, self.stiffness, self.damping)
        if min(factors) <= 0 or self.delay_ticks < 0:
            raise ValueError(f"Individual: factors must be positive and delay_ticks at least 0, got {self}")
        if not 0.0 <= self.grain <= 1.0 or self.pattern < 0:
            raise ValueError(f"Individual: grain must lie in 0 .. 1 and pattern be at least 0, got {self}")


@dataclasses.dataclass(frozen=True)
class Spread:
    """How much individuals differ: half widths of uniform draws (of factors: 0.2 = 0.8 .. 1.2), the longest delay, and the
    strongest grain.
    """

    brightness: float = 0.0
    tint: float = 0.0
    camera_shift_m: float = 0.0
    camera_turn_rad: float = 0.0
    friction: float = 0.0
    stiffness: float = 0.0
    damping: float = 0.0
    max_delay_ticks: int = 0
    max_grain: float = 0.0


DISTRIBUTIONS: Mapping[str, Spread] = types.MappingProxyType(
    {
        "identical": Spread(),
        "workshop": Spread(0.15, 0.08, 0.003, 0.02, 0.15, 0.10, 0.10, 1, 0.25),
        "field": Spread(0.35, 0.20, 0.008, 0.05, 0.35, 0.20, 0.20, 2, 0.60),
    }
)
"""identical: one robot many times. workshop: one model of robot, built and mounted with care. field: many sites."""


def draw_individual(distribution: str, robot_id: str) -> Individual:
    """The individual of this name: the same on every machine and in every run.

    Raises:
        ValueError: no distribution has this name.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution {distribution!r} of robots: expected one of {tuple(DISTRIBUTIONS)}")
    spread = DISTRIBUTIONS[distribution]
    if spread == Spread():
        return Individual()
    digest = hashlib.sha256(f"{distribution}/{robot_id}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint32))

    def vectors(half_width: float) -> tuple[Vector, Vector, Vector]:
        first, second, third = rng.uniform(-half_width, half_width, (3, 3)).tolist()
        return tuple(first), tuple(second), tuple(third)

    return Individual(
        brightness=1 + rng.uniform(-1, 1) * spread.brightness,
        tint=tuple((1 + rng.uniform(-1, 1, 3) * spread.tint).tolist()),
        camera_shift_m=vectors(spread.camera_shift_m),
        camera_turn_rad=vectors(spread.camera_turn_rad),
        friction=1 + rng.uniform(-1, 1) * spread.friction,
        stiffness=1 + rng.uniform(-1, 1) * spread.stiffness,
        damping=1 + rng.uniform(-1, 1) * spread.damping,
        delay_ticks=int(rng.integers(spread.max_delay_ticks + 1)),
        grain=rng.uniform(0, 1) * spread.max_grain,
        pattern=int(rng.integers(2**31)),
    )


class Disguise:
    """Gives a compiled model an individual's looks and forces, for an episode at a time.

    Tasks rewrite parts of the model at reset and know nothing of individuals. So the model's own values are put back
    before a task initialises an episode (`take_off`) and changed after it (`put_on`).
    """

    def __init__(self, model: mujoco.MjModel, individual: Individual, prefix: str = "g1/") -> None:
        self._model, self._individual = model, individual
        self._cameras = [model.camera(f"{prefix}{name}").id for name in _CAMERAS]
        names = [model.actuator(index).name for index in range(model.nu)]
        self._servos = np.array(
            [i for i, name in enumerate(names) if name.startswith(prefix) and "gripper" not in name]
        )
        self._fixed = np.flatnonzero(model.geom_bodyid == 0)
        self._own: list[tuple[np.ndarray, np.ndarray]] = []
        if individual.grain:  # for life, and before the first image: no task touches textures
            for index, surface in enumerate(SURFACES):
                paint_surface(model, surface, draw_grain(individual, index))

    def take_off(self) -> None:
        """The model's own values again."""
        for array, values in self._own:
            array[...] = values
        self._own = []

    def put_on(self) -> None:
        """The individual's values. Call `take_off` before the next time."""
        model, individual = self._model, self._individual
        if individual == Individual():
            return
        headlight = model.vis.headlight
        lights = (model.light_ambient, model.light_diffuse, headlight.ambient, headlight.diffuse)
        touched = (
            *lights, model.geom_rgba, model.geom_friction, model.cam_pos, model.cam_quat, model.actuator_gainprm,
            model.actuator_biasprm,
        )  # fmt: skip
        self._own = [(array, array.copy()) for array in touched]
        for light in lights:
            light *= individual.brightness
        tinted = model.geom_rgba[self._fixed, :3] * np.array(individual.tint)
        model.geom_rgba[self._fixed, :3] = np.minimum(tinted, 1.0)
        model.geom_friction *= individual.friction
        for camera, shift, turn in zip(
            self._cameras, individual.camera_shift_m, individual.camera_turn_rad, strict=True
        ):
            _move_camera(model, camera, np.array(shift), np.array(turn))
        model.actuator_gainprm[self._servos, 0] *= individual.stiffness
        model.actuator_biasprm[self._servos, 1] *= individual.stiffness
        model.actuator_biasprm[self._servos, 2] *= individual.damping


def draw_grain(individual: Individual, surface: int) -> np.ndarray:
    """The veins of a surface: uint8 [TEXTURE_PIXELS, TEXTURE_PIXELS], 255 where nothing is darkened. Runs on at its edges."""
    rng = np.random.default_rng((individual.pattern, surface))
    angle = 2 * np.pi * np.arange(TEXTURE_PIXELS) / TEXTURE_PIXELS
    across, along = angle[:, None], angle[None]
    veins = np.zeros((TEXTURE_PIXELS, TEXTURE_PIXELS))
    for frequency in (2, 3, 5, 9):
        phase, bend = rng.uniform(0, 2 * np.pi, size=2)
        veins += np.sin(frequency * across + phase + rng.uniform(0.2, 0.8) * np.sin(along + bend)) / frequency**0.5
    veins = (veins - veins.min()) / np.ptp(veins)
    return np.round(255 * (1 - individual.grain * veins)).astype(np.uint8)


class DelayLine:
    """Commands come out `num_ticks` calls after they went in; until then, the first one waited for is the posture."""

    def __init__(self, num_ticks: int) -> None:
        self._num_ticks = num_ticks
        self._waiting: collections.deque[np.ndarray] = collections.deque()

    def reset(self, posture: np.ndarray) -> None:
        """Nothing has been commanded: the robot holds its posture [16]."""
        self._waiting = collections.deque([posture.copy()] * self._num_ticks)

    def pass_through(self, command: np.ndarray) -> np.ndarray:
        """What takes effect now [16]."""
        self._waiting.append(command)
        return self._waiting.popleft()


def _move_camera(model: mujoco.MjModel, camera: int, shift_m: np.ndarray, turn_rad: np.ndarray) -> None:
    """Along and about the camera's own axes."""
    moved, turn, quat = np.zeros(3), np.zeros(4), np.zeros(4)
    mujoco.mju_rotVecQuat(moved, shift_m, model.cam_quat[camera])
    model.cam_pos[camera] += moved
    angle = float(np.linalg.norm(turn_rad))
    mujoco.mju_axisAngle2Quat(turn, turn_rad / angle if angle else np.array([1.0, 0.0, 0.0]), angle)
    mujoco.mju_mulQuat(quat, model.cam_quat[camera], turn)
    model.cam_quat[camera] = quat

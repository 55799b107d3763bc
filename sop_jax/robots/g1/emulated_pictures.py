"""Pictures of an emulated robot's world as it was a moment ago, drawn when somebody looks."""

import dataclasses

import mujoco
import numpy as np

from envs.environment import CAMERAS, Environment
from envs.rendering import CameraRenderer

HISTORY_TICKS = 64
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclasses.dataclass(frozen=True)
class Moment:
    """The robot at one tick: 16 state values in our units, head [rad, rad], waist [rad, m], and the physics, for pictures."""

    tick: int
    state: np.ndarray
    head: tuple[float, float]
    waist: tuple[float, float]
    physics: np.ndarray


def read_physics(environment: Environment) -> np.ndarray:
    """All that a picture of the present needs."""
    physics = np.empty(mujoco.mj_stateSize(environment.task.model, _STATE))
    mujoco.mj_getState(environment.task.model, environment.data, physics, _STATE)
    return physics


class Pictures:
    """A picture per tick and camera, with a camera's noise in the last bit. `seed` draws the noise."""

    def __init__(self, environment: Environment, image_size: int, seed: int):
        self._environment = environment
        self._image_size = image_size
        self._seed = seed
        self._renderer: CameraRenderer | None = None
        self._data = mujoco.MjData(environment.task.model)
        self._drawn: dict[int, dict[str, np.ndarray]] = {}
        self._frozen: dict[str, np.ndarray] = {}

    def clear(self) -> None:
        self._drawn.clear()
        self._frozen.clear()

    def take(self, moment: Moment, name: str, is_frozen: bool) -> np.ndarray:
        if not is_frozen:
            self._frozen.pop(name, None)
            return self._draw(moment)[name]
        if name not in self._frozen:
            self._frozen[name] = self._draw(moment)[name]
        return self._frozen[name]

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()

    def _draw(self, moment: Moment) -> dict[str, np.ndarray]:
        if moment.tick not in self._drawn:
            model = self._environment.task.model
            if self._renderer is None:
                self._renderer = CameraRenderer(model, {name: f"g1/{name}" for name in CAMERAS}, self._image_size)
            mujoco.mj_setState(model, self._data, moment.physics, _STATE)
            mujoco.mj_forward(model, self._data)
            rng = np.random.default_rng((self._seed, moment.tick + HISTORY_TICKS))
            self._drawn = {tick: views for tick, views in self._drawn.items() if tick > moment.tick - HISTORY_TICKS}
            self._drawn[moment.tick] = {
                name: image ^ rng.integers(0, 2, image.shape, np.uint8)
                for name, image in self._renderer.render(self._data).items()
            }
        return self._drawn[moment.tick]

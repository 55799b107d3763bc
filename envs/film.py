"""Pictures for people: the scene from outside, with what the robot's own cameras see beside it."""

import mujoco
import numpy as np

from envs.environment import CAMERAS, Environment
from envs.rendering import CameraRenderer

_OUTSIDE = "outside"


class Film:
    """Takes pictures of an environment, whatever its own image size. Belongs to the thread that made it.

    film = Film(env)
    env.reset(seed=3)
    picture = film.take()      # uint8 RGB [540, 720, 3]
    film.close()
    """

    def __init__(self, env: Environment, height: int = 540) -> None:
        if height < 24 or height % 6:
            raise ValueError(f"Film.height must be a multiple of 6 and at least 24 pixels, got {height}")
        self._env = env
        self._outside = CameraRenderer(env.task.model, {_OUTSIDE: _outside_camera()}, height)
        own = {name: f"g1/{name}" for name in CAMERAS}
        self._own = CameraRenderer(env.task.model, own, height // len(CAMERAS))

    def take(self) -> np.ndarray:
        """The scene now, uint8 RGB [height, height * 4 / 3, 3]: outside on the left; head, left hand, right hand below
        each other on the right."""
        outside = self._outside.render(self._env.data)[_OUTSIDE]
        own = self._own.render(self._env.data)
        return np.concatenate([outside, np.concatenate([own[name] for name in CAMERAS])], axis=1)

    def close(self) -> None:
        """Frees the GL contexts."""
        self._own.close()
        self._outside.close()


def _outside_camera() -> mujoco.MjvCamera:
    """Looks down from the robot's front right at what both hands do; the head just fits in."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = (0.62, -0.04, 0.75)
    camera.distance, camera.azimuth, camera.elevation = 1.2, 145.0, -33.0
    return camera

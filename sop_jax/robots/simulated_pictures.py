"""Pictures of a world for people, larger than those that its policy looks at."""

import numpy as np

from envs.environment import CAMERAS, Environment
from envs.rendering import CameraRenderer

IMAGE_SIZE = 192


class SimulatedPictures:
    """What the robot's own cameras see, at another size. Belongs to the thread that first calls `take`."""

    def __init__(self, environment: Environment, image_size: int = IMAGE_SIZE):
        self._environment = environment
        self._image_size = image_size
        self._renderer: CameraRenderer | None = None

    def take(self) -> dict[str, np.ndarray]:
        """uint8 RGB [image_size, image_size, 3] by camera."""
        if self._renderer is None:
            cameras = {name: f"g1/{name}" for name in CAMERAS}
            self._renderer = CameraRenderer(self._environment.task.model, cameras, self._image_size)
        return self._renderer.render(self._environment.data)

    def close(self) -> None:
        """Frees the GL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

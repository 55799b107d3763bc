"""Fast images: one offscreen context, no shadows, reflections, sky, fog or multisampling.

The GL backend follows `MUJOCO_GL` (EGL where unset). A renderer belongs to the thread that made it.
"""

import atexit
from collections.abc import Mapping

import mujoco
import numpy as np
from dm_control import mjcf

_OFF = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_FOG,
    mujoco.mjtRndFlag.mjRND_HAZE,
)
MAX_IMAGE_SIZE = 1024


def set_render_quality(root: mjcf.RootElement) -> None:
    """Settings that must be in the model: no multisampling, no shadow map, few facets on round shapes."""
    quality = root.visual.quality
    quality.offsamples = 0
    quality.shadowsize = 0
    quality.numslices = 12
    quality.numstacks = 6
    root.visual.get_children("global").offwidth = MAX_IMAGE_SIZE
    root.visual.get_children("global").offheight = MAX_IMAGE_SIZE


class CameraRenderer:
    """Renders a fixed set of cameras of one model as square images."""

    def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, str], image_size: int) -> None:
        """`cameras` maps the name given out to the camera's name in the model."""
        self._cameras = {name: model.camera(camera).id for name, camera in cameras.items()}
        self._renderer = mujoco.Renderer(model, image_size, image_size, max_geom=500)
        for flag in _OFF:
            self._renderer.scene.flags[flag] = False
        atexit.register(self.close)  # a GL context must go before the interpreter does

    def render(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """One uint8 RGB image [h, w, 3] per camera."""
        images = {}
        for name, camera in self._cameras.items():
            self._renderer.update_scene(data, camera)
            images[name] = self._renderer.render()
        return images

    def close(self) -> None:
        """Frees the GL context."""
        atexit.unregister(self.close)
        self._renderer.close()

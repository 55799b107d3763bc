"""Fast images: one offscreen context, no shadows, reflections, sky, fog or multisampling, nothing that a camera can't see.

The GL backend follows `MUJOCO_GL` (unset: EGL on Linux). A renderer belongs to the thread that made it.
"""

import atexit
import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import mujoco
import numpy as np

from envs.composing import mjcf
from envs.errors import RenderingError

_OFF = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
    mujoco.mjtRndFlag.mjRND_FOG,
    mujoco.mjtRndFlag.mjRND_HAZE,
)
MAX_IMAGE_SIZE = 1024
_MAX_GEOMS = 500
_DEFAULT_BACKEND = MappingProxyType({"linux": "egl", "darwin": "cgl"})


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

    def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, str | mujoco.MjvCamera], image_size: int) -> None:
        """`cameras` maps the name given out to the camera's name in the model, or to a camera of one's own."""
        self._model = model
        self._cameras = {
            name: _fixed_camera(model.camera(camera).id) if isinstance(camera, str) else camera
            for name, camera in cameras.items()
        }
        self._option = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        for flag in _OFF:
            self._scene.flags[flag] = False
        self._rect = mujoco.MjrRect(0, 0, image_size, image_size)
        self._gl: Any = _gl_context(image_size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        atexit.register(self.close)  # a GL context must go before the interpreter does

    def render(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """One uint8 RGB image [h, w, 3] per camera."""
        self._gl.make_current()
        images = {}
        for name, camera in self._cameras.items():
            pixels = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
            self._update_scene(data, camera)
            mujoco.mjr_render(self._rect, self._scene, self._context)
            mujoco.mjr_readPixels(pixels, None, self._rect, self._context)
            images[name] = pixels[::-1].copy()  # GL's first row is the lowest
        return images

    def _update_scene(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> None:
        """Fills the scene with what the camera can see: MuJoCo leaves out only what is transparent, so the rest is made so
        for a moment. Half of the geoms go, and a sixth of the time; the images keep every bit.
        """
        colours = self._model.geom_rgba
        alphas = colours[:, 3].copy()
        if camera.type == mujoco.mjtCamera.mjCAMERA_FIXED:
            colours[:, 3] *= is_in_view(self._model, data, camera.fixedcamid)
        try:
            category = mujoco.mjtCatBit.mjCAT_ALL
            mujoco.mjv_updateScene(self._model, data, self._option, None, camera, category, self._scene)
        finally:
            colours[:, 3] = alphas

    def close(self) -> None:
        """Frees the GL context. Closing twice does nothing."""
        atexit.unregister(self.close)
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None


def is_in_view(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> np.ndarray:
    """Whether each geom's bounding sphere reaches into the square view of a camera, bool [geoms]. Planes always do."""
    half_rad = np.radians(model.cam_fovy[camera]) / 2
    sin, cos = np.sin(half_rad), np.cos(half_rad)
    seen = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # x right, y up, z back
    radii = np.where(model.geom_rbound > 0.0, model.geom_rbound, np.inf)
    beyond_a_side = np.abs(seen[:, :2]) * cos + seen[:, 2:] * sin > radii[:, None]
    return ~(beyond_a_side.any(axis=1) | (seen[:, 2] > radii))


def _fixed_camera(index: int) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, index
    return camera


def _gl_context(image_size: int) -> Any:
    """MuJoCo's own context class for the chosen backend; each needs libraries that another machine may lack.

    Raises:
        RenderingError: the backend cannot be loaded here.
    """
    backend = os.environ.get("MUJOCO_GL", "").lower() or _DEFAULT_BACKEND.get(sys.platform, "glfw")
    try:
        return importlib.import_module(f"mujoco.{backend}").GLContext(image_size, image_size)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise RenderingError(
            f"no offscreen images with MUJOCO_GL={backend!r}: {error}. On Linux install libegl1 and libegl-mesa0, or set "
            "MUJOCO_GL=osmesa with libosmesa6 installed"
        ) from error

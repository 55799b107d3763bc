"""Chooses EGL for offscreen images where nobody chose: MuJoCo reads `MUJOCO_GL` when it is first imported."""

import os
import sys

if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

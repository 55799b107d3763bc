"""Trials in a process of their own, where a crash or a hang does no harm: `python -m sop_jax.cli.probes NAME`.

Prints one line that says what was found; a traceback and a non-zero exit code say what was not.
"""

import importlib
import json
import sys

import numpy as np

_SCENE = """<mujoco><worldbody><light pos="0 0 2"/><geom type="sphere" size="0.3" rgba="1 0 0 1"/>
<camera name="eye" pos="0 -1.5 0" xyaxes="1 0 0 0 0 1"/></worldbody></mujoco>"""


def rendering() -> str:
    """Renders a red ball, 16 x 16."""
    mujoco = importlib.import_module("mujoco")
    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 16, 16) as renderer:
        renderer.update_scene(data, camera="eye")
        image = renderer.render()
    if not np.any(image[..., 0] > 2 * image[..., 1].astype(np.int32) + 40):
        raise SystemExit("a red ball was drawn, but the picture shows none")
    return f"MuJoCo {mujoco.__version__} draws"


def devices() -> str:
    """Names the accelerators that JAX sees."""
    jax = importlib.import_module("jax")
    found = [f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()]
    return f"JAX {jax.__version__} on " + ", ".join(found)


def memory() -> str:
    """What a learner may use here, as JSON: kind and number of devices, and the bytes of each (0 = the host's own)."""
    devices = importlib.import_module("jax").devices()
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in devices if device.platform != "cpu"]
    return json.dumps(
        {"kind": devices[0].device_kind, "num_devices": len(devices), "bytes_each": min(limits, default=0)}
    )


PROBES = {"rendering": rendering, "devices": devices, "memory": memory}

if __name__ == "__main__":
    sys.stdout.write(PROBES[sys.argv[1]]() + "\n")

"""How fast the world runs: env steps against a bare physics loop, and images against MuJoCo's own renderer.

    python -m benchmarks.environment_speed --json

`ours` and `peer` are 30 Hz steps per second without images on one core: `Environment.step` against a loop of `mj_step`
with as many substeps on the same model from the same state; so `ratio` is what our layer leaves of the bare physics.
Time is the process's CPU time, so that other work on the machine counts little; the rounds alternate and each figure
is the best round. Rates are thus those of one core of its own.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's own renderer, the peer, reads it when it is imported

import mujoco

import envs
from envs.restock.config import RestockConfig
from envs.restock.scene import build_mjcf

IMAGE_SIZE = 64


def best_rate(measures: dict[str, Callable[[], object]], num_calls: int, num_rounds: int) -> dict[str, float]:
    """Calls per CPU second of each function, best of several alternating rounds."""
    best = dict.fromkeys(measures, 0.0)
    for _ in range(num_rounds):
        for name, call in measures.items():
            start = time.process_time()
            for _ in range(num_calls):
                call()
            best[name] = max(best[name], num_calls / (time.process_time() - start))
    return best


def measure_steps(num_calls: int, num_rounds: int) -> dict[str, float]:
    env = envs.load("restock_shelf", time_limit_s=1e9)
    env.reset(0)
    action = env.executed_action
    bare = mujoco.MjData(env.task.model)
    mujoco.mj_copyData(bare, env.task.model, env.data)
    substeps = round(1 / env.control_hz / env.task.model.opt.timestep)
    measures = {
        "env_steps_per_s": lambda: env.step(action),
        "bare_steps_per_s": lambda: mujoco.mj_step(env.task.model, bare, substeps),
        "resets_per_s": lambda: env.reset(0),
    }
    return best_rate(measures, num_calls, num_rounds)


def measure_images(num_calls: int, num_rounds: int) -> dict[str, float]:
    env = envs.load("restock_shelf", image_size=IMAGE_SIZE)
    env.reset(0)
    ours = best_rate({"our_image_sets_per_s": env.render}, num_calls, num_rounds)
    model = mujoco.MjModel.from_xml_string(default_quality_xml())
    data = mujoco.MjData(model)
    data.qpos[:] = env.data.qpos
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, IMAGE_SIZE, IMAGE_SIZE) as renderer:

        def render_all() -> None:
            for camera in envs.CAMERAS:
                renderer.update_scene(data, f"g1/{camera}")
                renderer.render()

        peer = best_rate({"default_image_sets_per_s": render_all}, max(2, num_calls // 20), 2)
    env.close()
    return ours | peer


def default_quality_xml() -> str:
    """Our world with MuJoCo's default visual quality and a lamp that casts shadows."""
    root = build_mjcf(RestockConfig())
    quality = root.visual.quality
    quality.offsamples, quality.shadowsize, quality.numslices, quality.numstacks = 4, 4096, 28, 16
    root.worldbody.find("light", "lamp").castshadow = True
    return root.to_xml_string()


def main() -> None:
    parser = argparse.ArgumentParser(description="Env steps and images per second.")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--calls", type=int, default=300, help="calls per round")
    parser.add_argument("--rounds", type=int, default=4, help="rounds per figure; the best counts")
    options = parser.parse_args()
    steps = measure_steps(options.calls, options.rounds)
    images = measure_images(max(20, options.calls // 5), options.rounds)
    with_images = 1 / (1 / steps["env_steps_per_s"] + 1 / images["our_image_sets_per_s"])
    result = {
        "name": "environment_speed",
        "ours": round(steps["env_steps_per_s"], 1),
        "peer": round(steps["bare_steps_per_s"], 1),
        "ratio": round(steps["env_steps_per_s"] / steps["bare_steps_per_s"], 3),
        "units": "30 Hz steps per second, one core, no images; peer: bare mj_step loop on the same model",
        "reset_ms": round(1e3 / steps["resets_per_s"], 3),
        "image_ms": round(1e3 / images["our_image_sets_per_s"], 2),
        "image_default_ms": round(1e3 / images["default_image_sets_per_s"], 2),
        "image_ratio": round(images["our_image_sets_per_s"] / images["default_image_sets_per_s"], 1),
        "steps_with_images_per_s": round(with_images, 1),
        "image_size": IMAGE_SIZE,
        "cameras": list(envs.CAMERAS),
    }
    if not options.json:
        for key, value in result.items():
            print(f"{key:>26}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

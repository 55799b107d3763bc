"""How fast the worlds run: env steps against a bare physics loop, and images against MuJoCo's own renderer.

    python -m benchmarks.environment_speed --json

`ours` and `peer` are 30 Hz steps per second without images on one core, in episodes that the expert acts in:
`Environment.step` against a bare `mj_step` with as many substeps, on the same model, from the same states with the same
controls; so `ratio` is what our layer leaves of the bare physics. Steps with images hold three pictures each. The top
level is the first task's, `tasks` holds all of them. Time is the process's CPU time, so that other work on the machine
counts little; the rounds alternate, and the best of them counts, for steps tick by tick. Rates are those of one core of
its own.
"""

import argparse
import copy
import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's own renderer, the peer, reads it when it is imported

import mujoco
import numpy as np
import psutil

import envs

IMAGE_SIZE = 64
BATCH_SIZE = 16
NUM_COPIES = 12
"""Environments that are made to see what one more takes."""


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


@dataclasses.dataclass(frozen=True)
class Tick:
    """One control tick of an episode: the state before it, the action, and the controls that came of it."""

    state: np.ndarray
    action: np.ndarray
    ctrl: np.ndarray


def record_episodes(env: envs.Environment, num_ticks: int) -> dict[int, list[Tick]]:
    """At least so many ticks of the expert's episodes, by seed."""
    model, expert = env.task.model, envs.make_expert(env)
    episodes: dict[int, list[Tick]] = {}
    while sum(map(len, episodes.values())) < num_ticks:
        seed = len(episodes)
        episodes[seed], timestep = [], env.reset(seed)
        expert.reset()
        while not timestep.last() and len(episodes[seed]) < num_ticks:
            state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
            mujoco.mj_getState(model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
            action = expert.act()
            timestep = env.step(action)
            episodes[seed].append(Tick(state, action, env.data.ctrl.copy()))
    return episodes


def measure_steps(task: str, num_ticks: int, num_rounds: int) -> dict[str, float]:
    env = envs.load(task)
    episodes = record_episodes(env, num_ticks)
    num_ticks = sum(map(len, episodes.values()))
    best_s = {seed: np.full((2, len(ticks)), np.inf) for seed, ticks in episodes.items()}
    for _ in range(num_rounds):
        for seed, ticks in episodes.items():
            best_s[seed] = np.minimum(best_s[seed], [time_ours(env, seed, ticks), time_bare(env, ticks)])
    ours_s, bare_s = np.concatenate(list(best_s.values()), axis=1).sum(axis=1)
    rates = {"env_steps_per_s": num_ticks / ours_s, "bare_steps_per_s": num_ticks / bare_s}
    return rates | best_rate({"resets_per_s": lambda: env.reset(0)}, 10, 2)


def time_ours(env: envs.Environment, seed: int, ticks: list[Tick]) -> list[float]:
    """CPU seconds of each of the environment's steps along an episode."""
    env.reset(seed)
    seconds = []
    for tick in ticks:
        start = time.process_time()
        env.step(tick.action)
        seconds.append(time.process_time() - start)
    return seconds


def time_bare(env: envs.Environment, ticks: list[Tick]) -> list[float]:
    """CPU seconds of the physics alone in each tick of the environment's last episode, from the same state with the same
    controls, on the model as that episode left it: with its goods, and its welds where they gripped.
    """
    model, seconds = env.task.model, []
    data, substeps = mujoco.MjData(model), round(1 / env.control_hz / model.opt.timestep)
    for tick in ticks:
        mujoco.mj_setState(model, data, tick.state, mujoco.mjtState.mjSTATE_INTEGRATION)
        data.ctrl[:] = tick.ctrl
        start = time.process_time()
        mujoco.mj_step(model, data, substeps)
        seconds.append(time.process_time() - start)
    return seconds


def measure_images(task: str, num_calls: int, num_rounds: int) -> dict[str, float]:
    env = envs.load(task, image_size=IMAGE_SIZE)
    env.reset(0)
    ours = best_rate({"our_image_sets_per_s": env.render}, num_calls, num_rounds)
    model = in_default_quality(env.task.model)
    with mujoco.Renderer(model, IMAGE_SIZE, IMAGE_SIZE) as renderer:

        def render_all() -> None:
            for camera in envs.CAMERAS:
                renderer.update_scene(env.data, f"g1/{camera}")
                renderer.render()

        peer = best_rate({"default_image_sets_per_s": render_all}, max(2, num_calls // 20), 2)
    env.close()
    return ours | peer


def in_default_quality(model: mujoco.MjModel) -> mujoco.MjModel:
    """The same world with MuJoCo's default visual quality and lamps that cast shadows."""
    model = copy.copy(model)
    quality = model.vis.quality
    quality.offsamples, quality.shadowsize, quality.numslices, quality.numstacks = 4, 4096, 28, 16
    model.light_castshadow[:] = True
    return model


def measure_batch(task: str, num_ticks: int, num_rounds: int) -> dict[str, float]:
    """Steps per second of a batch on one thread and of the bare physics of as many worlds, in CPU time from the same
    starts; and of wall time, on one thread and on every core.
    """
    rates: dict[str, float] = {}
    for name, num_threads in (("one_thread", 1), ("every_core", 0)):
        environments = [envs.load(task, time_limit_s=1e9) for _ in range(BATCH_SIZE)]
        with envs.EnvironmentBatch(environments, num_threads) as batch:
            actions = np.stack([timestep.observation["state"] for timestep in batch.reset(range(BATCH_SIZE))])
            bare = [mujoco.MjData(env.task.model) for env in environments]
            for env, data in zip(environments, bare, strict=True):
                mujoco.mj_copyData(data, env.task.model, env.data)
            substeps = round(1 / 30 / environments[0].task.model.opt.timestep)

            def step_bare(environments: Any = environments, bare: Any = bare, substeps: int = substeps) -> None:
                for env, data in zip(environments, bare, strict=True):
                    mujoco.mj_step(env.task.model, data, substeps)

            measures = {"batch": functools.partial(batch.step, actions), "bare": step_bare}
            cpu, wall = best_rate(measures, num_ticks, num_rounds), wall_rate(measures["batch"], num_ticks, num_rounds)
        rates |= {f"{name}_{what}": rate * BATCH_SIZE for what, rate in (*cpu.items(), ("wall", wall))}
    return rates


def wall_rate(call: Callable[[], object], num_calls: int, num_rounds: int) -> float:
    """Calls per second of wall time, best of several rounds."""
    best_s = float("inf")
    for _ in range(num_rounds):
        started = time.perf_counter()
        for _ in range(num_calls):
            call()
        best_s = min(best_s, time.perf_counter() - started)
    return num_calls / best_s


def measure_memory(task: str) -> float:
    """What one more environment takes, without images [MB], in a process of its own: here, freed memory is used again."""
    command = [sys.executable, "-m", "benchmarks.environment_speed", "--memory-of", task]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory_per_environment(task: str) -> float:
    """As `measure_memory`, in this process."""
    process = psutil.Process()
    kept = [envs.load(task)]
    kept[0].reset(0)
    before = process.memory_info().rss
    for _ in range(NUM_COPIES):
        kept.append(envs.load(task))
        kept[-1].reset(0)
    return (process.memory_info().rss - before) / NUM_COPIES / 1e6


def measure(task: str, num_calls: int, num_rounds: int) -> dict[str, float]:
    """Everything about one task."""
    env_mb = measure_memory(task)
    steps = measure_steps(task, num_calls, num_rounds)
    images = measure_images(task, max(20, num_calls // 5), num_rounds)
    batch = measure_batch(task, max(5, num_calls // 20), num_rounds)
    with_images = 1 / (1 / steps["env_steps_per_s"] + 1 / images["our_image_sets_per_s"])
    return {
        "ours": round(steps["env_steps_per_s"], 1),
        "peer": round(steps["bare_steps_per_s"], 1),
        "ratio": round(steps["env_steps_per_s"] / steps["bare_steps_per_s"], 3),
        "real_time_factor": round(steps["env_steps_per_s"] / 30, 1),
        "reset_ms": round(1e3 / steps["resets_per_s"], 3),
        "image_ms": round(1e3 / images["our_image_sets_per_s"], 2),
        "image_default_ms": round(1e3 / images["default_image_sets_per_s"], 2),
        "image_ratio": round(images["our_image_sets_per_s"] / images["default_image_sets_per_s"], 1),
        "steps_with_images_per_s": round(with_images, 1),
        "batch_steps_per_s": round(batch["every_core_wall"], 1),
        "batch_ratio": round(batch["one_thread_batch"] / batch["one_thread_bare"], 3),
        "batch_speedup": round(batch["every_core_wall"] / batch["one_thread_wall"], 2),
        "env_mb": round(env_mb, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Env steps and images per second.")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--calls", type=int, default=300, help="calls per round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per figure; the best counts")
    parser.add_argument("--tasks", nargs="*", default=envs.TASKS, choices=envs.TASKS, help="default: all")
    parser.add_argument("--memory-of", choices=envs.TASKS, help="print what one more environment takes [MB], and end")
    options = parser.parse_args()
    if options.memory_of:
        print(memory_per_environment(options.memory_of))
        return
    tasks = {task: measure(task, options.calls, options.rounds) for task in options.tasks}
    result = {
        "name": "environment_speed",
        "units": "30 Hz steps per second, one core, no images; peer: bare mj_step from the same states on the same model",
        **tasks[options.tasks[0]],
        "image_size": IMAGE_SIZE,
        "cameras": list(envs.CAMERAS),
        "tasks": tasks,
    }
    if not options.json:
        for task, values in tasks.items():
            print(task)
            for key, value in values.items():
                print(f"{key:>26}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

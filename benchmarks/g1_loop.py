"""How regular the G1's control loop is on this machine, against the emulator, beside a loop that does nothing.

    python -m benchmarks.g1_loop --json

Rounds in turns, each on the wall clock at 30 Hz: whole episodes of `G1Robot` (a policy that holds the pose, images of three
cameras every third tick, the safety check and the watchdog's thread) over the emulated SDK and over ROS 2 topics (DDS on the
loopback, where Cyclone DDS is installed), and a bare loop that only waits. The emulator's physics and rendering run inside
the robot's reads, on the same cores, which a real robot's don't: these are upper bounds.

    jitter       intervals between commands against the period: root mean square and worst
    latency      from the beginning of an observation to its command, mean and worst
    check        one pass of the safety filter, mean

ours = the robot's root mean square jitter over the SDK [ms], peer = the bare loop's; ratio = peer / ours.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import envs
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.robots.g1.body_model import BodyModel
from sop_jax.robots.g1.config import CameraConfig, G1RobotConfig, Ros2Config
from sop_jax.robots.g1.connecting import import_ros2
from sop_jax.robots.g1.emulated_sdk import connect_emulator
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.link import G1Link
from sop_jax.robots.g1.loop_timing import LoopReport, LoopTimer
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.robots.g1.safety import SafetyFilter
from sop_jax.specs.clock import Ticker, WallClock
from sop_jax.specs.errors import MissingDependencyError
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.metrics import MemoryMetrics

DOMAIN_ID = 221
REPORTED = tuple(field.name for field in dataclasses.fields(LoopReport))


def play_robot(robot: G1Robot, metrics: MemoryMetrics, clock: WallClock, number: int) -> dict[str, float]:
    header = EpisodeHeader(make_episode_id("g1-bench", 1, number), seed=number)
    rollout = RolloutConfig(execute_steps=3, realtime=True)
    episode = run_episode(robot, FakePolicy(), None, header, rollout, clock)
    report = [event for event in metrics.events if event["event"] == "g1_episode"][-1]
    if episode.manifest.failure_kind not in ("", "timeout"):
        raise SystemExit(f"the episode ended as {episode.manifest.failure_kind}; this machine is too slow or too busy")
    return {name: float(report[name]) for name in REPORTED}


def play_nothing(clock: WallClock, seconds: float) -> dict[str, float]:
    timer, ticker = LoopTimer(round(1e9 / 30)), Ticker(clock, 30.0)
    for _ in range(round(seconds * 30)):
        timer.commanded(clock.now_ns())
        ticker.wait()
    return {name: float(value) for name, value in dataclasses.asdict(timer.report()).items()}


def time_check(config: G1RobotConfig, state: np.ndarray, num_checks: int = 300) -> float:
    """Milliseconds of one pass of the safety filter."""
    guard = SafetyFilter(config, BodyModel(config.posture, config.limits))
    guard.reset(state, 0)
    started_s = time.perf_counter()
    for tick in range(1, num_checks + 1):
        guard.check(state + 0.001, state, tick * config.timing.period_ns)
    return (time.perf_counter() - started_s) / num_checks * 1e3


def summarise(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Over all rounds, in milliseconds."""
    rms = np.sqrt(np.mean([row["rms_jitter_s"] ** 2 for row in rounds]))
    found = {
        "rms_jitter_ms": rms,
        "max_jitter_ms": max(row["max_jitter_s"] for row in rounds),
        "mean_latency_ms": np.mean([row["mean_latency_s"] for row in rounds]),
        "max_latency_ms": max(row["max_latency_s"] for row in rounds),
    }
    return {name: round(float(value) * 1e3, 3) for name, value in found.items()}


def links() -> dict[str, Callable[[Emulator], G1Link]]:
    """The ways to an emulated robot."""
    ways: dict[str, Callable[[Emulator], G1Link]] = {"robot": connect_emulator}
    try:
        ways["ros2"] = functools.partial(import_ros2("emulated_ros2").EmulatedRos2Link, config=Ros2Config(DOMAIN_ID))
    except MissingDependencyError as error:
        print(error, file=sys.stderr)
    return ways


def measure(options: argparse.Namespace) -> dict[str, Any]:
    clock, metrics, size = WallClock(), MemoryMetrics(), options.image_size
    cameras = tuple(CameraConfig(name, name, size, size, size, size) for name in ("head", "hand_left", "hand_right"))
    config = G1RobotConfig(cameras=cameras, time_limit_s=options.seconds)
    robots: dict[str, G1Robot] = {}
    for name, connect in links().items():
        environment = envs.load("restock_shelf", time_limit_s=options.seconds + 5.0)
        emulator = Emulator(environment, clock, config.units, cameras)
        robots[name] = G1Robot(config, connect(emulator), emulator, clock, metrics)
        play_robot(robots[name], metrics, clock, 0)  # The first pictures compile shaders.
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in (*robots, "bare")}
    for number in range(1, options.rounds + 1):
        for name, robot in robots.items():
            rounds[name].append(play_robot(robot, metrics, clock, number))
        rounds["bare"].append(play_nothing(clock, options.seconds))
    state = robots["robot"].observe(images=False).state.astype(np.float64)
    for robot in robots.values():
        robot.close()
    found = {name: summarise(rows) for name, rows in rounds.items()}
    return {
        "name": "g1_loop",
        "ours": found["robot"]["rms_jitter_ms"],
        "peer": found["bare"]["rms_jitter_ms"],
        "ratio": round(found["bare"]["rms_jitter_ms"] / found["robot"]["rms_jitter_ms"], 3),
        "units": "ms, root mean square of intervals against the period; peer waits only",
        **found,
        "check_ms": round(time_check(config, state), 3),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "image_size": size,
        "num_commands": int(sum(row["num_commands"] for row in rounds["robot"])),
        "cpus": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line (always done)")
    parser.add_argument("--rounds", type=int, default=4, help="episodes, and bare loops (default 4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each (default 10)")
    parser.add_argument("--image-size", type=int, default=64, help="pixels per side (default 64)")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

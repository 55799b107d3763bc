"""Control ticks per second of a whole recorded episode, against the bare world that steps through the same actions.

    python -m benchmarks.actor_rate --json

In one run, in turns: `run_episode` without pacing (three 64-pixel cameras rendered and compressed at 10 Hz, the compact
policy asked every 8 ticks), the same actions through the world with the same images rendered, and through the world alone.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np

import envs
from sop_jax.actors.episode import EpisodeHeader, RecordingConfig, run_episode
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.models.compact import CompactConfig, CompactPolicy
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.robots.simulated import SimulatedRobot
from sop_jax.specs.clock import WallClock
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import Episode

TASK = "restock_shelf"
CONTROL_HZ = 30.0


def make_runner() -> PolicyRunner:
    """An untrained compact policy whose statistics keep its actions near zero: what it costs doesn't depend on its skill."""
    model = CompactPolicy(CompactConfig())
    norm = identity_norm_stats(16, 16, model.horizon)
    norm.action_std[:] = 0.05
    return PolicyRunner(model, jax.jit(model.init_params)(jax.random.key(0)), norm)


class Stopwatch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def per_tick(self, num_ticks: int) -> tuple[float, float]:
        """(ticks per second of wall time, processor milliseconds per tick)."""
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return num_ticks / wall_s, 1e3 * cpu_s / num_ticks


def replay(environment: envs.Environment, episode: Episode, images: bool) -> tuple[float, float]:
    """Speed of the world through the episode's actions, with the episode's renderings or without any."""
    stride, chunk = RecordingConfig().image_stride, RolloutConfig().execute_steps
    environment.reset(episode.manifest.seed)
    watch = Stopwatch()
    for frame, action in enumerate(episode.arrays.action):
        if images and (frame % stride == 0 or frame % chunk == 0):
            environment.render()
        environment.step(action)
    return watch.per_tick(episode.manifest.num_frames)


def measure(num_episodes: int, episode_s: float) -> dict[str, object]:
    environment = envs.load(TASK, time_limit_s=episode_s)
    clock, metrics = WallClock(), MemoryMetrics()
    robot, runner = SimulatedRobot(environment, clock), make_runner()
    runner.warm_up(robot.spec)
    found: dict[str, list[tuple[float, float]]] = {"run_episode": [], "world_and_images": [], "world": []}
    for count in range(num_episodes + 1):
        header = EpisodeHeader(make_episode_id("bench", 0, count), seed=count)
        watch = Stopwatch()
        episode = run_episode(robot, runner, None, header, RolloutConfig(), clock, metrics=metrics)
        ours = watch.per_tick(episode.manifest.num_frames)
        turn = (ours, replay(environment, episode, images=True), replay(environment, episode, images=False))
        if count:  # The first one warms up.
            for values, value in zip(found.values(), turn, strict=True):
                values.append(value)
    environment.close()
    medians = {name: statistics.median(ticks for ticks, _ in values) for name, values in found.items()}
    cpu_ms = {name: statistics.median(cpu for _, cpu in values) for name, values in found.items()}
    tick_ms = [1e3 * float(event["mean_tick_s"]) for event in metrics.events[1:]]
    worst_ms = [1e3 * float(event["max_tick_s"]) for event in metrics.events[1:]]
    return {
        "name": "actor_rate",
        "ours": medians["run_episode"],
        "peer": medians["world"],
        "ratio": medians["run_episode"] / medians["world"],
        "units": "control ticks/s; peer = the bare world stepping through the same actions",
        "ratio_to_world_and_images": medians["run_episode"] / medians["world_and_images"],
        "world_and_images": medians["world_and_images"],
        "cpu_ms_per_tick": cpu_ms,
        "share_of_30hz_tick": float(np.mean(tick_ms)) * CONTROL_HZ / 1e3,
        "worst_tick_share": max(worst_ms) * CONTROL_HZ / 1e3,
        "mean_tick_ms": float(np.mean(tick_ms)),
        "worst_tick_ms": max(worst_ms),
        "num_episodes": num_episodes,
        "num_compilations": runner.num_compilations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Control ticks per second of a recorded episode.")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--episodes", type=int, default=8, help="measured episodes (default 8)")
    parser.add_argument("--seconds", type=float, default=10.0, help="robot seconds per episode (default 10)")
    options = parser.parse_args()
    result = measure(options.episodes, options.seconds)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>28}: {value}")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

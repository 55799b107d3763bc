"""An emulated G1 on a simulated clock, and what tests change about it."""

import dataclasses

import numpy as np

from envs.g1.kinematics import load_kinematics
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.robots.g1.config import CameraConfig, G1RobotConfig, UnitsConfig
from sop_jax.robots.g1.emulated_sdk import connect_emulator
from sop_jax.robots.g1.emulator import Emulator
from sop_jax.robots.g1.robot import G1Robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.metrics import MemoryMetrics
from sop_jax.specs.records import EpisodeEnd

START_NS = 1_700_000_000_000_000_000
IMAGE_SIZE = 16
CAMERAS = tuple(
    CameraConfig(name, f"sdk_{name}", 32, 32, IMAGE_SIZE, IMAGE_SIZE) for name in ("head", "hand_left", "hand_right")
)
CONFIG = G1RobotConfig(cameras=CAMERAS, time_limit_s=2.0)
EPISODE = EpisodeHeader("g1-1.00000000000000000001.000000", seed=3)
HOME = np.r_[load_kinematics().home.left_arm_rad, load_kinematics().home.right_arm_rad]


def stretch(observation):
    """Out and away, as fast as the limits let it."""
    return observation.state + np.float32(0.26) * np.r_[np.zeros(5), 1, np.zeros(6), 1, np.zeros(3)].astype(np.float32)


@dataclasses.dataclass
class Bench:
    """A robot and all that stands around it."""

    clock: ManualClock
    emulator: Emulator
    robot: G1Robot
    metrics: MemoryMetrics

    def events(self, name: str) -> list[dict]:
        return [event for event in self.metrics.events if event["event"] == name]


def make_bench(environment, config: G1RobotConfig = CONFIG, units: UnitsConfig | None = None, **settings) -> Bench:
    """`units` is how the emulated SDK speaks, if otherwise than the configuration says."""
    clock, metrics = ManualClock(START_NS), MemoryMetrics()
    emulator = Emulator(environment, clock, units or config.units, config.cameras)
    link = connect_emulator(emulator)
    if units is not None:
        link._units = config.units
    robot = G1Robot(config, link, emulator, clock, metrics, background=False, **settings)
    return Bench(clock, emulator, robot, metrics)


def run(bench, policy=None, before_start=None):
    config, policy = RolloutConfig(realtime=True), policy or FakePolicy()
    return run_episode(bench.robot, policy, None, EPISODE, config, bench.clock, before_start=before_start)


def end_of(episode):
    return EpisodeEnd(episode.manifest.outcome, episode.manifest.failure_kind)

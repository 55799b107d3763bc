"""Another robot: a bench arm of six servos and a gripper, which speak in steps of 1/4096 turn. An episode of it in a store.

A driver of your own goes where `ServoBus` stands; `tests/robots/robot_contract.py` says what every robot must do.
"""

import tempfile

import numpy as np

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.clock import Clock, ManualClock
from sop_jax.specs.records import CameraSpec, EpisodeEnd, Observation, Outcome, RobotSpec, Source

STEPS_PER_TURN, MIDDLE, MAX_STEPS, SIZE = 4096, 2048, 40, 32
OPEN, CLOSED = 2048, 3000  # of the gripper's servo
NAMES = (*(f"joint{number}" for number in range(1, 7)), "gripper")


class ServoBus:
    """Stands in for the arm's driver: each tick, servos turn towards their targets by at most MAX_STEPS."""

    def __init__(self) -> None:
        self.position = np.full(7, MIDDLE)

    def write(self, target: np.ndarray) -> None:
        self.position = self.position + np.clip(target - self.position, -MAX_STEPS, MAX_STEPS)

    def picture(self) -> np.ndarray:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[:, :7] = (self.position // 16)[:, None].clip(0, 255)
        return image


class BenchArm:
    """Implements `specs.interfaces.Robot`. Units are converted here and nowhere else: rad, and 0 open .. 1 closed."""

    task, instruction = "bench_reach", "reach the pose and close the gripper"
    spec = RobotSpec(
        "bench_arm", (CameraSpec("wrist", SIZE, SIZE),), NAMES, (-1.5,) * 6 + (0.0,), (1.5,) * 6 + (1.0,), 20.0
    )

    def __init__(self, bus: ServoBus, clock: Clock, max_ticks: int = 200):
        self._bus, self._clock, self._max_ticks = bus, clock, max_ticks
        self.goal = np.zeros(7, np.float32)

    def reset(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.goal = np.append(rng.uniform(-1, 1, 6), 1.0).astype(np.float32)
        self._bus.position = np.append(rng.integers(MIDDLE - 200, MIDDLE + 200, 6), OPEN)
        self._start_ns, self._tick = self._clock.now_ns(), 0

    def observe(self, images: bool = True) -> Observation:
        views = {"wrist": self._bus.picture()} if images else {}
        time_ns = self._start_ns + round(self._tick * 1e9 / self.spec.control_hz)
        return Observation(views, self._state(), self.instruction, time_ns)

    def apply(self, action: np.ndarray) -> np.ndarray:
        executed = np.clip(action, self.spec.action_low, self.spec.action_high).astype(np.float32)
        joints = MIDDLE + executed[:6] / (2 * np.pi) * STEPS_PER_TURN
        self._bus.write(np.rint(np.append(joints, OPEN + executed[6] * (CLOSED - OPEN))).astype(int))
        self._tick += 1
        return executed

    def check_end(self) -> EpisodeEnd | None:
        if np.max(np.abs(self._state() - self.goal)) < 0.02:
            return EpisodeEnd(Outcome.SUCCESS)
        return EpisodeEnd(Outcome.TIMEOUT, "timeout") if self._tick >= self._max_ticks else None

    def close(self) -> None:
        """Nothing to let go of."""

    def _state(self) -> np.ndarray:
        joints = (self._bus.position[:6] - MIDDLE) / STEPS_PER_TURN * 2 * np.pi
        return np.append(joints, (self._bus.position[6] - OPEN) / (CLOSED - OPEN)).astype(np.float32)


class Expert:
    def __init__(self, robot: BenchArm):
        self._robot = robot

    def reset(self) -> None:
        pass

    def act(self) -> np.ndarray:
        return self._robot.goal


def main(root: str) -> None:
    robot = BenchArm(ServoBus(), ManualClock())
    header = EpisodeHeader("bench-1.1.0", seed=3, source=Source.OFFLINE)
    episode = run_episode(robot, None, None, header, RolloutConfig(), ManualClock(), expert=Expert(robot))
    store = EpisodeStore(root)
    stored = store.read(store.put(episode).path).manifest
    print(f"{stored.episode_id}: {stored.outcome}, {stored.num_frames} frames of {len(stored.action_names)} numbers")


if __name__ == "__main__":
    main(f"file://{tempfile.mkdtemp()}/")

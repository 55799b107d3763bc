"""Made-up episodes for tests, benchmarks and dry runs: FAKE data, plausible in shape and range, meaningless in content."""

import numpy as np

from sop_jax.episodes.recorder import EpisodeRecorder
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.records import (
    NO_POLICY,
    CameraSpec,
    Episode,
    EpisodeEnd,
    Observation,
    Outcome,
    RobotSpec,
    Source,
)

CAMERA_NAMES = ("head", "hand_left", "hand_right")
ACTION_NAMES = (
    *(f"left_joint{i}" for i in range(1, 8)),
    *(f"right_joint{i}" for i in range(1, 8)),
    "left_gripper",
    "right_gripper",
)


def make_spec(image_size: int = 64, camera_names: tuple[str, ...] = CAMERA_NAMES) -> RobotSpec:
    """A two-armed robot with 16 dimensions at 30 Hz, as in `specs.records`."""
    return RobotSpec(
        robot_type="synthetic",
        cameras=tuple(CameraSpec(name, image_size, image_size) for name in camera_names),
        action_names=ACTION_NAMES,
        action_low=(-3.0,) * 14 + (0.0,) * 2,
        action_high=(3.0,) * 14 + (1.0,) * 2,
        control_hz=30.0,
    )


def make_image(rng: np.random.Generator, camera: CameraSpec, noise: float = 8.0) -> np.ndarray:
    """uint8 [height, width, 3]: a colour gradient with grain (`noise` in grey levels; it sets the JPEG's size)."""
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    corner, slope = rng.uniform(0, 200, 3), rng.uniform(-1, 1, (2, 3)) * 60
    image = corner + (x / camera.width)[..., None] * slope[0] + (y / camera.height)[..., None] * slope[1]
    return (image + rng.normal(0, noise, image.shape)).clip(0, 255).astype(np.uint8)


def make_observation(
    rng: np.random.Generator, spec: RobotSpec, *, time_ns: int, instruction: str, images: bool
) -> Observation:
    state = rng.uniform(spec.action_low, spec.action_high).astype(np.float32)
    taken = {camera.name: make_image(rng, camera) for camera in spec.cameras} if images else {}
    return Observation(taken, state, instruction, time_ns)


def make_episode(
    seed: int = 0,
    num_frames: int = 12,
    image_stride: int = 3,
    *,
    spec: RobotSpec | None = None,
    image_size: int = 64,
    robot_id: str = "robot-0",
    task: str = "restock_shelf",
    instruction: str = "put the cup on the shelf",
    source: Source = Source.ONLINE,
    policy_version: int = 1,
    takeovers: tuple[tuple[int, int, int], ...] = (),
    outcome: Outcome = Outcome.SUCCESS,
    started_ns: int = 1_000_000_000,
    count: int | None = None,
    jpeg_quality: int = 90,
) -> Episode:
    """A fake sealed episode, the same for the same arguments.

    Args:
        seed: Also the episode's number in its id unless `count` is given, so different seeds give different ids.
        num_frames: Control ticks T.
        image_stride: Frames 0, stride, 2*stride ... carry images.
        spec: The robot; default `make_spec(image_size)`.
        image_size: Height and width of the default spec's images, pixels.
        source: Source.OFFLINE with policy_version NO_POLICY makes a demonstration (every frame an intervention).
        policy_version: On every frame.
        takeovers: (asked, takeover, handback) frames; the supervisor acts on [takeover, handback).
        started_ns: The actor's start time in the id, and the first frame's time.
        count: The episode's number in its id; default `seed`.
    """
    spec = spec or make_spec(image_size)
    rng = np.random.default_rng(seed)
    recorder = EpisodeRecorder(
        spec,
        episode_id=make_episode_id(robot_id, started_ns, seed if count is None else count),
        task=task,
        instruction=instruction,
        source=source,
        policy_version=policy_version,
        seed=seed,
        world="synthetic-1",
        jpeg_quality=jpeg_quality,
    )
    acting = {frame for _, start, end in takeovers for frame in range(start, end)}
    asked = {frame for frame, _, _ in takeovers}
    for frame in range(num_frames):
        if frame in asked:
            recorder.takeover_asked("synthetic")
        observation = make_observation(
            rng,
            spec,
            time_ns=started_ns + round(frame * 1e9 / spec.control_hz),
            instruction=instruction,
            images=frame % image_stride == 0,
        )
        action = rng.uniform(spec.action_low, spec.action_high).astype(np.float32)
        recorder.add(observation, action, intervention=frame in acting or policy_version == NO_POLICY)
    return recorder.seal(EpisodeEnd(outcome, "" if outcome is Outcome.SUCCESS else "synthetic"))

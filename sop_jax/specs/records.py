"""The records that travel the loop.

Legend: `T` frames of an episode (one per control tick), `K` frames that carry images (K <= T), `C` cameras, `H` horizon of
an action chunk, `A` action dimensions, `S` state dimensions.

The 16 action and state dimensions of a two-armed robot, in this order everywhere: left arm joints 1-7 [rad], right arm
joints 1-7 [rad], left gripper, right gripper [0 open .. 1 closed]. An action is an absolute joint position target.
"""

import dataclasses
import enum
import math
from collections.abc import Mapping

import numpy as np

from sop_jax.specs.conditioning import Conditioning

SCHEMA_VERSION = 2
"""Newest version of the episode layout: 2 has marks, 1 has none. An episode without marks is of version 1, as it always was.
A reader refuses a newer one."""

NO_POLICY = -1
"""policy_version of an episode in which no policy acted (a demonstration)."""


class Source(enum.StrEnum):
    """Which buffer an episode feeds."""

    ONLINE = "online"
    OFFLINE = "offline"


class Outcome(enum.StrEnum):
    """How an episode ended. ERROR marks diverged physics or a broken robot: stored for diagnosis, never trained on."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    ABORTED = "aborted"
    ERROR = "error"


@dataclasses.dataclass(frozen=True)
class CameraSpec:
    """One RGB camera: images are uint8 [height, width, 3]."""

    name: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class RobotSpec:
    """What a robot offers before it has moved: dimensions, names, units, limits, rate."""

    robot_type: str
    cameras: tuple[CameraSpec, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    control_hz: float

    def __post_init__(self) -> None:
        if not len(self.action_names) == len(self.action_low) == len(self.action_high):
            raise ValueError(
                f"RobotSpec {self.robot_type}: action names, low and high must be equally long, got "
                f"{len(self.action_names)}, {len(self.action_low)}, {len(self.action_high)}"
            )

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @property
    def state_dim(self) -> int:
        """The state has the action's dimensions and units: measured joint positions and gripper openings."""
        return len(self.action_names)


def is_same_rate(first_hz: float, second_hz: float) -> bool:
    """Whether chunks recorded at one control rate can be played at the other: their speeds differ by less than 1%."""
    return math.isclose(first_hz, second_hz, rel_tol=0.01)


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the policy may see at one instant.

    `images` maps camera name to uint8 [height, width, 3] and is empty when none were asked for; `state` is float32 [S];
    `time_ns` is the robot's clock.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray
    instruction: str
    time_ns: int


@dataclasses.dataclass(frozen=True)
class EpisodeEnd:
    """Why an episode is over. `failure_kind` is "" on success."""

    outcome: Outcome
    failure_kind: str = ""


@dataclasses.dataclass(frozen=True)
class TakeoverEvent:
    """Edges of one intervention: acts on frames [takeover_frame, handback_frame). `asked_frame` is when the gate (or the
    human) decided, before the reaction delay."""

    asked_frame: int
    takeover_frame: int
    handback_frame: int
    reason: str


@dataclasses.dataclass(frozen=True)
class EpisodeMark:
    """Something worth knowing about a frame: `kind` "breach", "hold", "fault" (a robot's safety layer) or "stage" (a person
    who watched); `note` says which one."""

    frame: int
    kind: str
    note: str


@dataclasses.dataclass(frozen=True)
class EpisodeManifest:
    """Everything about an episode that isn't an array. Immutable once sealed.

    `policy_version` is the version that every policy frame was made by (NO_POLICY for demonstrations). `weights_base` and
    `norm_stats` are the fingerprints of the base model and of the normalisation statistics that acted ("" if none).
    `seed` and `world` make a simulated episode reproducible. Times are the robot's clock, nanoseconds.
    """

    episode_id: str
    robot_id: str
    task: str
    instruction: str
    source: Source
    policy_version: int
    outcome: Outcome
    control_hz: float
    num_frames: int
    cameras: tuple[CameraSpec, ...]
    action_names: tuple[str, ...]
    started_ns: int
    ended_ns: int
    failure_kind: str = ""
    weights_base: str = ""
    norm_stats: str = ""
    seed: int = 0
    world: str = ""
    takeovers: tuple[TakeoverEvent, ...] = ()
    marks: tuple[EpisodeMark, ...] = ()

    @property
    def schema_version(self) -> int:
        """Of the layout that holds it."""
        return 2 if self.marks else 1

    @property
    def num_interventions(self) -> int:
        return len(self.takeovers)


@dataclasses.dataclass(frozen=True)
class EpisodeArrays:
    """The numbers of an episode.

    state: float32 [T, S], measured before the action.
    action: float32 [T, A], the executed command (after clipping), whoever gave it.
    intervention: bool [T], a human (or scripted supervisor) acted.
    policy_version: int32 [T], the version that acted; NO_POLICY on demonstration frames. On intervention frames: the
        version that was overruled.
    time_ns: int64 [T], strictly increasing.
    image_frames: int32 [K], strictly increasing: the frames whose images were kept.
    """

    state: np.ndarray
    action: np.ndarray
    intervention: np.ndarray
    policy_version: np.ndarray
    time_ns: np.ndarray
    image_frames: np.ndarray

    @property
    def num_frames(self) -> int:
        return len(self.state)


@dataclasses.dataclass(frozen=True)
class Episode:
    """A sealed episode in memory. `jpegs[k][c]` is the JPEG of camera `manifest.cameras[c]` at frame `image_frames[k]`."""

    manifest: EpisodeManifest
    arrays: EpisodeArrays
    jpegs: tuple[tuple[bytes, ...], ...]


@dataclasses.dataclass(frozen=True)
class EpisodeIndex:
    """Where an episode's bytes lie inside its one object: what intake needs to make items, and no pixel.

    arrays_range: (offset, length) of the numeric tail, which one range read fetches.
    image_ranges: int64 [K, C, 2], (offset, length) of every JPEG; a frame's JPEGs are adjacent.
    """

    path: str
    size: int
    arrays_range: tuple[int, int]
    image_ranges: np.ndarray


@dataclasses.dataclass(frozen=True)
class Segment:
    """A replay item: `L` trainable frames (with images) of one episode, and where their bytes lie. Never a pixel.

    frames: int32 [L], frame indices within the episode, increasing (not always contiguous).
    image_ranges: int64 [L, C, 2], (offset, length) of each JPEG in the episode's object.
    arrays_range: (offset, length) of the episode's numeric arrays in the same object.
    intervention: bool [L], whether a human acted at that frame.
    label: float32 [L], the algorithm's per-frame label (a loss weight; RECAP's indicator).
    """

    episode_id: str
    path: str
    task: str
    source: Source
    policy_version: int
    ended_ns: int
    frames: np.ndarray
    image_ranges: np.ndarray
    arrays_range: tuple[int, int]
    intervention: np.ndarray
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class Publication:
    """One immutable set of weights that robots may act with.

    `version` rises by 1 per publication. `restores` is the version whose weights a rollback brought back, else None.
    `files` maps each file below the publication's directory to (size in bytes, sha256 hex). `conditioning` is what the policy
    is told when it is evaluated; None = the publication doesn't say (earlier ones don't).
    """

    version: int
    learner_step: int
    base_fingerprint: str
    norm_fingerprint: str
    created_ns: int
    files: Mapping[str, tuple[int, str]]
    restores: int | None = None
    conditioning: Conditioning | None = None

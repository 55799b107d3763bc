"""One robot and the computer beside it: what `sop act --station FILE` reads.

Everything here is the robot's side: nothing that it imports trains. Files are JSON; fields left out keep their defaults.
"""

import dataclasses
import json
import pathlib
from typing import Literal

from configs.files import from_json
from sop_jax.actors.episode import RecordingConfig
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.world import WorldConfig
from sop_jax.robots.g1.config import G1RobotConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import check_name


def _paced() -> RolloutConfig:
    return RolloutConfig(
        realtime=True, inference_delay_frames=None, reaction_delay_s=0.0, handover=HandoverConfig(blend_s=0.25)
    )


@dataclasses.dataclass(frozen=True)
class StationConfig:
    """A robot, what it does, and how.

    robot: which one. g1: a real AgiBot G1 over the vendor's SDK. g1_emulator: a world behind that SDK's names.
        simulated: the world itself.
    policy: the base policy's directory; its weights come from the store afterwards.
    task, instruction: what a real robot is to do, and how the policy is told; worlds say so themselves.
    world: the scene of the two that aren't real. g1: joints, units, cameras and limits of the two that are a G1 (the emulator
        gives square frames of the world's image size, whatever the cameras say).
    standstill_s: an arm that doesn't move for so long asks for a person [s].
    conditioning: what the policy is told beside the instruction, as the learner's algorithm asks for.
    """

    policy: str
    robot: Literal["g1", "g1_emulator", "simulated"] = "g1"
    task: str = ""
    instruction: str = ""
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    g1: G1RobotConfig = dataclasses.field(default_factory=G1RobotConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=_paced)
    recording: RecordingConfig = dataclasses.field(default_factory=RecordingConfig)
    conditioning: Conditioning = dataclasses.field(default_factory=Conditioning)
    standstill_s: float = 5.0
    weights_poll_s: float = 5.0
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        if self.robot not in ("g1", "g1_emulator", "simulated"):
            raise ConfigError(f"StationConfig.robot must be g1, g1_emulator or simulated, got {self.robot!r}")
        if self.robot == "g1":
            check_name("task", self.task)
            if not self.instruction:
                raise ConfigError("StationConfig.instruction must say what the robot is to do, got nothing")
            if not self.rollout.realtime:
                raise ConfigError("StationConfig.rollout.realtime must be true on a real robot")
        num_frames = round(self.g1.time_limit_s * self.g1.timing.control_hz)
        if self.is_dry_run and self.rollout.max_frames < num_frames:
            # The robot ends its dry runs as such; an episode that is cut off from outside would be trained on.
            raise ConfigError(
                "StationConfig: in a dry run rollout.max_frames must be at least g1.time_limit_s, which is "
                f"{num_frames} frames, got {self.rollout.max_frames}; lower g1.time_limit_s"
            )
        if min(self.standstill_s, self.weights_poll_s, self.drain_s) <= 0:
            raise ConfigError(f"StationConfig: standstill_s, weights_poll_s and drain_s must be positive, got {self}")

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing that is decided here reaches the robot."""
        return self.robot != "simulated" and self.g1.dry_run


def read_station(path: pathlib.Path) -> StationConfig:
    """The station in a file. Raises ConfigError with the field that is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: expected JSON: {error}") from error
    return from_json(StationConfig, values, str(path))

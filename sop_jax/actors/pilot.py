"""Who moves the robot through one episode: a policy that a supervisor may interrupt, or an expert alone.

Legend: `H` horizon of an action chunk, `A` action dimensions.
"""

import dataclasses
from typing import Protocol

import numpy as np

from sop_jax.actors.seeds import inference_seed
from sop_jax.actors.takeover import Control, Takeover
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import ActionSource, Supervisor
from sop_jax.specs.records import NO_POLICY, Observation


class NonFiniteActionError(Exception):
    """The policy or the expert gave an action that is NaN or infinite; the robot must not see it."""


@dataclasses.dataclass(frozen=True)
class FrameLabel:
    """Who acted on a frame. `request` is the reason of a supervisor's request made on this tick, else ""."""

    policy_version: int
    intervention: bool = False
    request: str = ""


class Pilot(Protocol):
    """Gives every tick's action.

    label = pilot.begin_tick(frame)
    action = pilot.act(robot.observe(images=pilot.needs_images))      # float32 [A]
    """

    @property
    def needs_images(self) -> bool: ...

    def begin_tick(self, frame: int) -> FrameLabel: ...

    def act(self, observation: Observation) -> np.ndarray: ...


class PolicyPilot:
    """Runs the first `execute_steps` actions of each chunk, then asks the policy again; a supervisor may take over.

    What is left of a chunk is dropped at a takeover, so the first action after the handback comes from a fresh look.
    """

    def __init__(
        self,
        policy: ActionSource,
        supervisor: Supervisor | None,
        seed: int,
        action_dim: int,
        execute_steps: int,
        delay_frames: int,
    ):
        if not 1 <= execute_steps <= policy.horizon:
            raise ConfigError(
                f"execute_steps must be between 1 and the policy's horizon {policy.horizon}, got {execute_steps}"
            )
        self._policy = policy
        self._supervisor = supervisor
        self._takeover = Takeover(supervisor, delay_frames)
        self._seed = seed
        self._execute_steps = execute_steps
        self._chunk_shape = (policy.horizon, action_dim)
        self._version = policy.version
        self._chunk: np.ndarray | None = None
        self._position = 0
        self._frame = 0

    @property
    def needs_images(self) -> bool:
        return self._chunk is None and self._takeover.control is not Control.SUPERVISOR

    def begin_tick(self, frame: int) -> FrameLabel:
        self._frame = frame
        intervention = self._takeover.begin_tick(frame) is Control.SUPERVISOR
        if intervention:
            self._chunk = None
        return FrameLabel(self._version, intervention, self._takeover.new_request)

    def act(self, observation: Observation) -> np.ndarray:
        if self._supervisor is not None and self._takeover.control is Control.SUPERVISOR:
            return _finite(self._supervisor.act(), "supervisor", self._frame)
        if self._chunk is None:
            self._chunk, self._position = self._infer(observation), 0
        action = self._chunk[self._position]
        self._position += 1
        if self._position == self._execute_steps:
            self._chunk = None
        return action

    def _infer(self, observation: Observation) -> np.ndarray:
        chunk = self._policy.infer(observation, inference_seed(self._seed, self._frame))
        if self._policy.version != self._version:
            raise RuntimeError(
                f"the policy changed from version {self._version} to {self._policy.version} at frame {self._frame} of an "
                "episode; swap between episodes only"
            )
        if chunk.shape != self._chunk_shape:
            raise ValueError(f"policy chunk must be [H, A] = {self._chunk_shape}, got {chunk.shape}")
        return _finite(chunk, f"policy version {self._version}", self._frame)


class Demonstrator(Protocol):
    """Who can show a task: a world's expert, or a supervisor in control from the start."""

    def reset(self) -> None: ...

    def act(self) -> np.ndarray: ...


class ExpertPilot:
    """An expert alone, from the first tick to the last: a demonstration. All its frames are interventions."""

    needs_images = False

    def __init__(self, expert: Demonstrator):
        self._expert = expert
        self._frame = 0

    def begin_tick(self, frame: int) -> FrameLabel:
        self._frame = frame
        return FrameLabel(NO_POLICY, intervention=True)

    def act(self, observation: Observation) -> np.ndarray:
        del observation  # An expert looks at the world itself.
        return _finite(self._expert.act(), "expert", self._frame)


def _finite(action: np.ndarray, who: str, frame: int) -> np.ndarray:
    if not np.isfinite(action).all():
        raise NonFiniteActionError(f"{who} gave a NaN or infinite action at frame {frame}")
    return action

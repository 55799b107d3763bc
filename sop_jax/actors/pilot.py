"""Who moves the robot through one episode: a policy that a supervisor may interrupt, or an expert alone.

Legend: `A` action dimensions.
"""

import dataclasses
from typing import Protocol

import numpy as np

from sop_jax.actors.chunk_player import ChunkPlayer, ChunkRequest, ChunkStats, require_finite
from sop_jax.actors.handover import Handover
from sop_jax.actors.takeover import Control, Takeover
from sop_jax.specs.interfaces import Supervisor
from sop_jax.specs.records import NO_POLICY, Observation


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
    pilot.end_tick(robot.apply(action))
    """

    @property
    def needs_images(self) -> bool: ...

    @property
    def chunk_stats(self) -> ChunkStats:
        """What became of the chunks so far; zeros without a policy."""
        ...

    def begin_tick(self, frame: int) -> FrameLabel: ...

    def request(self, observation: Observation) -> ChunkRequest | None:
        """What `act` will ask a policy on this tick, for whoever answers many robots at once; None if nothing."""
        ...

    def act(self, observation: Observation) -> np.ndarray: ...

    def end_tick(self, executed: np.ndarray) -> None:
        """Hears what the robot executed, float32 [A]."""
        ...

    def close(self) -> None:
        """Lets go of what runs beside the ticks. Blocks until it ended."""
        ...


class PolicyPilot:
    """A policy's chunks, which a supervisor may interrupt.

    What is left of a chunk, and an inference under way, are dropped at a takeover, so the first action of the policy after
    the handback comes from a fresh look. `handover` eases the command from one hand to the other (None: it doesn't).
    """

    def __init__(
        self,
        player: ChunkPlayer,
        supervisor: Supervisor | None,
        reaction_frames: int,
        handover: Handover | None = None,
    ):
        self._player = player
        self._supervisor = supervisor
        self._takeover = Takeover(supervisor, reaction_frames)
        self._handover = handover
        self._supervisor_acted = False
        self._frame = 0

    @property
    def needs_images(self) -> bool:
        return self._takeover.control is not Control.SUPERVISOR and self._player.needs_images

    @property
    def chunk_stats(self) -> ChunkStats:
        return self._player.stats

    def begin_tick(self, frame: int) -> FrameLabel:
        self._frame = frame
        intervention = self._takeover.begin_tick(frame) is Control.SUPERVISOR
        if not intervention:
            self._player.begin_tick(frame)
        if self._handover is not None and intervention != self._supervisor_acted:
            self._handover.begin()
        self._supervisor_acted = intervention
        return FrameLabel(self._player.version, intervention, self._takeover.new_request)

    def request(self, observation: Observation) -> ChunkRequest | None:
        return self._player.request(observation) if self.needs_images else None

    def act(self, observation: Observation) -> np.ndarray:
        if self._supervisor is not None and self._takeover.control is Control.SUPERVISOR:
            wish = require_finite(self._supervisor.act(), "supervisor", self._frame)
            return self._ease(wish, observation)
        action = self._player.act(observation)
        # Until its first chunk is there the policy holds what it was left: there is nothing to ease yet.
        return self._ease(action, observation) if self._player.has_acted else action

    def end_tick(self, executed: np.ndarray) -> None:
        if self._supervisor_acted:
            # What was executed, not the wish: a policy that is still without a chunk after the handback holds this.
            self._player.drop(executed)
        if self._handover is not None:
            self._handover.end_tick(executed)

    def close(self) -> None:
        self._player.close()

    def _ease(self, action: np.ndarray, observation: Observation) -> np.ndarray:
        return action if self._handover is None else self._handover.ease(action, observation.state)


class Demonstrator(Protocol):
    """Who can show a task: a world's expert, or a supervisor in control from the start."""

    def reset(self) -> None: ...

    def act(self) -> np.ndarray: ...


class ExpertPilot:
    """An expert alone, from the first tick to the last: a demonstration. All its frames are interventions."""

    needs_images = False
    chunk_stats = ChunkStats()

    def __init__(self, expert: Demonstrator):
        self._expert = expert
        self._frame = 0

    def begin_tick(self, frame: int) -> FrameLabel:
        self._frame = frame
        return FrameLabel(NO_POLICY, intervention=True)

    def request(self, observation: Observation) -> ChunkRequest | None:
        del observation

    def act(self, observation: Observation) -> np.ndarray:
        del observation  # An expert looks at the world itself.
        return require_finite(self._expert.act(), "expert", self._frame)

    def end_tick(self, executed: np.ndarray) -> None:
        del executed

    def close(self) -> None:
        pass

"""A scripted expert behind the interface of a person: a gate asks for control, an expert acts, a rule hands back."""

import dataclasses
from typing import Literal, Protocol

import numpy as np

from sop_jax.specs.errors import ConfigError
from sop_jax.specs.interfaces import Request


class Expert(Protocol):
    """Acts well from any state: `reset` at the start of a turn, then one action float32 [A] per control tick."""

    def reset(self) -> None: ...

    def act(self) -> np.ndarray: ...


class Gate(Protocol):
    """Watches the policy: `check` once per control tick gives "" or a short reason to take over."""

    def reset(self) -> None: ...

    def check(self) -> str: ...


class StagedWorld(Protocol):
    """The part of a world that the handback rule looks at: `stage` names the sub-goal that is being worked on."""

    @property
    def control_hz(self) -> float: ...

    def stage(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class SupervisorConfig:
    """When the expert gives control back.

    finish_episode: never; it brings the episode to its end.
    hand_back: once the world has moved on to another stage and the expert has acted for `min_control_s`, or after
        `max_control_s` at the latest.
    """

    handback: Literal["finish_episode", "hand_back"] = "finish_episode"
    min_control_s: float = 0.5
    max_control_s: float = 4.0

    def __post_init__(self) -> None:
        if self.handback not in ("finish_episode", "hand_back"):
            raise ConfigError(
                f"SupervisorConfig.handback must be 'finish_episode' or 'hand_back', got {self.handback!r}"
            )
        if not 0 <= self.min_control_s <= self.max_control_s:
            raise ConfigError(
                "SupervisorConfig needs 0 <= min_control_s <= max_control_s, got "
                f"{self.min_control_s} and {self.max_control_s}"
            )


class ScriptedSupervisor:
    """Implements `specs.interfaces.Supervisor` over a world's expert and gate."""

    def __init__(self, world: StagedWorld, expert: Expert, gate: Gate, config: SupervisorConfig | None = None):
        self._world = world
        self._expert = expert
        self._gate = gate
        self._config = config or SupervisorConfig()
        self._ticks_acted = 0
        self._stage_at_takeover = ""

    def reset(self) -> None:
        self._expert.reset()
        self._gate.reset()
        self._ticks_acted = 0

    def wants_control(self) -> Request | None:
        if self._ticks_acted:  # Control was just handed back: the gate judges the policy afresh.
            self._ticks_acted = 0
            self._gate.reset()
        reason = self._gate.check()
        return Request(reason) if reason else None

    def act(self) -> np.ndarray:
        if not self._ticks_acted:
            self._stage_at_takeover = self._world.stage()
            self._expert.reset()
        self._ticks_acted += 1
        return self._expert.act()

    def releases_control(self) -> bool:
        if self._config.handback == "finish_episode":
            return False
        acted_s = self._ticks_acted / self._world.control_hz
        if acted_s >= self._config.max_control_s:
            return True
        return acted_s >= self._config.min_control_s and self._world.stage() != self._stage_at_takeover

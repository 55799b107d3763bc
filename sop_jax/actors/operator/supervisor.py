"""A person as a supervisor: asks for control when they want it, steers, and hands back when they say so."""

from typing import Protocol

import numpy as np

from sop_jax.actors.operator.console import Console
from sop_jax.actors.operator.steering import Steering
from sop_jax.specs.interfaces import Request


class Gate(Protocol):
    """Watches the policy: `check` once per control tick gives "" or a short reason why the robot would like help."""

    def reset(self) -> None: ...

    def check(self) -> str: ...


class Pose(Protocol):
    """Knows where the robot was sent last, float32 [A]."""

    @property
    def pose(self) -> np.ndarray: ...


class OperatorSupervisor:
    """Implements `specs.interfaces.Supervisor` over a console.

    `gate` never takes over: what it says is shown to the people, and is the reason on record if one of them takes over while
    it asks. A person who lets go of everything, or whose link drops, holds the robot where it was sent last.
    """

    def __init__(self, console: Console, robot: Pose, steering: Steering, gate: Gate | None = None):
        self._console = console
        self._robot = robot
        self._steering = steering
        self._gate = gate
        self._is_acting = False
        self._asks = ""

    def reset(self) -> None:
        self._is_acting, self._asks = False, ""
        if self._gate is not None:
            self._gate.reset()

    def wants_control(self) -> Request | None:
        if self._gate is not None:
            if self._is_acting:  # Control was just handed back: the gate judges the policy afresh.
                self._gate.reset()
            # A gate may speak once only; its wish stands until a person has acted.
            self._asks = self._gate.check() or ("" if self._is_acting else self._asks)
        self._is_acting = False
        self._console.tell("policy", self._asks)
        return Request(self._asks or "operator") if self._console.operator_wanted else None

    def act(self) -> np.ndarray:
        if not self._is_acting:
            self._is_acting, self._asks = True, ""
            self._steering.begin(self._robot.pose)
            self._console.tell("operator")
        return self._steering.step(self._console.motion, self._robot.pose)

    def releases_control(self) -> bool:
        if self._console.operator_wanted:
            return False
        self._console.tell("policy")
        return True

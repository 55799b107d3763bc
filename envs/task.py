"""What the environment asks of a task, and what a task's expert and gate offer to whoever supervises a policy."""

from typing import Protocol

import mujoco
import numpy as np

from envs.g1.drive import G1Drive


class Task(Protocol):
    """One task in one world. The environment owns time, actions and images; the task owns the scene and its judgement.

    task.initialize(data, rng)               # at reset: everything that varies comes from `rng`
    task.after_step(data, executed, time_s)  # once per control tick, after the physics
    task.success(), task.failure_kind()
    """

    @property
    def name(self) -> str: ...

    @property
    def world(self) -> str: ...

    @property
    def model(self) -> mujoco.MjModel: ...

    @property
    def drive(self) -> G1Drive: ...

    @property
    def instruction(self) -> str:
        """What this episode asks for, and is judged by."""
        ...

    @property
    def instructions(self) -> tuple[str, ...]:
        """All that could be asked for in this episode's scene, the episode's own among it."""
        ...

    @property
    def time_limit_s(self) -> float: ...

    def initialize(self, data: mujoco.MjData, rng: np.random.Generator) -> None: ...

    def after_step(self, data: mujoco.MjData, executed: np.ndarray, time_s: float) -> None: ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """All stages, in the order in which they are passed."""
        ...

    def stage(self) -> str: ...

    def success(self) -> bool: ...

    def failure_kind(self) -> str: ...


class Expert(Protocol):
    """A scripted demonstrator with privileged state. It works from any state.

    expert.reset()
    action = expert.act()      # float32 [16], once per control tick
    """

    def reset(self) -> None: ...

    def act(self) -> np.ndarray: ...


class Gate(Protocol):
    """Stands in for a human who watches: privileged signals that say when the policy needs help.

    gate.reset()
    reason = gate.check()      # once per control tick while the policy acts; "" = all is well
    """

    def reset(self) -> None: ...

    def check(self) -> str: ...

"""Trials of one policy or expert on one robot, ready to be asked for by seed; nobody takes over, nothing is recorded."""

from typing import Protocol

from sop_jax.actors.episode import TrialResult, run_trial
from sop_jax.actors.pilot import Demonstrator
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import SopError
from sop_jax.specs.interfaces import ActionSource, Robot


class EvaluationFailedError(SopError):
    """The trials could not be run to their end."""


class TrialRunner(Protocol):
    """Runs trials one by one, each a pure function of the policy's weights and the seed."""

    def run(self, seed: int) -> TrialResult: ...

    def close(self) -> None: ...


class RobotTrials:
    """Trials on one robot, of a policy or (with `policy` None) of an expert. Satisfies TrialRunner."""

    def __init__(
        self,
        robot: Robot,
        policy: ActionSource | None,
        config: RolloutConfig,
        clock: Clock,
        expert: Demonstrator | None = None,
    ):
        self._robot = robot
        self._policy = policy
        self._config = config
        self._clock = clock
        self._expert = expert

    def run(self, seed: int) -> TrialResult:
        return run_trial(self._robot, self._policy, self._config, self._clock, seed, expert=self._expert)

    def close(self) -> None:
        self._robot.close()

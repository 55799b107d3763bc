"""A worker on the FakeRobot for the trial pool's tests: `python trial_worker.py [fail_at_seed]`."""

import os
import sys

from sop_jax.actors.episode import TrialResult
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.trial_pool import Identity, serve
from sop_jax.evaluation.trials import RobotTrials
from sop_jax.robots.fake import FakeRobot
from sop_jax.specs.clock import ManualClock


def noisy_policy_trials(noise: float = 0.4) -> RobotTrials:
    return RobotTrials(
        FakeRobot(), FakePolicy(act=reads_goal, noise=noise), RolloutConfig(execute_steps=4), ManualClock()
    )


class FailingTrials:
    def __init__(self, runner: RobotTrials, fail_at: int):
        self.runner, self.fail_at = runner, fail_at

    def run(self, seed: int) -> TrialResult:
        if seed == self.fail_at:
            sys.stderr.write("the gripper fell off\n")
            sys.stderr.flush()
            os._exit(7)
        return self.runner.run(seed)

    def close(self) -> None:
        self.runner.close()


if __name__ == "__main__":
    serve(
        FailingTrials(noisy_policy_trials(), int(sys.argv[1]) if len(sys.argv) > 1 else -1),
        Identity(3, "fingerprint", "fake/1"),
    )

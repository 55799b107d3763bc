"""A worker on the FakeRobot for the trial pool's tests: `python trial_worker.py [fail_at_seed] [side_by_side]`."""

import os
import sys

from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.evaluation.trial_pool import Identity, serve
from sop_jax.evaluation.trials import SideBySide, TrialJob, Workplace
from sop_jax.robots.fake import FakeRobot, FakeRobotConfig
from sop_jax.specs.clock import ManualClock

IDENTITY = Identity(3, "fingerprint", "digest", ("fake/1", "short/1"), ((), ()))


def make_workplace(world: int) -> Workplace:
    return Workplace(FakeRobot(FakeRobotConfig(time_limit_frames=(120, 20)[world])))


def noisy_policy_trials(side_by_side: int = 1) -> SideBySide:
    policy = FakePolicy(act=reads_goal, noise=0.02)
    return SideBySide(make_workplace, policy, RolloutConfig(execute_steps=4), ManualClock(), side_by_side)


class FailingTrials:
    """Dies at a seed; otherwise as the trials it is given."""

    def __init__(self, runner: SideBySide, fail_at: int):
        self.runner, self.fail_at = runner, fail_at

    @property
    def has_room(self):
        return self.runner.has_room

    @property
    def num_running(self):
        return self.runner.num_running

    def begin(self, job: TrialJob) -> None:
        if job.seed == self.fail_at:
            sys.stderr.write("the gripper fell off\n")
            sys.stderr.flush()
            os._exit(7)
        self.runner.begin(job)

    def advance(self):
        return self.runner.advance()

    def close(self) -> None:
        self.runner.close()


if __name__ == "__main__":
    fail_at, side_by_side = (*map(int, sys.argv[1:]), *(-1, 1)[len(sys.argv) - 1 :])
    serve(FailingTrials(noisy_policy_trials(side_by_side), fail_at), IDENTITY)

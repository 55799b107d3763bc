"""A robot that works until it is killed: prints the id of every episode that the spool has accepted.

python kill_victim.py SPOOL_DIRECTORY
"""

import sys

from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.robots.fake import FakeRobot
from sop_jax.specs.clock import WallClock
from sop_jax.specs.identifiers import make_episode_id


class NoStore:
    """A store that is always away."""

    def put_bytes(self, episode_id: str, data: bytes) -> object:
        raise ConnectionError(f"no route to the store for {episode_id}: {len(data)} bytes")


def main(directory: str) -> None:
    clock = WallClock()
    robot = FakeRobot(clock=clock)
    spool = Spool(directory, NoStore(), clock, config=SpoolConfig(0.01, 0.02))
    for count in range(10**6):
        header = EpisodeHeader(make_episode_id("victim", 1, count), seed=count)
        spool.accept(run_episode(robot, FakePolicy(reads_goal), None, header, RolloutConfig(), clock))
        sys.stdout.write(header.episode_id + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

"""The porter of many robots' episodes: nothing that a spool accepted is lost."""

import threading

import pytest

from fleet_sim.porter import Porter
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.clock import WallClock
from tests.actors.actor_parts import FlakyStore

ROBOTS = ("robot-0", "robot-1")
QUICK = SpoolConfig(first_retry_s=0.01, max_retry_s=0.02)


def open_porter(root, store):
    return Porter({name: Spool(root / name, store, WallClock(), config=QUICK, background=False) for name in ROBOTS})


def episode_of(robot, count):
    return make_episode(count, 30, image_size=8, robot_id=robot)


def hand_over(porter, robots, counts):
    for robot in robots:
        for count in counts:
            porter.door(robot).accept(episode_of(robot, count))


def wait_until(condition):
    waited = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("waited for 20 s in vain")


def test_the_end_drains_every_spool(tmp_path):
    store = FlakyStore(f"file://{tmp_path}/store/")
    porter = open_porter(tmp_path, store)
    hand_over(porter, ROBOTS, range(3))
    porter.close(drain_s=20.0)
    assert (porter.num_accepted, porter.num_pending, porter.num_given_up) == (6, 0, 0)
    assert [len(store.store.list_paths(robot)) for robot in ROBOTS] == [3, 3]


def test_a_store_that_is_away_keeps_nobody_waiting_and_the_next_porter_uploads(tmp_path):
    store = FlakyStore(f"file://{tmp_path}/store/")
    store.broken = OSError("the network is down")
    porter = open_porter(tmp_path, store)
    hand_over(porter, ROBOTS, range(2))
    wait_until(lambda: not any(map(porter.is_busy, ROBOTS)))  # durable, though not uploaded
    assert porter.num_accepted == 4
    porter.close(drain_s=0.1)
    assert porter.num_pending == 4
    assert [porter.num_kept_of(robot) for robot in ROBOTS] == [2, 2]
    store.broken = None
    again = open_porter(tmp_path, store)
    wait_until(lambda: not again.num_pending)  # by itself, though no robot hands over anything
    again.close(drain_s=20.0)
    assert [len(store.store.list_paths(robot)) for robot in ROBOTS] == [2, 2]


def test_a_robot_is_busy_until_its_episode_is_durable_and_hears_of_errors(tmp_path):
    class Slow:
        """A spool that waits until it is let."""

        def __init__(self, error=None):
            self.may, self.error, self.num_pending, self.num_given_up = threading.Event(), error, 0, 0

        def accept(self, episode):
            self.may.wait(20.0)
            if self.error is not None:
                raise self.error
            return True

        def drain(self, timeout_s):
            return True

        def close(self):
            pass

    spools = {"robot-0": Slow(), "robot-1": Slow(ValueError("a broken disk"))}
    porter = Porter(spools)  # type: ignore[arg-type]
    porter.door("robot-0").accept(episode_of("robot-0", 0))
    assert (porter.is_busy("robot-0"), porter.is_busy("robot-1")) == (True, False)
    spools["robot-0"].may.set()
    wait_until(lambda: not porter.is_busy("robot-0"))
    spools["robot-1"].may.set()
    porter.door("robot-1").accept(episode_of("robot-1", 0))
    with pytest.raises(ValueError, match="a broken disk"):
        wait_until(lambda: porter.is_busy("robot-1") and False)
    with pytest.raises(ValueError, match="a broken disk"):
        porter.close(1.0)

"""Who keeps the processes of a fleet on wall time together, over fakes that say what they are told to say."""

import contextlib
import dataclasses
import functools

import pytest

from fleet_sim.wall_processes import READY, WallFleetError, WallOrder
from fleet_sim.wall_watch import FleetWatch
from sop_jax.specs.clock import ManualClock


class FakeProcess:
    """Says these things, one per look; None is nothing yet, an exception a death."""

    def __init__(self, *says, was_killed=False):
        self._says = list(says)
        self.was_killed = was_killed
        self.orders, self.num_stops, self.is_over = [], 0, False

    def poll(self):
        said = self._says.pop(0) if self._says else None
        if isinstance(said, Exception):
            self._says.append(said)
            raise said
        return said

    def tell_order(self, order):
        self.orders.append(order)

    def stop(self):
        self.num_stops += 1
        self._says.append({"stopped": True})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_over = True


DEAD = WallFleetError("the crowd of the wall-clock fleet died")


def watch_over(stack, crowds, learner=None, should_stop=lambda: False):
    """`crowds`: for each crowd, its processes one after another."""
    learner = learner or FakeProcess(None, READY)
    starts = [functools.partial(next, iter(lives)) for lives in crowds]
    return FleetWatch(learner, starts, stack, ManualClock(0), should_stop)  # type: ignore[arg-type]


def test_everybody_begins_together_once_all_are_ready():
    learner = FakeProcess(None, None, READY)
    crowds = [FakeProcess(None, READY, None, {"n": 1}), FakeProcess(READY, {"n": 2})]
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [[crowd] for crowd in crowds], learner)
        order = watch.begin(7.0)
        assert [process.orders for process in (learner, *crowds)] == [[order]] * 3
        assert order.duration_s == 7.0
        assert watch.wait_for_crowds(order) == [{"n": 1}, {"n": 2}]
    assert (watch.lasted_s, watch.num_restarts) == (7.0, 0)
    assert all(crowd.is_over for crowd in crowds)


def test_a_killed_crowd_is_started_again_and_told_the_same():
    killed = FakeProcess(READY, None, DEAD, was_killed=True)
    again = FakeProcess(None, READY, {"n": 3})
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [[killed, again]])
        order = watch.begin(7.0)
        assert watch.wait_for_crowds(order) == [{"n": 3}]
    assert again.orders == [order]
    assert watch.num_restarts == 1


@pytest.mark.parametrize(("was_killed", "num_started"), [(False, 1), (True, 4)])
def test_one_that_dies_of_itself_or_too_often_ends_the_fleet(was_killed, num_started):
    lives = [FakeProcess(READY, DEAD, was_killed=was_killed) for _ in range(9)]
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [lives])
        order = watch.begin(7.0)
        with pytest.raises(WallFleetError, match="the crowd of the wall-clock fleet died"):
            watch.wait_for_crowds(order)
    assert sum(life.is_over for life in lives) == num_started


def test_told_to_stop_it_tells_everybody_once_and_waits_for_what_they_say():
    learner, crowd = FakeProcess(READY), FakeProcess(READY)
    looks = iter([False, False, True, True, True])
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [[crowd]], learner, lambda: next(looks))
        order = watch.begin(100.0)
        assert watch.wait_for_crowds(order) == [{"stopped": True}]
        assert watch.wait_for_learner() == {"stopped": True}
    assert (learner.num_stops, crowd.num_stops) == (1, 1)
    assert watch.lasted_s < 1.0


def test_a_crowd_that_starts_again_is_told_to_stop_once_it_can_hear():
    killed = FakeProcess(READY, DEAD, was_killed=True)
    again = FakeProcess(None, None, None, READY)
    looks = iter([False, False])
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [[killed, again]], should_stop=lambda: next(looks, True))
        order = watch.begin(100.0)
        stops = []
        again.tell_order = lambda order: stops.append(again.num_stops) or again.orders.append(order)
        assert watch.wait_for_crowds(order) == [{"stopped": True}]
    assert stops == [0]
    assert (again.num_stops, again.orders, watch.num_restarts) == (1, [order], 1)


def test_told_to_stop_before_the_beginning():
    with contextlib.ExitStack() as stack:
        watch = watch_over(stack, [[FakeProcess(None)]], should_stop=lambda: True)
        with pytest.raises(WallFleetError, match="stopped before it began"):
            watch.begin(7.0)


def test_an_order_ends_when_it_says():
    order = WallOrder(2_000_000_000, 1.5)
    assert order.end_ns == 3_500_000_000
    assert WallOrder(**dataclasses.asdict(order)) == order

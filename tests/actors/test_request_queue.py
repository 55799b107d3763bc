"""Which requests go out together, and when. A ManualClock stands for time; the taker looks every millisecond."""

import threading

import pytest

from sop_jax.actors.request_queue import PolicyClosedError, Request, RequestQueue
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import InferenceTimeoutError

MS = 1_000_000


class Setup:
    def __init__(self, expected=None):
        self.clock = ManualClock()
        self.expected = expected or {}
        self.queue = RequestQueue(self.clock, 3, 5 * MS, lambda version: self.expected.get(version, 9))

    def put(self, version=0, deadline_ms=1000):
        now_ns = self.clock.now_ns()
        request = Request(version, {}, None, 0, None, None, now_ns, now_ns + deadline_ms * MS)
        self.queue.put(request)
        return request

    def take(self):
        """What a taker gets now; None if it would wait."""
        with self.queue._changed:
            self.queue._forget_lost()
            if not self.queue._find_ready():
                return None
        return self.queue.take()


def test_a_batch_goes_out_when_it_is_full():
    setup = Setup()
    first, second = setup.put(), setup.put()
    assert setup.take() is None
    third, fourth = setup.put(), setup.put()
    assert setup.take() == [first, second, third]
    assert setup.take() is None  # One is left, and waits for others.
    setup.clock.advance_s(0.005)
    assert setup.take() == [fourth]


def test_nobody_waits_for_robots_that_cannot_ask():
    setup = Setup({0: 2, 1: 0})
    first = setup.put()
    assert setup.take() is None
    second = setup.put()
    assert setup.take() == [first, second]
    alone = setup.put(version=1)  # Asks outside an episode, to try out.
    assert setup.take() == [alone]


def test_a_batch_has_one_version_and_a_waiting_one_holds_up_no_full_one():
    setup = Setup({0: 9, 1: 2})
    old = setup.put(0)
    new = [setup.put(1), setup.put(1)]
    assert setup.take() == new
    setup.clock.advance_s(0.005)
    late = setup.put(1)
    assert setup.take() == [old]
    setup.clock.advance_s(0.005)
    assert setup.take() == [late]


def test_lost_requests_take_no_place():
    setup = Setup({0: 2})
    expired, cancelled = setup.put(deadline_ms=2), setup.put()
    cancelled.future.cancel()
    setup.clock.advance_s(0.003)
    assert setup.take() is None
    with pytest.raises(InferenceTimeoutError, match=r"after 0\.003 s.*deadline_s"):
        expired.future.result(0)
    kept = [setup.put(), setup.put()]
    assert setup.take() == kept


def test_the_taker_sleeps_until_something_is_there():
    setup = Setup({0: 1})
    taken = []
    taker = threading.Thread(target=lambda: taken.append(setup.queue.take()))
    taker.start()
    request = setup.put()
    taker.join(10)
    assert taken == [[request]]


def test_closing_fails_what_waits_and_frees_the_taker():
    setup = Setup()
    request, taken = setup.put(), []
    taker = threading.Thread(target=lambda: taken.append(setup.queue.take()))
    taker.start()
    setup.queue.close()
    taker.join(10)
    assert taken == [None]
    with pytest.raises(PolicyClosedError, match="while the request waited"):
        request.future.result(0)
    with pytest.raises(PolicyClosedError, match="make a new one"):
        setup.put()

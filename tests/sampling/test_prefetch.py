import threading
import time

import pytest

from sop_jax.sampling.batch_source import BatchSourceStoppedError
from sop_jax.sampling.prefetch import Prefetcher


def wait_until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 5 s"
        time.sleep(0.001)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_results_come_in_order_from_the_first_index(depth):
    source = Prefetcher(lambda index, _: index * index, depth, first=2)
    assert [source.next() for _ in range(4)] == [4, 9, 16, 25]
    source.stop()


def test_no_more_than_depth_results_are_made_ahead():
    made = []
    source = Prefetcher(lambda index, _: made.append(index), 2)
    wait_until(lambda: len(made) == 2)
    time.sleep(0.02)
    assert made == [0, 1]
    source.next()
    wait_until(lambda: len(made) == 3)
    source.stop()


@pytest.mark.parametrize("depth", [0, 2])
def test_errors_are_raised_after_the_results_before_them_and_again(depth):
    def make(index, _):
        if index == 1:
            raise OSError("disk on fire")
        return index

    source = Prefetcher(make, depth)
    assert source.next() == 0
    for _ in range(2):
        with pytest.raises(OSError, match="disk on fire"):
            source.next()
    source.stop()


@pytest.mark.parametrize("depth", [0, 2])
def test_a_passing_error_is_raised_once_and_its_result_made_after_all(depth):
    made, broken = [], iter([False, True, True])

    def make(index, _):
        made.append(index)
        if next(broken, False):
            raise OSError("away")
        return index

    source = Prefetcher(make, depth, passing=OSError)
    assert source.next() == 0
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            source.next()
    assert [source.next(), source.next()] == [1, 2]
    assert made[:4] == [0, 1, 1, 1]
    source.stop()


def test_stop_ends_a_thread_whose_passing_error_nobody_took():
    def make(index, _):
        raise OSError("away")

    before, called = threading.active_count(), threading.Event()
    source = Prefetcher(lambda index, stop: called.set() or make(index, stop), 1, passing=OSError)
    assert called.wait(5)
    source.stop()
    assert threading.active_count() == before


def test_stop_ends_the_thread_even_while_it_waits_inside_make():
    def make(index, should_stop):
        while not should_stop():
            time.sleep(0.001)
        raise BatchSourceStoppedError("stopped")

    before = threading.active_count()
    source = Prefetcher(make, 1)
    source.stop()
    source.stop()
    assert threading.active_count() == before
    with pytest.raises(BatchSourceStoppedError):
        source.next()


def test_stop_wakes_a_waiting_consumer():
    release = threading.Event()
    source = Prefetcher(lambda index, _: release.wait(5), 1)
    caught = []

    def consume():
        try:
            source.next()
        except BatchSourceStoppedError as error:
            caught.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    stopper = threading.Thread(target=source.stop)
    stopper.start()
    consumer.join(5)
    assert len(caught) == 1
    release.set()
    stopper.join(5)

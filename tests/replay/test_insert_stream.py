"""Inserts of several threads over one open stream, against a server that a test plays."""

import concurrent.futures
import contextlib
import queue
import threading
import time

import grpc
import pytest

from sop_jax.replay.insert_stream import InsertGroup, OverdueError, Request, StreamEndedError


class Broken(grpc.RpcError):
    """The stream broke."""


class Stream:
    """One stream of a `Server`: hands over what comes, answers with what the server was told to."""

    def __init__(self, server, requests):
        self.server, self.cancelled = server, threading.Event()
        self.answers = queue.SimpleQueue()
        threading.Thread(target=self._take, args=(requests,), daemon=True).start()

    def _take(self, requests):
        for request in requests:
            self.server.received.put((self, request))

    def cancel(self):
        self.cancelled.set()
        self.answers.put(Broken("cancelled"))

    def __iter__(self):
        while True:
            answer = self.answers.get()
            if answer is None:
                return
            if isinstance(answer, Exception):
                raise answer
            yield answer


class Answer:
    def __init__(self, num):
        self.keys = range(num)


class Server:
    """Opens streams; `received` holds (stream, request) in the order of their coming."""

    def __init__(self):
        self.streams = []
        self.received = queue.Queue()

    def __call__(self, requests):
        self.streams.append(Stream(self, requests))
        return self.streams[-1]

    def take(self, num_bytes):
        """So many bytes of requests; confirms none of them."""
        taken = b""
        while len(taken) < num_bytes:
            stream, request = self.received.get(timeout=10)
            taken += request
        return stream, taken


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool


def letters(text):
    """A message per letter, one item each."""
    return lambda: (Request(letter.encode(), 1) for letter in text)


def wait_until(condition):
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_one_stream_serves_one_insert_after_the_other(server, threads):
    group = InsertGroup(server)
    for text in ("ab", "c"):
        done = threads.submit(group.insert, letters(text), 10.0)
        stream, taken = server.take(len(text))
        assert taken == text.encode()
        assert not done.done()
        stream.answers.put(Answer(len(text)))
        assert done.result(10) is None
    assert len(server.streams) == 1
    group.close()
    assert server.streams[0].cancelled.is_set()


def test_confirmations_may_come_in_parts(server, threads):
    done = threads.submit(InsertGroup(server).insert, letters("abc"), 10.0)
    stream, _ = server.take(3)
    stream.answers.put(Answer(2))
    with pytest.raises(concurrent.futures.TimeoutError):
        done.result(0.05)
    stream.answers.put(Answer(1))
    done.result(10)


def test_who_comes_meanwhile_goes_together(server, threads):
    group = InsertGroup(server)
    first = threads.submit(group.insert, letters("a"), 10.0)
    stream, _ = server.take(1)
    others = [threads.submit(group.insert, letters(letter), 10.0) for letter in "bcd"]
    wait_until(lambda: len(group._pending) == 3)
    assert server.received.empty()
    stream.answers.put(Answer(1))
    first.result(10)
    _, together = server.received.get(timeout=10)
    assert sorted(together.decode()) == ["b", "c", "d"]
    assert not any(other.done() for other in others)
    stream.answers.put(Answer(3))
    for other in others:
        other.result(10)
    assert not group._is_led
    assert len(server.streams) == 1


def test_messages_stay_within_their_bounds(server, threads):
    def many():
        return (Request(b"x" * 400_000, 30) for _ in range(4))

    done = threads.submit(InsertGroup(server).insert, many, 10.0)
    sizes = [len(server.received.get(timeout=10)[1]) for _ in range(2)]
    assert sizes == [800_000, 800_000]  # two make 60 of 64 items and 0.8 of 1.05 MB
    server.streams[0].answers.put(Answer(120))
    done.result(10)


def test_a_stream_that_breaks_is_told_to_all_and_replaced(server, threads):
    group = InsertGroup(server)
    first = threads.submit(group.insert, letters("a"), 10.0)
    stream, _ = server.take(1)
    others = [threads.submit(group.insert, letters(letter), 10.0) for letter in "bc"]
    wait_until(lambda: len(group._pending) == 2)
    stream.answers.put(Broken("gone"))
    with pytest.raises(Broken, match="gone"):
        first.result(10)
    stream, _ = server.take(2)  # the others hadn't sent anything yet: they go over a new stream
    assert stream is server.streams[1]
    stream.answers.put(None)
    for other in others:
        with pytest.raises(StreamEndedError, match="2 items were not confirmed"):
            other.result(10)
    assert server.streams[0].cancelled.is_set()


def test_who_leads_with_little_time_costs_the_others_a_repetition_only(server, threads):
    group = InsertGroup(server)
    first = threads.submit(group.insert, letters("a"), 10.0)
    stream, _ = server.take(1)
    hasty = threads.submit(group.insert, letters("b"), 0.4)
    wait_until(lambda: len(group._pending) == 1)
    patient = threads.submit(group.insert, letters("c"), 10.0)
    wait_until(lambda: len(group._pending) == 2)
    stream.answers.put(Answer(1))
    first.result(10)
    assert server.take(2)[1] == b"bc"
    with pytest.raises(OverdueError):
        hasty.result(10)
    again, taken = server.take(1)
    assert (taken, again) == (b"c", server.streams[1])
    again.answers.put(Answer(1))
    patient.result(10)


def test_who_waits_too_long_behind_others_leaves(server, threads):
    group = InsertGroup(server)
    first = threads.submit(group.insert, letters("a"), 10.0)
    stream, _ = server.take(1)
    with pytest.raises(OverdueError, match="others' items were in the way"):
        group.insert(letters("b"), 0.05)
    stream.answers.put(Answer(1))
    first.result(10)
    with contextlib.suppress(queue.Empty):
        assert not server.received.get(timeout=0.1)  # nobody sends what was given up
    done = threads.submit(group.insert, letters("c"), 10.0)
    server.take(1)
    stream.answers.put(Answer(1))
    done.result(10)


def test_a_stream_that_rested_is_not_trusted(server, threads, monkeypatch):
    group = InsertGroup(server)
    for number in range(2):
        done = threads.submit(group.insert, letters("a"), 10.0)
        stream, _ = server.take(1)
        assert stream is server.streams[number]
        stream.answers.put(Answer(1))
        done.result(10)
        monkeypatch.setattr("sop_jax.replay.insert_stream._MAX_IDLE_S", 0.0)

"""Readers and writers of ROS 2 topics over DDS (Cyclone DDS), and nothing of what the topics mean."""

import collections
import threading
import time
from typing import Any, Generic, TypeVar

from cyclonedds.core import DDSException
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.internal import InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from sop_jax.robots.g1.config import Ros2Config
from sop_jax.robots.g1.ros2_messages import Time, dds_topic

M = TypeVar("M")
LOOPBACK = "lo"
_BLOCKING_NS = 10**8  # a writer waits so long at most for a reader that doesn't keep up
_SETTINGS = (
    '<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface name="{}"/></Interfaces>{}</Domain>'
    "</CycloneDDS>"
)
_AMONG_OTHERS = "</General>"
_HERE_ALONE = (
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<Peers><Peer address="127.0.0.1"/></Peers></Discovery>'
)
_domains: dict[int, tuple[str, Domain]] = {}  # a process can set up each domain once


class Ros2Node:
    """This process among the robot's: makes readers and writers."""

    def __init__(self, config: Ros2Config):
        """Raises ValueError if this process is in that domain already, on another interface."""
        if config.interface:
            _enter(config.domain_id, config.interface)
        self._participant = DomainParticipant(config.domain_id)
        self._reliability = (
            Policy.Reliability.BestEffort if config.best_effort else Policy.Reliability.Reliable(_BLOCKING_NS)
        )

    def reader(self, topic: str, message_type: type[M], keep: int) -> "TopicReader[M]":
        """Of the newest `keep` messages."""
        qos = Qos(self._reliability, Policy.History.KeepLast(keep))
        return TopicReader(DataReader(self._participant, self._topic(topic, message_type), qos=qos), keep)

    def writer(self, topic: str, message_type: type[M]) -> "TopicWriter[M]":
        """Who comes later sees nothing old: a command is for now."""
        qos = Qos(Policy.Reliability.Reliable(_BLOCKING_NS), Policy.History.KeepLast(1))
        return TopicWriter(DataWriter(self._participant, self._topic(topic, message_type), qos=qos))

    def _topic(self, topic: str, message_type: type[Any]) -> Topic[Any]:
        return Topic(self._participant, dds_topic(topic), message_type)


class TopicReader(Generic[M]):
    """The newest messages of one topic, each with its stamp: that of its header, or of its sender's clock without one.

    Threads may share it. Nothing waits: `refresh` takes what has arrived.
    """

    def __init__(self, reader: DataReader[Any], keep: int):
        self._reader = reader
        self._keep = keep
        self._kept: collections.deque[tuple[int, M]] = collections.deque(maxlen=keep)
        self._lock = threading.Lock()
        self._heard_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """How long ago the newest message was taken, by this computer's clock; since the beginning before the first."""
        return time.monotonic() - self._heard_s

    def refresh(self) -> None:
        """Takes what has come since."""
        with self._lock:
            for message in self._reader.take(self._keep):
                if not isinstance(message, InvalidSample):
                    stamp: Time = message.header.stamp
                    self._kept.append((stamp.ns or message.sample_info.source_timestamp, message))
                    self._heard_s = time.monotonic()

    def find(self, at_ns: int | None = None) -> tuple[M, int] | None:
        """The newest message, or the one nearest to a time, and its stamp; None before the first."""
        with self._lock:
            kept = list(self._kept)
        if not kept:
            return None
        if at_ns is None:
            stamp_ns, message = kept[-1]
        else:
            stamp_ns, message = min(reversed(kept), key=lambda entry: abs(entry[0] - at_ns))
        return message, stamp_ns


class TopicWriter(Generic[M]):
    """Sends on one topic."""

    def __init__(self, writer: DataWriter[Any]):
        self._writer = writer

    @property
    def has_readers(self) -> bool:
        """Whether anybody listens."""
        return bool(self._writer.get_matched_subscriptions())

    def write(self, message: M) -> None:
        self._writer.write(message)


def _enter(domain_id: int, interface: str) -> None:
    if domain_id in _domains:
        known, _ = _domains[domain_id]
        if known != interface:
            raise ValueError(
                f"this process is in DDS domain {domain_id} on interface {known!r} already, not on {interface!r}"
            )
        return
    settings = _SETTINGS.format(interface, _HERE_ALONE if interface == LOOPBACK else _AMONG_OTHERS)
    try:
        _domains[domain_id] = (interface, Domain(domain_id, settings))
    except DDSException as error:
        raise ValueError(
            f"DDS domain {domain_id} can't be entered on network interface {interface!r}: {error}"
        ) from error

"""Brings the finished episodes of many robots into their spools, and from there to the store, on one thread."""

import queue
import threading
import time
from collections.abc import Mapping
from typing import final

from sop_jax.actors.spool import Spool
from sop_jax.specs.records import Episode

_LOOK_S = 0.5


@final
class Porter:
    """So that robots that share a thread don't stand still while one's episode is written to the disk.

        porter = Porter({"robot-0": Spool(..., background=False), ...})
        Actor(config, robot, policy, porter.door("robot-0"), clock)
        porter.is_busy("robot-0")       # its last episode is not durable yet: it may not begin the next one
        porter.close(drain_s=20.0)

    Owns the spools. An error of a spool is raised by the next `is_busy`, or by `close`.
    """

    def __init__(self, spools: Mapping[str, Spool]):
        self._spools = dict(spools)
        self._queue: queue.SimpleQueue[tuple[str, Episode] | None] = queue.SimpleQueue()
        self._carried = dict.fromkeys(self._spools, 0)
        self._handed = dict.fromkeys(self._spools, 0)
        self._num_accepted = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="porter", daemon=True)
        self._thread.start()

    @property
    def num_accepted(self) -> int:
        """Episodes that a spool said yes to."""
        return self._num_accepted

    @property
    def num_given_up(self) -> int:
        return sum(spool.num_given_up for spool in self._spools.values())

    @property
    def num_pending(self) -> int:
        """Episodes in the spools that the store has not acknowledged."""
        return sum(spool.num_pending for spool in self._spools.values())

    def door(self, robot_id: str) -> "Door":
        return Door(self, robot_id)

    def hand_over(self, robot_id: str, episode: Episode) -> None:
        self._handed[robot_id] += 1
        self._queue.put((robot_id, episode))

    def num_given_up_of(self, robot_id: str) -> int:
        return self._spools[robot_id].num_given_up

    def num_kept_of(self, robot_id: str) -> int:
        """Episodes of this robot that its spool waits to upload, or has given up."""
        return self._spools[robot_id].num_pending + self._spools[robot_id].num_given_up

    def is_busy(self, robot_id: str) -> bool:
        if self._error is not None:
            raise self._error
        return self._carried[robot_id] < self._handed[robot_id]

    def close(self, drain_s: float) -> None:
        """Blocks until all is accepted, and in the store or `drain_s` over; what then waits, the next Spool takes up."""
        self._queue.put(None)
        self._thread.join()
        if self._error is None:
            deadline = time.monotonic() + drain_s
            for spool in self._spools.values():
                spool.drain(max(0.0, deadline - time.monotonic()))
        for spool in self._spools.values():
            spool.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (job := self._take()) is not None:
                if job:
                    robot_id, episode = job
                    self._num_accepted += self._spools[robot_id].accept(episode)
                    self._carried[robot_id] += 1
                for spool in self._spools.values():
                    if spool.num_pending and self._queue.empty():  # first of all make durable what waits
                        spool.upload_due()
        except BaseException as error:
            self._error = error

    def _take(self) -> tuple[str, Episode] | tuple[()] | None:
        try:
            return self._queue.get(timeout=_LOOK_S)
        except queue.Empty:
            return ()


@final
class Door:
    """Implements `EpisodeAcceptor` for one robot of a porter; returns at once."""

    def __init__(self, porter: Porter, robot_id: str):
        self._porter, self._robot_id = porter, robot_id

    @property
    def num_given_up(self) -> int:
        return self._porter.num_given_up_of(self._robot_id)

    def accept(self, episode: Episode) -> None:
        self._porter.hand_over(self._robot_id, episode)

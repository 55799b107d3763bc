"""When a learner that waits for online data begins: one rule for the real one and for the simulated fleet's."""

from collections.abc import Mapping, Sequence
from typing import final

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.specs.clock import Clock
from sop_jax.specs.identifiers import online_table
from sop_jax.specs.interfaces import TableInfo

MAX_WAIT_S = 1800.0
"""Longer than a fleet with people beside it takes to its first correction. One without may never have any, and a learner that
waited for them would be stuck: it begins with the offline data, as it goes on with them when a fleet stops."""


@final
class Beginning:
    """Whether a learner may begin. Belongs to one thread.

        beginning = Beginning(algorithm, tasks, min_online_items, clock)
        while not beginning.has_come(tables.info()):
            clock.sleep_s(0.5)

    It comes when one of the tasks has `num_items` online; the others may never need a correction, and until they do their
    offline tables serve. As soon as there are tables if the algorithm learns nothing from online data, or `num_items` is 0;
    after `MAX_WAIT_S` of asking in any case. Once it has come it stays: what leaves the tables later stops nobody.
    """

    def __init__(self, algorithm: Algorithm, tasks: Sequence[str], num_items: int, clock: Clock):
        self._tables = tuple(online_table(task) for task in tasks)
        self._num_items = num_items if algorithm.teaches_online else 0
        self._clock = clock
        self._since_ns: int | None = None
        self._has_come = False

    @property
    def num_items(self) -> int:
        """The online items that it waits for, of any task; 0 = it doesn't wait."""
        return self._num_items

    def has_come(self, tables: Mapping[str, TableInfo]) -> bool:
        """Asked again and again with what the tables hold; nothing, if the server doesn't answer."""
        if not self._has_come:
            now_ns = self._clock.now_ns()
            self._since_ns = now_ns if self._since_ns is None else self._since_ns
            self._has_come = self._largest(tables) >= self._num_items or now_ns - self._since_ns >= MAX_WAIT_S * 1e9
        return self._has_come

    def num_missing(self, tables: Mapping[str, TableInfo]) -> int:
        """How many online items have to come before it begins, at least 1; of the task that lacks fewest."""
        return max(1, self._num_items - max(0, self._largest(tables)))

    def _largest(self, tables: Mapping[str, TableInfo]) -> int:
        """Items in the fullest online table; -1 without any table."""
        return max((tables[name].size for name in self._tables if name in tables), default=-1)

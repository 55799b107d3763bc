"""A cache bounded in bytes that forgets what was used longest ago."""

import collections
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """Keys to values of known size. Not thread-safe. Holds nothing at `max_bytes` 0, and never a value larger than it."""

    def __init__(self, max_bytes: int):
        if max_bytes < 0:
            raise ValueError(f"a cache's max_bytes must be >= 0, got {max_bytes}")
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.num_hits = 0
        self.num_misses = 0
        self._held: collections.OrderedDict[K, tuple[V, int]] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        held = self._held.get(key)
        if held is None:
            self.num_misses += 1
            return None
        self._held.move_to_end(key)
        self.num_hits += 1
        return held[0]

    def put(self, key: K, value: V, num_bytes: int) -> None:
        self.drop(key)
        if num_bytes > self.max_bytes:
            return
        self._held[key] = (value, num_bytes)
        self.num_bytes += num_bytes
        while self.num_bytes > self.max_bytes:
            _, (_, oldest_bytes) = self._held.popitem(last=False)
            self.num_bytes -= oldest_bytes

    def drop(self, key: K) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self.num_bytes -= held[1]

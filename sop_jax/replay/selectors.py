"""How an in-process table picks an item: uniformly, oldest first, or by priority. All steps are O(1) or O(log n)."""

import random
from collections import OrderedDict
from typing import Protocol

from sop_jax.replay.tables import Sampler


class Selector(Protocol):
    """A set of keys with priorities, one of which can be picked. Not thread-safe: its table holds the lock."""

    def insert(self, key: int, priority: float) -> None: ...

    def update(self, key: int, priority: float) -> None: ...

    def delete(self, key: int) -> None: ...

    def pick(self) -> tuple[int, float]:
        """A key and the probability it had. The selector must not be empty."""
        ...


class FifoSelector:
    """Always the key inserted longest ago."""

    def __init__(self) -> None:
        self._keys: OrderedDict[int, None] = OrderedDict()

    def insert(self, key: int, priority: float) -> None:
        del priority
        self._keys[key] = None

    def update(self, key: int, priority: float) -> None:
        del key, priority

    def delete(self, key: int) -> None:
        del self._keys[key]

    def pick(self) -> tuple[int, float]:
        return next(iter(self._keys)), 1.0


class UniformSelector:
    """Every key equally likely."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._keys: list[int] = []
        self._slots: dict[int, int] = {}

    def insert(self, key: int, priority: float) -> None:
        del priority
        self._slots[key] = len(self._keys)
        self._keys.append(key)

    def update(self, key: int, priority: float) -> None:
        del key, priority

    def delete(self, key: int) -> None:
        slot = self._slots.pop(key)
        last = self._keys.pop()
        if last != key:
            self._keys[slot] = last
            self._slots[last] = slot

    def pick(self) -> tuple[int, float]:
        return self._keys[self._rng.randrange(len(self._keys))], 1.0 / len(self._keys)


class PrioritizedSelector:
    """Probability proportional to priority ** exponent (a binary tree of sums); uniform while all priorities are 0."""

    def __init__(self, rng: random.Random, exponent: float):
        self._rng = rng
        self._exponent = exponent
        self._keys: list[int] = []
        self._slots: dict[int, int] = {}
        self._capacity = 1
        self._sums = [0.0, 0.0]  # node i has children 2i and 2i + 1; leaf of slot s is capacity + s; node 1 is the root

    def insert(self, key: int, priority: float) -> None:
        slot = len(self._keys)
        if slot == self._capacity:
            self._grow()
        self._keys.append(key)
        self._slots[key] = slot
        self._set(slot, self._weight(priority))

    def update(self, key: int, priority: float) -> None:
        self._set(self._slots[key], self._weight(priority))

    def delete(self, key: int) -> None:
        slot = self._slots.pop(key)
        last_slot = len(self._keys) - 1
        last = self._keys.pop()
        if last != key:
            self._keys[slot] = last
            self._slots[last] = slot
            self._set(slot, self._sums[self._capacity + last_slot])
        self._set(last_slot, 0.0)

    def pick(self) -> tuple[int, float]:
        total = self._sums[1]
        if total <= 0.0:
            return self._keys[self._rng.randrange(len(self._keys))], 1.0 / len(self._keys)
        target = self._rng.random() * total
        node = 1
        while node < self._capacity:
            node *= 2
            left = self._sums[node]
            if target >= left and self._sums[node + 1] > 0.0:
                target -= left
                node += 1
        return self._keys[node - self._capacity], self._sums[node] / total

    def _weight(self, priority: float) -> float:
        return float(priority) ** self._exponent if priority > 0.0 else 0.0

    def _set(self, slot: int, weight: float) -> None:
        node = self._capacity + slot
        self._sums[node] = weight
        node //= 2
        while node:  # sums are made anew, never nudged, so that no rounding error stays behind
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]
            node //= 2

    def _grow(self) -> None:
        leaves = self._sums[self._capacity :]
        self._capacity *= 2
        self._sums = [0.0] * self._capacity + leaves + [0.0] * (self._capacity - len(leaves))
        for node in range(self._capacity - 1, 0, -1):
            self._sums[node] = self._sums[2 * node] + self._sums[2 * node + 1]


def make_selector(sampler: Sampler, rng: random.Random, exponent: float) -> Selector:
    if sampler is Sampler.FIFO:
        return FifoSelector()
    if sampler is Sampler.UNIFORM:
        return UniformSelector(rng)
    return PrioritizedSelector(rng, exponent)

"""Replay tables inside one process, with the semantics of a Reverb server: seeded, deterministic, no service."""

import dataclasses
import random
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from sop_jax.replay.items import check_item
from sop_jax.replay.selectors import FifoSelector, make_selector
from sop_jax.replay.table_names import table_not_found
from sop_jax.replay.tables import TableConfig, index_by_name
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.errors import RateLimitedError
from sop_jax.specs.interfaces import Item, SampledItem, TableInfo

_POLL_S = 0.005
"""How long a held-back call sleeps, by the clock, before it looks again: works on wall and on simulated time alike."""


@dataclasses.dataclass
class _Held:
    """An item in a table."""

    columns: Mapping[str, np.ndarray]
    times_sampled: int = 0


class _Table:
    """One table. Not thread-safe: `LocalTables` holds the lock."""

    def __init__(self, config: TableConfig, seed: int):
        self.config = config
        self._rng = random.Random(f"{seed}/{config.name}")
        self.clear()

    def clear(self) -> None:
        """Drops all items and all counts; the random stream goes on."""
        self._held: dict[int, _Held] = {}
        self._sampler = make_selector(self.config.sampler, self._rng, self.config.priority_exponent)
        self._remover = FifoSelector()
        self.num_inserted = self.num_sampled = self._num_deleted = 0

    def __len__(self) -> int:
        return len(self._held)

    def may_insert(self) -> bool:
        return self.config.rate_limiter.may_insert(self.num_inserted, self.num_sampled, self._num_deleted)

    def may_sample(self) -> bool:
        return self.config.rate_limiter.may_sample(self.num_inserted, self.num_sampled, self._num_deleted)

    def insert(self, item: Item, columns: Mapping[str, np.ndarray]) -> None:
        if item.key in self._held:
            self._sampler.update(item.key, item.priority)
            return
        self._held[item.key] = _Held(columns)
        self._sampler.insert(item.key, item.priority)
        self._remover.insert(item.key, item.priority)
        if len(self._held) > self.config.max_size:
            self.delete(self._remover.pick()[0])
        self.num_inserted += 1

    def sample(self) -> SampledItem:
        self.num_sampled += 1
        key, probability = self._sampler.pick()
        held = self._held[key]
        held.times_sampled += 1
        sampled = SampledItem(key, held.columns, probability, len(self._held), held.times_sampled)
        if held.times_sampled == self.config.max_times_sampled:
            self.delete(key)
        return sampled

    def update(self, key: int, priority: float) -> None:
        if key in self._held:
            self._sampler.update(key, priority)

    def delete(self, key: int) -> None:
        if self._held.pop(key, None) is not None:
            self._sampler.delete(key)
            self._remover.delete(key)
            self._num_deleted += 1


class LocalTables:
    """`ReplayTables` in this process: the same samplers, first-in-first-out remover and limiter as the Reverb server.

    What is sampled depends only on the seed and on the order of the calls. Columns are copied on insert and handed out
    read-only. A held-back call sleeps by `clock` in short steps until the limiter lets it through or its timeout passes.
    """

    def __init__(self, configs: Sequence[TableConfig], seed: int = 0, clock: Clock | None = None):
        self._clock = clock or WallClock()
        self._lock = threading.Lock()
        self._seed = seed
        self._configs = index_by_name(configs)
        self._lives = -1
        self.restart()

    def insert(self, table: str, items: Sequence[Item], timeout_s: float = 30.0) -> None:
        checked = [(item, _frozen_columns(item)) for item in items]
        deadline_ns = self._deadline_ns(timeout_s)
        for done, (item, columns) in enumerate(checked):
            while True:
                with self._lock:
                    target = self._find(table)
                    if target.may_insert():
                        target.insert(item, columns)
                        break
                if not self._nap(deadline_ns):
                    raise RateLimitedError(
                        f"table {table!r} held back insert {done + 1} of {len(items)} (key {item.key}) for {timeout_s} s: "
                        "sampling must catch up first, or raise the table's max_diff"
                    )

    def sample(self, table: str, num: int, timeout_s: float = 1.0) -> list[SampledItem]:
        if num < 1:
            raise ValueError(f"sample from {table!r}: num must be at least 1, got {num}")
        deadline_ns = self._deadline_ns(timeout_s)
        sampled: list[SampledItem] = []
        while True:
            with self._lock:
                target = self._find(table)
                while len(sampled) < num and target.may_sample():
                    sampled.append(target.sample())
            if len(sampled) == num or not self._nap(deadline_ns):
                break
        if not sampled:
            raise RateLimitedError(
                f"table {table!r} held back sampling for {timeout_s} s: it is too empty, or sampled faster than filled"
            )
        return sampled

    def update_priorities(
        self, table: str, priorities: Mapping[int, float], delete: Sequence[int] = (), timeout_s: float = 30.0
    ) -> None:
        del timeout_s
        with self._lock:
            target = self._find(table)
            for key in delete:
                target.delete(key)
            for key, priority in priorities.items():
                target.update(key, priority)

    def info(self, timeout_s: float = 30.0) -> Mapping[str, TableInfo]:
        del timeout_s
        with self._lock:
            return {
                name: TableInfo(name, len(table), table.config.max_size, table.num_inserted, table.num_sampled)
                for name, table in self._tables.items()
            }

    def state_id(self, timeout_s: float = 30.0) -> str:
        del timeout_s
        with self._lock:
            return f"local-{self._seed}-{self._lives}"

    def reset(self, table: str, timeout_s: float = 30.0) -> None:
        del timeout_s
        with self._lock:
            self._find(table).clear()

    def close(self) -> None:
        """Nothing to give back."""

    def restart(self) -> None:
        """Forgets everything, as a server that was killed and started again; `state_id` changes."""
        with self._lock:
            self._lives += 1
            self._tables = {name: _Table(config, self._seed) for name, config in self._configs.items()}

    def _find(self, table: str) -> _Table:
        found = self._tables.get(table)
        if found is None:
            raise table_not_found(table, self._tables)
        return found

    def _deadline_ns(self, timeout_s: float) -> int:
        return self._clock.now_ns() + round(timeout_s * 1e9)

    def _nap(self, deadline_ns: int) -> bool:
        """Sleeps a little; False if the deadline has passed."""
        remaining_s = (deadline_ns - self._clock.now_ns()) / 1e9
        if remaining_s <= 0:
            return False
        self._clock.sleep_s(min(remaining_s, _POLL_S))
        return True


def _frozen_columns(item: Item) -> Mapping[str, np.ndarray]:
    check_item(item)
    columns = {}
    for name, value in item.columns.items():
        array = np.array(value)
        array.setflags(write=False)
        columns[name] = array
    return columns

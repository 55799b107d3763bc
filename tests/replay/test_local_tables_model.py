"""In-process tables against a model written as plainly as can be, and against a real server, call for call."""

import random

import numpy as np
import pytest
from contract_tables import CONTRACT_TABLES
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.tables import RateLimiterConfig, Sampler, TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import RateLimitedError
from sop_jax.specs.interfaces import Item, ReplayTables

MAX_SIZE, MIN_SIZE, RATIO, MIN_DIFF, MAX_DIFF, MAX_TIMES = 4, 2, 1.5, -2.0, 6.0, 3
KEYS = st.integers(1, 7)


class PlainTable:
    """A table as a list of [key, priority, times sampled], oldest first, and three counts."""

    def __init__(self) -> None:
        self.rows: list[list] = []
        self.inserts = self.samples = self.deletes = 0

    def find(self, key: int) -> list | None:
        return next((row for row in self.rows if row[0] == key), None)

    def delete(self, key: int) -> None:
        if (row := self.find(key)) is not None:
            self.rows.remove(row)
            self.deletes += 1

    def may_insert(self) -> bool:
        return self.inserts - self.deletes + 1 <= MIN_SIZE or (self.inserts + 1) * RATIO - self.samples <= MAX_DIFF

    def may_sample(self) -> bool:
        return len(self.rows) >= MIN_SIZE and self.inserts * RATIO - self.samples - 1 >= MIN_DIFF

    def insert(self, key: int, priority: float) -> None:
        if (row := self.find(key)) is not None:
            row[1] = priority
            return
        self.rows.append([key, priority, 0])
        if len(self.rows) > MAX_SIZE:
            self.delete(self.rows[0][0])
        self.inserts += 1


class LocalTablesMachine(RuleBasedStateMachine):
    """Any sequence of calls: the same contents, the same refusals, and the clock never passes a timeout."""

    sampler = Sampler.FIFO

    def __init__(self) -> None:
        super().__init__()
        limiter = RateLimiterConfig(MIN_SIZE, RATIO, MIN_DIFF, MAX_DIFF)
        config = TableConfig("t", MAX_SIZE, self.sampler, limiter, max_times_sampled=MAX_TIMES)
        self.clock = ManualClock()
        self.tables = LocalTables([config], seed=1, clock=self.clock)
        self.model = PlainTable()

    @rule(key=KEYS, priority=st.floats(0, 5))
    def insert(self, key: int, priority: float) -> None:
        start_ns = self.clock.now_ns()
        item = Item(key, {"x": np.array(key)}, priority)
        if self.model.may_insert():
            self.tables.insert("t", [item], timeout_s=0.02)
            self.model.insert(key, priority)
            assert self.clock.now_ns() == start_ns
        else:
            with pytest.raises(RateLimitedError):
                self.tables.insert("t", [item], timeout_s=0.02)
            assert self.clock.now_ns() == start_ns + 20_000_000

    @rule(num=st.integers(1, 4))
    def sample(self, num: int) -> None:
        allowed = 0
        start_ns = self.clock.now_ns()
        try:
            sampled = self.tables.sample("t", num, timeout_s=0.02)
        except RateLimitedError:
            sampled = []
        for got in sampled:
            assert self.model.may_sample()
            self.model.samples += 1
            allowed += 1
            self.check_choice(got)
            row = self.model.find(got.key)
            assert row is not None
            row[2] += 1
            assert got.times_sampled == row[2]
            if row[2] == MAX_TIMES:
                self.model.delete(got.key)
        assert len(sampled) == num or not self.model.may_sample()
        assert self.clock.now_ns() == start_ns + (0 if allowed == num else 20_000_000)

    def check_choice(self, got) -> None:
        assert (got.key, got.probability) == (self.model.rows[0][0], 1.0)

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        self.tables.update_priorities("t", {}, delete=[key])
        self.model.delete(key)

    @rule(key=KEYS, priority=st.floats(0, 5))
    def update(self, key: int, priority: float) -> None:
        self.tables.update_priorities("t", {key: priority})
        if (row := self.model.find(key)) is not None:
            row[1] = priority

    @precondition(lambda self: self.model.inserts > 3)
    @rule()
    def reset(self) -> None:
        self.tables.reset("t")
        self.model = PlainTable()

    @invariant()
    def counts_agree(self) -> None:
        info = self.tables.info()["t"]
        assert (info.size, info.num_inserted, info.num_sampled) == (
            len(self.model.rows),
            self.model.inserts,
            self.model.samples,
        )


class UniformMachine(LocalTablesMachine):
    sampler = Sampler.UNIFORM

    def check_choice(self, got) -> None:
        assert self.model.find(got.key) is not None
        assert got.probability == 1 / len(self.model.rows)


class PrioritizedMachine(LocalTablesMachine):
    sampler = Sampler.PRIORITIZED

    def check_choice(self, got) -> None:
        weights = {row[0]: row[1] for row in self.model.rows}
        total = sum(weights.values())
        expected = weights[got.key] / total if total > 0 else 1 / len(weights)
        assert got.probability == pytest.approx(expected)
        assert got.probability > 0


_SETTINGS = settings(max_examples=60, stateful_step_count=30)
TestFifo = LocalTablesMachine.TestCase
TestUniform = UniformMachine.TestCase
TestPrioritized = PrioritizedMachine.TestCase
TestFifo.settings = TestUniform.settings = TestPrioritized.settings = _SETTINGS


def _facts(tables: ReplayTables, num: int, timeout_s: float) -> list[tuple]:
    sampled = tables.sample("drill", num, timeout_s)
    return [(s.key, float(s.columns["x"]), s.times_sampled, s.table_size) for s in sampled]


@pytest.mark.reverb
@pytest.mark.parametrize("seed", range(6))
def test_a_server_answers_as_local_tables_do(reverb_server, seed):
    """Random calls on table "drill", which is deterministic (first in, first out), to both; all answers are equal."""
    rng = random.Random(seed)
    local, server = LocalTables(CONTRACT_TABLES), ReverbTables(reverb_server.address)
    server.reset("drill")
    num_sampled = num_refused = 0
    for _ in range(25):
        action = rng.choice(("insert", "sample", "sample", "delete"))
        if action == "insert":
            first = rng.randrange(1, 8)
            items = [Item(key, {"x": np.array(rng.random())}) for key in range(first, first + rng.randrange(1, 4))]
            local.insert("drill", items)
            server.insert("drill", items)
        elif action == "delete":
            keys = [rng.randrange(1, 11)]
            local.update_priorities("drill", {}, delete=keys)
            server.update_priorities("drill", {}, delete=keys)
        else:
            num = rng.randrange(1, 7)
            try:
                allowed = _facts(local, num, timeout_s=0.0)
            except RateLimitedError:
                allowed = []
            if allowed:
                assert _facts(server, len(allowed), timeout_s=20.0) == allowed
            if len(allowed) < num:
                with pytest.raises(RateLimitedError):
                    server.sample("drill", 1, timeout_s=0.0)
            num_sampled += len(allowed)
            num_refused += len(allowed) < num
        assert server.info()["drill"] == local.info()["drill"]
    assert num_sampled > 0
    assert num_refused > 0
    server.close()


def test_the_same_seed_samples_the_same_items_and_another_does_not():
    def run(seed: int) -> list[int]:
        tables = LocalTables([TableConfig("a", 50), TableConfig("b", 50)], seed=seed)
        for table in ("a", "b"):
            tables.insert(table, [Item(key, {"x": np.zeros(1)}) for key in range(1, 51)])
        return [s.key for table in ("a", "b") for s in tables.sample(table, 30)]

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(3)[:30] != run(3)[30:]


def test_uniform_sampling_is_uniform():
    tables = LocalTables([TableConfig("t", 10)], seed=0)
    tables.insert("t", [Item(key, {"x": np.zeros(1)}) for key in range(1, 14)])
    counts = np.bincount([s.key for s in tables.sample("t", 10_000)], minlength=14)
    np.testing.assert_array_equal(counts[:4], 0)
    np.testing.assert_allclose(counts[4:], 1000, atol=150)  # five standard deviations of 30


def test_restart_loses_everything_and_changes_the_state_id():
    tables = LocalTables([TableConfig("t", 10)], seed=0)
    tables.insert("t", [Item(1, {"x": np.zeros(1)})])
    before = tables.state_id()
    tables.restart()
    assert tables.state_id() != before
    assert tables.info()["t"].size == 0


def test_columns_are_copied_on_insert():
    tables = LocalTables([TableConfig("t", 10)])
    column = np.zeros(2)
    tables.insert("t", [Item(1, {"x": column})])
    column += 1
    np.testing.assert_array_equal(tables.sample("t", 1)[0].columns["x"], [0.0, 0.0])

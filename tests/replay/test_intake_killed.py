"""Intake killed at every call it makes, run twice, and run beside another: each item is in the tables exactly once."""

import threading
from collections.abc import Callable
from typing import cast

import pytest

from sop_jax.episodes import retirement
from sop_jax.episodes.retirement import RetirementRecord
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.items import decode_segment, label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import Sampler, TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.interfaces import ReplayTables
from sop_jax.specs.records import Source

TABLE = "dump/online"
SPEC = make_spec(image_size=16, camera_names=("head",))
CONFIG = IntakeConfig(segment_length=2, num_readers=1, items_per_insert=2)
CALLS = (
    "state_id",
    "info",
    "insert",
    "update_priorities",
    "list_paths",
    "quarantined_paths",
    "read_bytes",
    "quarantine",
)
DUMP = (TableConfig(TABLE, 6, Sampler.FIFO, max_times_sampled=1),)


class Killed(BaseException):
    """kill -9, as far as one process can play it."""


class Interrupted:
    """Passes calls on, and does something around the nth of them."""

    def __init__(self, target: object, interruption: "Interruption"):
        self._target = target
        self._interruption = interruption

    def __getattr__(self, name: str):
        value = getattr(self._target, name)
        return self._interruption.around(value) if name in CALLS else value


class Interruption:
    """Counts the calls of store and tables together; at call `at` it acts, before or after the call took effect."""

    def __init__(self, at: int, after: bool, act: Callable[[], None]):
        self.num_calls = 0
        self._at, self._after, self._act = at, after, act

    def around(self, real):
        def call(*args, **options):
            self.num_calls += 1
            mine = self.num_calls == self._at
            if mine and not self._after:
                self._act()
            result = real(*args, **options)
            if mine and self._after:
                self._act()
            return result

        return call


def die() -> None:
    raise Killed


@pytest.fixture
def store(store_url, tmp_path):
    """Three good episodes, one corrupt, one retired. Its truth: `EXPECTED`."""
    store = EpisodeStore(store_url)
    for count in range(1, 6):
        path = store.put(make_episode(count, num_frames=6, spec=SPEC, image_stride=2, task="dump")).path
        if count == 2:
            file = tmp_path / "store" / path
            file.write_bytes(file.read_bytes()[:-7])
        if count == 4:
            retirement.retire(store, RetirementRecord(path, "dump", Source.ONLINE, 6, 1, "", 0))
    return store


EXPECTED = [(count, frames) for count in (1, 3, 5) for frames in ([0, 2], [4])]


def make_intake(store: EpisodeStore, tables: ReplayTables, interruption: Interruption | None = None) -> Intake:
    if interruption is not None:
        store = cast(EpisodeStore, Interrupted(store, interruption))
        tables = cast(ReplayTables, Interrupted(tables, interruption))
    return Intake(store, tables, label_all, CONFIG, ManualClock(10**12))


def contents(tables: ReplayTables) -> list[tuple[int, list[int]]]:
    """(episode, frames) of every item, in the order of the table; takes them out."""
    size = tables.info()[TABLE].size
    segments = [decode_segment(item.columns) for item in tables.sample(TABLE, size)] if size else []
    return [(int(segment.episode_id[-6:]), segment.frames.tolist()) for segment in segments]


def num_calls_of_a_look(store_url) -> int:
    interruption = Interruption(0, False, die)
    make_intake(EpisodeStore(store_url), LocalTables(DUMP), interruption).poll()
    return interruption.num_calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_the_next_intake_completes_the_tables(store, store_url, after):
    at = 0
    while True:
        at += 1
        tables = LocalTables(DUMP)
        interruption = Interruption(at, after, die)
        try:
            make_intake(store, tables, interruption).poll()
        except Killed:
            make_intake(store, tables).poll()
            assert contents(tables) == EXPECTED, f"killed at call {at}"
            continue
        assert interruption.num_calls < at
        assert at > 10
        break
    assert len(store.quarantined()) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_in_the_middle_of_a_rebuild(store, store_url, after):
    at = 0
    while True:
        at += 1
        tables = LocalTables(DUMP)
        interruption = Interruption(0, after, die)
        intake = make_intake(store, tables, interruption)
        intake.poll()
        tables.restart()
        interruption._at = interruption.num_calls + at
        try:
            assert intake.poll().rebuilt
        except Killed:
            make_intake(store, tables).poll()
            assert contents(tables) == EXPECTED, f"killed at call {at} of the rebuild"
            continue
        assert at > 6
        break


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_server_that_dies_at_any_call_is_filled_again_by_the_same_intake(store, store_url, after):
    for at in range(1, num_calls_of_a_look(store_url) + 1):
        tables = LocalTables(DUMP)
        intake = make_intake(store, tables, Interruption(at, after, tables.restart))
        for _ in range(3):
            intake.poll()
        # What went into the new server before it was noticed stands first there.
        assert sorted(contents(tables)) == EXPECTED, f"the server died at call {at}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_another_intake_that_looks_at_any_moment_doubles_nothing(store, store_url, after):
    for at in range(1, num_calls_of_a_look(store_url) + 1):
        tables = LocalTables(DUMP)
        other = make_intake(store, tables)
        intake = make_intake(store, tables, Interruption(at, after, lambda other=other: other.poll() and None))
        intake.poll()
        other.poll()
        assert contents(tables) == EXPECTED, f"the other looked at call {at}"


def test_half_an_insert_is_completed(store):
    class HalfTables(LocalTables):
        dying = True

        def insert(self, table, items, timeout_s=30.0):
            super().insert(table, items[:1] if self.dying else items, timeout_s)
            if self.dying:
                raise Killed

    tables = HalfTables(DUMP)
    with pytest.raises(Killed):
        make_intake(store, tables).poll()
    assert tables.info()[TABLE].size == 1
    tables.dying = False
    make_intake(store, tables).poll()
    assert contents(tables) == EXPECTED


def test_two_intakes_in_two_threads(store):
    tables = LocalTables(DUMP)
    start = threading.Barrier(2)

    def look() -> None:
        intake = make_intake(store, tables)
        start.wait()
        for _ in range(3):
            intake.poll()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(contents(tables)) == EXPECTED


def test_run_twice_and_killed_half_way_on_both_kinds_of_tables(store, tables):
    with pytest.raises(Killed):
        make_intake(store, tables, Interruption(10, True, die)).poll()
    for _ in range(2):
        make_intake(store, tables).poll()
    assert contents(tables) == EXPECTED


def test_a_new_intake_beside_full_tables_brings_nothing_back_that_they_pushed_out(store, tables):
    """Room for three episodes of five: after a restart the three newest stand as before, and nothing counts as inserted."""
    for count in (6, 7):
        store.put(make_episode(count, num_frames=6, spec=SPEC, image_stride=2, task="dump"))
        make_intake(store, tables).poll()
    inserted = tables.info()[TABLE].num_inserted
    make_intake(store, tables).poll()
    assert tables.info()[TABLE].num_inserted == inserted
    assert contents(tables) == [(count, frames) for count in (5, 6, 7) for frames in ([0, 2], [4])]

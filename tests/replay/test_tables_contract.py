"""What every implementation of `ReplayTables` must do: in-process tables and a real Reverb server alike."""

import threading
import time

import numpy as np
import pytest

from sop_jax.specs.errors import RateLimitedError, TableNotFoundError
from sop_jax.specs.interfaces import Item, ReplayTables, TableInfo


def item(key: int, value: float | None = None, priority: float = 1.0) -> Item:
    return Item(key, {"x": np.array([key if value is None else value], np.float64)}, priority)


def keys(tables: ReplayTables, table: str, num: int) -> list[int]:
    return [sampled.key for sampled in tables.sample(table, num, timeout_s=0.2)]


def test_columns_come_back_as_they_went_in(tables):
    rng = np.random.default_rng(0)
    columns = {
        "text": np.frombuffer("grüße".encode(), np.uint8),
        "scalar": np.array(2**62 + 1, np.int64),
        "flag": np.array(True),
        "empty": np.zeros((0, 3), np.int32),
        "ranges": rng.integers(0, 2**40, (16, 3, 2)),
        "turned": np.asfortranarray(rng.normal(size=(4, 5)).astype(np.float32)),
        "half": np.arange(3, dtype=np.float16),
        "flags": rng.random(17) < 0.5,
    }
    tables.insert("uniform", [Item(2**64 - 1, columns, priority=0.5)])
    (sampled,) = tables.sample("uniform", 1)
    assert sampled.key == 2**64 - 1
    assert list(sampled.columns) == list(columns)
    for name, expected in columns.items():
        got = sampled.columns[name]
        assert isinstance(got, np.ndarray), name
        assert got.dtype == expected.dtype, name
        np.testing.assert_array_equal(got, expected, err_msg=name)
        assert not got.flags.writeable, name


def test_sampled_item_tells_its_statistics(tables):
    tables.insert("oldest", [item(5), item(6)])
    first, second = tables.sample("oldest", 2)
    assert (first.key, first.probability, first.table_size, first.times_sampled) == (5, 1.0, 2, 1)
    assert (second.key, second.times_sampled) == (5, 2)


def test_more_items_than_fit_in_one_message(tables):
    tables.insert("uniform", [item(key) for key in range(1, 301)])
    assert tables.info()["uniform"] == TableInfo("uniform", 300, 1000, 300, 0)
    sampled = tables.sample("uniform", 900)
    assert len(sampled) == 900
    assert all(s.columns["x"] == [s.key] and s.probability == 1 / 300 for s in sampled)
    assert len({s.key for s in sampled}) > 240  # 285 expected of 300
    assert tables.info()["uniform"].num_sampled == 900


def test_the_oldest_item_makes_room(tables):
    tables.insert("small", [item(key) for key in (1, 2, 3, 4)])
    assert set(keys(tables, "small", 60)) == {2, 3, 4}


def test_inserting_a_key_again_keeps_age_and_columns(tables):
    tables.insert("small", [item(key) for key in (1, 2, 3)])
    tables.insert("small", [item(1, value=99.0)])
    assert tables.info()["small"] == TableInfo("small", 3, 3, 3, 0)
    assert {float(s.columns["x"][0]) for s in tables.sample("small", 60)} == {1.0, 2.0, 3.0}
    tables.insert("small", [item(4)])
    assert set(keys(tables, "small", 60)) == {2, 3, 4}


def test_inserting_a_key_again_replaces_its_priority(tables):
    tables.insert("prioritized", [item(1), item(2)])
    tables.insert("prioritized", [item(1, priority=0.0)])
    assert set(keys(tables, "prioritized", 50)) == {2}


def test_an_evicted_key_returns_as_new(tables):
    tables.insert("small", [item(key) for key in (1, 2, 3, 4)])
    tables.insert("small", [item(1, value=7.0)])
    assert {s.key: float(s.columns["x"][0]) for s in tables.sample("small", 60)} == {3: 3.0, 4: 4.0, 1: 7.0}


def test_a_deleted_key_returns_as_the_newest_with_new_columns(tables):
    tables.insert("small", [item(key) for key in (1, 2, 3)])
    tables.update_priorities("small", {}, delete=[1])
    tables.insert("small", [item(1, value=7.0)])
    assert {s.key: float(s.columns["x"][0]) for s in tables.sample("small", 60)} == {2: 2.0, 3: 3.0, 1: 7.0}
    tables.insert("small", [item(4)])
    assert set(keys(tables, "small", 60)) == {3, 1, 4}


def test_an_item_leaves_after_its_last_sample_and_may_return(tables):
    tables.insert("once", [item(key) for key in (1, 2, 3)])
    assert keys(tables, "once", 3) == [1, 2, 3]
    with pytest.raises(RateLimitedError):
        tables.sample("once", 1, timeout_s=0.0)
    tables.insert("once", [item(1)])
    (again,) = tables.sample("once", 1)
    assert (again.key, again.times_sampled) == (1, 1)


def test_priorities_set_probabilities(tables):
    tables.insert("prioritized", [item(1, priority=1.0), item(2, priority=3.0), item(3, priority=0.0)])
    sampled = tables.sample("prioritized", 1000)
    assert {s.key: round(s.probability, 6) for s in sampled} == {1: 0.1, 2: 0.9}  # priority ** 2
    share = sum(s.key == 2 for s in sampled) / 1000
    assert 0.85 < share < 0.95  # five standard deviations of 0.0095
    tables.update_priorities("prioritized", {1: 0.0, 3: 1.0, 77: 1.0}, delete=[2, 88])
    assert set(keys(tables, "prioritized", 50)) == {3}


def test_all_zero_priorities_sample_uniformly(tables):
    tables.insert("prioritized", [item(key, priority=0.0) for key in (1, 2)])
    assert set(keys(tables, "prioritized", 50)) == {1, 2}


def test_too_small_a_table_gives_nothing(tables):
    tables.insert("ratio", [item(1)])
    with pytest.raises(RateLimitedError, match=r"'ratio'.*held back"):
        tables.sample("ratio", 1, timeout_s=0.2)
    assert tables.info()["ratio"].num_sampled == 0


def test_samples_stay_within_the_ratio(tables):
    tables.insert("ratio", [item(1), item(2)])
    assert len(tables.sample("ratio", 10, timeout_s=0.2)) == 4  # 2 inserts * 2 samples per insert
    with pytest.raises(RateLimitedError):
        tables.sample("ratio", 1, timeout_s=0.0)
    tables.insert("ratio", [item(1)])  # already there: no new budget
    with pytest.raises(RateLimitedError):
        tables.sample("ratio", 1, timeout_s=0.0)
    tables.insert("ratio", [item(3)])
    assert len(tables.sample("ratio", 10, timeout_s=0.2)) == 2


def test_inserts_are_never_held_back_without_max_diff(tables):
    for _ in range(20):
        tables.insert("ratio", [item(key) for key in range(1, 51)], timeout_s=5.0)
    assert tables.info()["ratio"].size == 10


def test_deletions_count_for_the_size_but_not_for_the_ratio(tables):
    tables.insert("two", [item(1), item(2), item(3)])  # 1 is pushed out
    assert len(tables.sample("two", 10, timeout_s=0.2)) == 7  # 3 inserts * 2 + 1
    tables.insert("two", [item(4)])
    tables.update_priorities("two", {}, delete=[3])
    with pytest.raises(RateLimitedError):  # the ratio would allow 2, but one item is too few
        tables.sample("two", 1, timeout_s=0.0)
    tables.insert("two", [item(5)])
    assert len(tables.sample("two", 10, timeout_s=0.2)) == 4


def test_a_held_back_insert_lands_once_samples_catch_up(tables):
    tables.insert("queue", [item(key) for key in (1, 2, 3, 4)])
    threads = [threading.Thread(target=tables.insert, args=("queue", [item(5)], 20.0))]
    threads[0].start()
    time.sleep(0.1)
    assert tables.info()["queue"].size == 4
    assert keys(tables, "queue", 1) == [1]
    threads[0].join(10)
    assert tables.info()["queue"].size == 5


def test_a_held_back_insert_times_out(tables):
    tables.insert("queue", [item(key) for key in (1, 2, 3, 4)])
    with pytest.raises(RateLimitedError, match=r"'queue'.*held back insert"):
        tables.insert("queue", [item(5)], timeout_s=0.1)
    tables.sample("queue", 2)
    time.sleep(0.1)  # a server lets it land now; in-process tables forgot it
    assert tables.info()["queue"].size in (4, 5)
    tables.insert("queue", [item(5)])
    assert tables.info()["queue"].size == 5


def test_a_waiting_sample_wakes_up_when_data_arrives(tables):
    got: list[list[int]] = []
    waiting = threading.Thread(target=lambda: got.append([s.key for s in tables.sample("oldest", 1, timeout_s=20.0)]))
    waiting.start()
    time.sleep(0.1)
    tables.insert("oldest", [item(8)])
    waiting.join(10)
    assert got == [[8]]


def test_unknown_tables_are_named_with_the_nearest(tables):
    for call in (
        lambda: tables.insert("unifrom", [item(1)]),
        lambda: tables.sample("unifrom", 1, timeout_s=0.1),
        lambda: tables.update_priorities("unifrom", {1: 1.0}),
        lambda: tables.reset("unifrom"),
    ):
        with pytest.raises(TableNotFoundError, match=r"no table 'unifrom'.*Did you mean 'uniform'"):
            call()


def test_reset_empties_one_table_and_its_limiter(tables):
    tables.insert("ratio", [item(1), item(2)])
    tables.insert("uniform", [item(1)])
    assert len(tables.sample("ratio", 4)) == 4
    tables.reset("ratio")
    assert tables.info()["ratio"] == TableInfo("ratio", 0, 10, 0, 0)
    assert tables.info()["uniform"].size == 1
    tables.insert("ratio", [item(1, value=7.0), item(2, value=7.0)])
    sampled = tables.sample("ratio", 4)
    assert [float(s.columns["x"][0]) for s in sampled] == [7.0] * 4


def test_state_id_is_stable_while_contents_last(tables):
    before = tables.state_id()
    tables.insert("uniform", [item(1)])
    tables.reset("uniform")
    assert before
    assert tables.state_id() == before


def test_bad_items_are_refused_before_any_is_inserted(tables):
    for bad, message in (
        (Item(0, {"x": np.zeros(1)}), "key 0"),
        (Item(2**64, {"x": np.zeros(1)}), "key"),
        (Item(7, {}), "no columns"),
        (Item(7, {"x": np.zeros(1)}, priority=-1.0), "priority"),
        (Item(7, {"x": np.array(["text"])}), "uint8"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            tables.insert("uniform", [item(1), bad])
    with pytest.raises(ValueError, match="num"):
        tables.sample("uniform", 0)
    tables.insert("uniform", [])
    assert tables.info()["uniform"].size == 0


def test_many_threads_lose_and_double_nothing(tables):
    def work(worker: int) -> None:
        for round_ in range(5):
            first = 1 + 100 * worker + 10 * round_
            tables.insert("uniform", [item(key) for key in range(first, first + 10)])
            assert len(tables.sample("uniform", 8)) == 8

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tables.info()["uniform"] == TableInfo("uniform", 300, 1000, 300, 240)

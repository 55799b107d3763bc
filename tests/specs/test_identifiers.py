import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.specs.errors import InvalidEpisodeError
from sop_jax.specs.identifiers import (
    check_name,
    item_key,
    make_episode_id,
    offline_table,
    online_table,
    robot_of_episode,
)

names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True)


@given(names, st.integers(0, 2**63 - 1), st.integers(0, 10**9))
def test_episode_id_tells_its_robot(robot_id, started_ns, count):
    assert robot_of_episode(make_episode_id(robot_id, started_ns, count)) == robot_id


def test_episode_ids_sort_by_time_within_a_robot():
    ids = [make_episode_id("g1-01", started, count) for started, count in [(5, 0), (5, 1), (5, 10), (40, 0)]]
    assert ids == sorted(ids)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "-a", "a.", "x" * 64, "é", "a\n"])
def test_bad_names_are_refused(name):
    with pytest.raises(InvalidEpisodeError, match="not a valid name"):
        check_name("robot_id", name)


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_refused(text):
    try:
        robot = robot_of_episode(text)
    except InvalidEpisodeError:
        return
    assert text.startswith(robot + ".")


def test_item_keys_are_stable_and_distinct():
    assert item_key("g1.1.1", 0) == 3073097551783601183
    keys = {item_key(f"g1.1.{n}", segment) for n in range(100) for segment in range(10)}
    assert len(keys) == 1000
    assert all(0 < key < 2**64 for key in keys)


def test_table_names():
    assert online_table("restock_shelf") == "restock_shelf/online"
    assert offline_table("restock_shelf") == "restock_shelf/offline"

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import (
    UNBOUNDED,
    MixConfig,
    RateLimiterConfig,
    Sampler,
    TableConfig,
    mix_tables,
    tables_to_json,
)
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError


def test_mix_has_an_online_and_an_offline_table_per_task():
    config = MixConfig(
        online_max_size=100,
        online_min_size=3,
        online_samples_per_insert=8.0,
        online_burst=5.0,
        offline_max_size=200,
        offline_min_size=2,
    )
    tables = mix_tables(["pick", "fold"], config)
    assert [table.name for table in tables] == ["pick/online", "pick/offline", "fold/online", "fold/offline"]
    online, offline = tables[0], tables[1]
    assert (online.max_size, offline.max_size) == (100, 200)
    assert online.sampler == offline.sampler == Sampler.UNIFORM
    assert online.rate_limiter == RateLimiterConfig(3, 8.0, -5.0, UNBOUNDED)
    assert offline.rate_limiter == RateLimiterConfig(2, 1.0, -UNBOUNDED, UNBOUNDED)


@given(inserts=st.integers(0, 10**9), samples=st.integers(0, 10**9), deletes=st.integers(0, 10**9))
def test_no_mix_table_ever_holds_back_an_insert(inserts, samples, deletes):
    for table in mix_tables(["pick"]):
        assert table.rate_limiter.may_insert(inserts, samples, min(deletes, inserts))


@given(inserts=st.integers(1, 10**6), samples=st.integers(0, 10**9))
def test_offline_only_needs_its_minimum_size(inserts, samples):
    assert mix_tables(["pick"])[1].rate_limiter.may_sample(inserts, samples, 0)


def test_limiter_by_hand():
    limiter = RateLimiterConfig(min_size=3, samples_per_insert=2.0, min_diff=-1.0, max_diff=9.0)
    assert not limiter.may_sample(inserts=2, samples=0, deletes=0)
    assert limiter.may_sample(inserts=3, samples=6, deletes=0)  # 6 - 6 - 1 = -1
    assert not limiter.may_sample(inserts=3, samples=7, deletes=0)
    assert not limiter.may_sample(inserts=3, samples=0, deletes=1)
    assert limiter.may_insert(inserts=3, samples=0, deletes=0) is True  # 8 <= 9
    assert limiter.may_insert(inserts=4, samples=0, deletes=0) is False  # 10 > 9
    assert limiter.may_insert(inserts=4, samples=1, deletes=0) is True
    assert limiter.may_insert(inserts=4, samples=0, deletes=2) is True  # back to the minimum size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateLimiterConfig(min_size=0), "min_size must be at least 1, got 0"),
        (lambda: RateLimiterConfig(samples_per_insert=0.0), "samples_per_insert must be finite and positive"),
        (lambda: RateLimiterConfig(samples_per_insert=math.nan), "samples_per_insert must be finite and positive"),
        (lambda: RateLimiterConfig(max_diff=math.inf), "UNBOUNDED"),
        (lambda: RateLimiterConfig(1, 4.0, 0.0, 7.0), "narrower than 2"),
        (lambda: RateLimiterConfig(2, 1.0, 3.0), "no sample would ever be allowed"),
        (lambda: TableConfig("", 1), "name must not be empty"),
        (lambda: TableConfig("t", 0), "'t': max_size must be at least 1"),
        (lambda: TableConfig("t", 1, rate_limiter=RateLimiterConfig(2)), "min_size 2 exceeds max_size 1"),
        (lambda: TableConfig("t", 1, max_times_sampled=-1), "max_times_sampled must be >= 0"),
        (lambda: TableConfig("t", 1, priority_exponent=-1.0), "priority_exponent"),
        (lambda: TableConfig("t", 1, sampler="uniform"), "sampler must be one of"),  # pyright: ignore[reportArgumentType]
        (lambda: MixConfig(online_burst=-1.0), "online_burst"),
        (lambda: mix_tables([]), "at least one task"),
        (lambda: mix_tables(["a", "a"]), "repeat"),
        (lambda: LocalTables([]), "at least one table"),
        (lambda: LocalTables([TableConfig("t", 1), TableConfig("t", 2)]), "share a name"),
    ],
)
def test_bad_configs_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_task_must_be_a_name():
    with pytest.raises(InvalidEpisodeError, match="Pick Up"):
        mix_tables(["Pick Up"])


def test_json_holds_every_field():
    (table,) = json.loads(tables_to_json([TableConfig("t", 5, Sampler.PRIORITIZED, priority_exponent=0.5)]))
    assert table["sampler"] == "prioritized"
    assert table["priority_exponent"] == 0.5
    assert table["rate_limiter"]["max_diff"] == UNBOUNDED

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.sampling.byte_lru import ByteLru


def test_the_one_used_longest_ago_goes_first():
    cache: ByteLru[str, int] = ByteLru(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert (cache.num_hits, cache.num_misses, cache.num_bytes) == (3, 1, 8)


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12))))
def test_it_never_holds_more_than_its_bound(max_bytes, puts):
    cache: ByteLru[int, int] = ByteLru(max_bytes)
    sizes: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        sizes[key] = size
        assert cache.num_bytes <= max_bytes
        assert cache.num_bytes == sum(sizes[k] for k in sizes if cache.get(k) is not None)
        assert (cache.get(key) == size) is (size <= max_bytes)


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="max_bytes must be >= 0, got -1"):
        ByteLru(-1)

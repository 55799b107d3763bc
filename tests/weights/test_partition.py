import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sop_jax.weights.partition import merge_params, split_params

TREES = st.recursive(
    st.integers(0, 9).map(float),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@given(tree=TREES, modulus=st.integers(1, 4))
def test_split_and_merge_are_inverse(tree, modulus):
    trained, frozen = split_params(tree, lambda path: sum(map(ord, path)) % modulus == 0)
    assert merge_params(trained, frozen) == tree
    assert merge_params(frozen, trained) == tree


def test_split_follows_the_paths():
    params = {"llm": {"w": np.float32(1)}, "head": {"w": np.float32(2), "b": np.float32(3)}}
    trained, frozen = split_params(params, lambda path: path[0] != "llm")
    assert trained == {"head": {"w": 2.0, "b": 3.0}}
    assert frozen == {"llm": {"w": 1.0}}


def test_overlap_is_refused():
    with pytest.raises(ValueError, match=r"in both.*'a/w'"):
        merge_params({"a": {"w": 1}}, {"a": {"w": 2}})

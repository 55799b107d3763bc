import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import COMPACT, make_batch

from sop_jax.models.pytrees import count_params, flatten_params, unflatten_params
from sop_jax.models.registry import create_model


def test_a_batch_is_a_pytree_with_named_children():
    batch = make_batch(create_model(COMPACT), batch=2)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    assert paths[0] == ".observation.images['hand_left']"
    assert paths[-1] == ".weight"
    assert len(paths) == 2 * 2 + 3 + 3


def test_trees_of_other_things_than_arrays_keep_the_structure():
    batch = make_batch(create_model(COMPACT), batch=2)
    shapes = jax.tree.map(lambda leaf: str(leaf.shape), batch)
    assert shapes.actions == "(2, 3, 4)"
    assert jax.tree.structure(shapes) == jax.tree.structure(batch)


def test_a_batch_goes_through_jit_unchanged():
    batch = make_batch(create_model(COMPACT), batch=2)
    doubled = jax.jit(lambda b: dataclasses.replace(b, weight=b.weight * 2))(batch)
    np.testing.assert_array_equal(doubled.weight, [2, 2])
    np.testing.assert_array_equal(doubled.observation.images["head"], batch.observation.images["head"])
    assert doubled.observation.images["head"].dtype == jnp.uint8


def test_wrong_shapes_are_refused():
    batch = make_batch(create_model(COMPACT), batch=2)
    with pytest.raises(Exception, match="action_mask"):
        dataclasses.replace(batch, action_mask=np.ones((2, 9), np.float32))
    with pytest.raises(Exception, match="images"):
        dataclasses.replace(batch.observation, images={"head": np.zeros((2, 4, 4, 3), np.float32)})


def test_flat_params_are_sorted_and_come_back():
    params = {"b": {"y": np.ones((2, 3)), "x": np.zeros(4)}, "a": np.ones(1)}
    flat = flatten_params(params)
    assert list(flat) == [("a",), ("b", "x"), ("b", "y")]
    assert unflatten_params(flat)["b"]["y"] is params["b"]["y"]
    assert count_params(params) == 11

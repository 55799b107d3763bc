"""Where arrays lie, and that training doesn't depend on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from linear_policy import CONFIG

from sop_jax.learner.config import MeshConfig
from sop_jax.learner.sharding import (
    batch_sharding,
    check_batch_size,
    local_rows,
    make_mesh,
    partition_spec,
    put_batch,
    put_state,
    tree_shardings,
)
from sop_jax.specs.errors import ConfigError

FLOAT = np.dtype(np.float32)
MESHES = {
    "data": MeshConfig(data=8, min_sharded_bytes=0),
    "fsdp": MeshConfig(data=1, fsdp=8, min_sharded_bytes=0),
    "data x fsdp x tensor": MeshConfig(data=2, fsdp=2, tensor=2, min_sharded_bytes=0),
}


def test_mesh_takes_the_devices_left():
    mesh = make_mesh(MeshConfig(fsdp=2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    assert dict(make_mesh(MeshConfig(data=2, fsdp=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=16), MeshConfig(data=3, fsdp=3)])
def test_mesh_that_does_not_fit_is_refused(config):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        make_mesh(config)


def test_batch_size_must_divide():
    with pytest.raises(ConfigError, match="multiple of data x fsdp = 8 devices, got 12"):
        check_batch_size(make_mesh(MeshConfig(fsdp=4)), 12)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("a/kernel", (6, 16), PartitionSpec(None, "fsdp")),  # the largest dimension that divides
        ("a/kernel", (18, 16, 7), PartitionSpec("fsdp", None, None)),
        ("a/kernel", (7, 9), PartitionSpec(None, None)),  # nothing divides
        ("a/bias", (64,), PartitionSpec()),  # vectors are copied
        ("layers/mlp/gating_einsum", (18, 2, 32, 64), PartitionSpec(None, None, "fsdp", "tensor")),
        ("layers/mlp/linear", (18, 64, 16), PartitionSpec("fsdp", "tensor", None)),
        ("layers/mlp_1/linear", (5, 64, 16), PartitionSpec(None, "tensor", "fsdp")),
        ("layers/attn/q_einsum_1/w", (3, 8, 32, 16), PartitionSpec(None, "tensor", "fsdp", None)),
        ("layers/attn/kv_einsum/w", (3, 2, 1, 32, 16), PartitionSpec(None, None, None, "fsdp", None)),
        ("opt_state/1/0/mu/layers/mlp/linear", (18, 64, 16), PartitionSpec("fsdp", "tensor", None)),
    ],
)
def test_rules(name, shape, expected):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert partition_spec(mesh, name, shape, FLOAT, min_bytes=0) == expected


def test_small_arrays_are_copied():
    mesh = make_mesh(MeshConfig(fsdp=8))
    assert partition_spec(mesh, "a", (1024, 1023), FLOAT, 4 * 2**20) == PartitionSpec()
    assert partition_spec(mesh, "a", (1024, 1024), FLOAT, 4 * 2**20) == PartitionSpec("fsdp", None)


@given(shape=st.lists(st.integers(1, 24), max_size=4), fsdp=st.sampled_from([1, 2, 4, 8]))
def test_every_shape_can_be_placed(shape, fsdp):
    mesh = make_mesh(MeshConfig(data=1, fsdp=fsdp))
    spec = partition_spec(mesh, "x/mlp/linear", tuple(shape), FLOAT, min_bytes=0)
    jax.sharding.NamedSharding(mesh, spec).shard_shape(tuple(shape))  # raises if it doesn't divide
    split = [size for size, axis in zip(shape, spec, strict=False) if axis == "fsdp"]
    divisible = [size for size in shape if size % fsdp == 0]
    assert split == ([max(divisible)] if fsdp > 1 and len(shape) > 1 and divisible else [])


def test_batch_goes_out_and_comes_back_in_order():
    mesh = make_mesh(MESHES["data x fsdp x tensor"])
    rows = np.arange(8, dtype=np.float32)
    placed = put_batch({"rows": rows, "wide": np.zeros((8, 3, 2))}, mesh)
    assert placed["rows"].sharding == placed["wide"].sharding == batch_sharding(mesh)
    assert placed["wide"].addressable_shards[0].data.shape == (2, 3, 2)
    np.testing.assert_array_equal(local_rows(placed["rows"]), rows)


def test_put_state_never_shares_memory():
    mesh = make_mesh(MeshConfig(data=1))
    source = {"w": jnp.ones((4, 4))}
    placed = put_state(source, tree_shardings(mesh, source, 0))
    jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)(placed)
    np.testing.assert_array_equal(source["w"], np.ones((4, 4)))


@pytest.fixture(scope="module")
def reference_losses():
    return {}


@pytest.mark.parametrize("name", ["one device", *MESHES])
def test_training_is_the_same_on_every_mesh(name, make_bench, reference_losses):
    config = dataclasses.replace(CONFIG, batch_size=16, mesh=MESHES.get(name, CONFIG.mesh))
    bench = make_bench(config)
    bench.learner.run()
    losses = np.stack([losses for _, losses in bench.batches.recorded])
    kernel = bench.learner.policy_params()["encoder"]["kernel"]
    if name == "one device":
        reference_losses.update(losses=losses, kernel=kernel)
    np.testing.assert_allclose(losses, reference_losses["losses"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kernel, reference_losses["kernel"], rtol=1e-4, atol=1e-5)
    state = bench.learner._state
    shards = {
        "one device": ((8, 16), (16, 8)),
        "data": ((8, 16), (16, 8)),
        "fsdp": ((8, 2), (2, 8)),
        "data x fsdp x tensor": ((8, 8), (8, 4)),
    }[name]
    for tree in (state.params, state.ema, state.opt_state[1][0].mu):
        assert tree["encoder"]["kernel"].addressable_shards[0].data.shape == shards[0]
        assert tree["mlp"]["linear"].addressable_shards[0].data.shape == shards[1]

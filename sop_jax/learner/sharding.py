"""The mesh, and what lies where on it. The only module that knows.

The batch is split over (data, fsdp). Small arrays are copied to every device; of a large one the largest dimension that
divides is split over fsdp, and the dimension named in `TENSOR_RULES` over tensor. Optimiser moments and the average lie
like their parameters, because the same rules see the same names and shapes.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from sop_jax.learner.config import MeshConfig
from sop_jax.models.placement import BATCH_AXES
from sop_jax.specs.errors import ConfigError

AXES = ("data", "fsdp", "tensor")

TENSOR_RULES: tuple[tuple[str, int], ...] = (
    (r"q_einsum(_\d+)?/w$", -3),  # [.., N, D, K]: over heads
    (r"kv_einsum(_\d+)?/w$", -3),  # [.., 2, N, D, K]: over heads; copied where the one key-value head doesn't divide
    (r"attn_vec_einsum(_\d+)?/w$", -3),  # [.., N, K, D]: over heads
    (r"mlp(_\d+)?/gating_einsum$", -1),  # [.., 2, D, F]: over hidden units
    (r"mlp(_\d+)?/linear$", -2),  # [.., F, D]: over hidden units
    (r"MlpBlock_\d+/Dense_0/kernel$", -1),
    (r"MlpBlock_\d+/Dense_1/kernel$", -2),
)
"""(pattern of the parameter's path, dimension split over `tensor`), so that a layer needs one sum over devices."""


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices`, by default all of all hosts. With `data` given, later devices may be left idle on one host.

    Raises ConfigError if the devices don't divide or are too few.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices), idle_allowed=jax.process_count() == 1)
    if shape[2] > jax.local_device_count():
        raise ConfigError(
            f"MeshConfig.tensor={shape[2]} exceeds the {jax.local_device_count()} devices of a host: an example would be "
            "split over hosts, each of which loads examples of its own. Use fsdp for what is beyond a host."
        )
    return Mesh(mesh_utils.create_device_mesh(shape, devices[: math.prod(shape)]), AXES)


def abstract_mesh(config: MeshConfig, num_devices: int) -> AbstractMesh:
    """The mesh that `make_mesh` would make of so many devices; they need not exist. Raises ConfigError as it does."""
    return AbstractMesh(mesh_shape(config, num_devices), AXES)


def mesh_shape(config: MeshConfig, num_devices: int, idle_allowed: bool = True) -> tuple[int, int, int]:
    """Devices along each axis. Raises ConfigError if they don't divide or are too few."""
    fixed = config.fsdp * config.tensor
    data = num_devices // fixed if config.data == -1 else config.data
    used = data * fixed
    if used == 0 or used > num_devices or (used < num_devices and (config.data == -1 or not idle_allowed)):
        raise ConfigError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not fit {num_devices} devices: "
            "choose sizes whose product is the number of devices (data=-1 takes what is left)."
        )
    return data, config.fsdp, config.tensor


def batch_ways(mesh: Mesh | AbstractMesh) -> int:
    """Into how many shares a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch_size(mesh: Mesh | AbstractMesh, batch_size: int, accumulate_steps: int = 1) -> None:
    """Raises ConfigError unless every device along the batch axes gets the same number of examples, in every part."""
    ways = batch_ways(mesh)
    if batch_size % (ways * accumulate_steps):
        parts = f" x accumulate_steps = {accumulate_steps}" if accumulate_steps > 1 else ""
        raise ConfigError(
            f"LearnerConfig.batch_size must be a multiple of data x fsdp = {ways} devices{parts}, got {batch_size}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """For every leaf of a batch: the leading dimension is split."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def tree_shardings(mesh: Mesh | AbstractMesh, tree: Any, min_bytes: int) -> Any:
    """A NamedSharding for each leaf (array or shape) of parameters, of a train state, or of anything that holds them."""

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
        return NamedSharding(mesh, partition_spec(mesh, name, tuple(leaf.shape), np.dtype(leaf.dtype), min_bytes))

    return jax.tree_util.tree_map_with_path(place, tree)


def partition_spec(
    mesh: Mesh | AbstractMesh, name: str, shape: tuple[int, ...], dtype: np.dtype, min_bytes: int
) -> PartitionSpec:
    """Where one array lies. `name` is its path with slashes."""
    if len(shape) < 2 or math.prod(shape) * dtype.itemsize < min_bytes:
        return PartitionSpec()
    axes: list[str | None] = [None] * len(shape)
    if mesh.shape["tensor"] > 1:
        for pattern, dim in TENSOR_RULES:
            if re.search(pattern, name) and len(shape) >= -dim and shape[dim] % mesh.shape["tensor"] == 0:
                axes[dim] = "tensor"
                break
    if mesh.shape["fsdp"] > 1:
        free = [i for i in range(len(shape)) if axes[i] is None and shape[i] % mesh.shape["fsdp"] == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def lay_like_state(tree: Any, min_bytes: int) -> Any:
    """Inside the compiled step: asks for gradients to lie like the parameters whose names and shapes they have, so that
    what is summed over devices is only ever kept in shares."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, tree_shardings(mesh, tree, min_bytes))


def split_in_parts(batch: Any, num_parts: int) -> Any:
    """[B, ..] to [K, B / K, ..]; part k holds the examples k, k + K, ...

    Neighbours on a device go to different parts, so every part is spread over all devices and no example moves.
    """

    def split(leaf: Any) -> Array:
        rows = jnp.asarray(leaf)
        rows = _lay(rows.reshape(-1, num_parts, *rows.shape[1:]), PartitionSpec(BATCH_AXES))
        return _lay(jnp.swapaxes(rows, 0, 1), PartitionSpec(None, BATCH_AXES))

    return jax.tree.map(split, batch)


def join_parts(parts: Shaped[Array, "K n"]) -> Shaped[Array, " B"]:
    """The inverse of `split_in_parts` for one number per example."""
    rows = _lay(jnp.swapaxes(parts, 0, 1), PartitionSpec(BATCH_AXES))
    return _lay(rows.reshape(-1), PartitionSpec(BATCH_AXES))


def _lay(array: Array, spec: PartitionSpec) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    return array if mesh.empty or mesh.size == 1 else jax.lax.with_sharding_constraint(array, spec)


def put_state(tree: Any, shardings: Any, may_alias: bool = False) -> Any:
    """Copies host or device arrays to where they belong; on several hosts, each has the whole of `tree` and copies its share.

    Unless `may_alias`, the result never shares memory with `tree`, so it may be donated.
    """

    def put(leaf: Any, place: NamedSharding) -> Any:
        if place.is_fully_addressable:
            return jax.device_put(leaf, place, may_alias=may_alias)
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree, shardings)


def fetch(tree: Any) -> Any:
    """The whole of each array as numpy, on every host. Blocks; all hosts must ask."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves this host's share of a batch to its devices; returns before the copy is done."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def local_rows(array: Shaped[jax.Array, " N"]) -> Shaped[np.ndarray, " B"]:
    """This host's share `B` of an array that is split like the batch, `N` over all hosts. Blocks until it is computed."""
    if array.is_fully_addressable:
        return np.asarray(array)
    rows = {shard.index[0].start or 0: np.asarray(shard.data) for shard in array.addressable_shards}
    return np.concatenate([rows[start] for start in sorted(rows)])

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
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from sop_jax.learner.config import MeshConfig
from sop_jax.specs.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

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
    fixed = config.fsdp * config.tensor
    data = len(devices) // fixed if config.data == -1 else config.data
    used = data * fixed
    idle_allowed = config.data != -1 and jax.process_count() == 1
    if used == 0 or used > len(devices) or (used < len(devices) and not idle_allowed):
        raise ConfigError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not fit {len(devices)} devices: "
            "choose sizes whose product is the number of devices (data=-1 takes what is left)."
        )
    return Mesh(np.asarray(devices[:used]).reshape(data, config.fsdp, config.tensor), AXES)


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Raises ConfigError unless every device along the batch axes gets the same number of examples."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % ways:
        raise ConfigError(
            f"LearnerConfig.batch_size must be a multiple of data x fsdp = {ways} devices, got {batch_size}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """For every leaf of a batch: the leading dimension is split."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def tree_shardings(mesh: Mesh, tree: Any, min_bytes: int) -> Any:
    """A NamedSharding for each leaf (array or shape) of parameters, of a train state, or of anything that holds them."""

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
        return NamedSharding(mesh, partition_spec(mesh, name, tuple(leaf.shape), np.dtype(leaf.dtype), min_bytes))

    return jax.tree_util.tree_map_with_path(place, tree)


def partition_spec(mesh: Mesh, name: str, shape: tuple[int, ...], dtype: np.dtype, min_bytes: int) -> PartitionSpec:
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


def put_state(tree: Any, shardings: Any) -> Any:
    """Copies host or device arrays to where they belong. Never shares memory with `tree`, so the result may be donated."""
    return jax.tree.map(lambda leaf, place: jax.device_put(leaf, place, may_alias=False), tree, shardings)


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


def any_host(flag: bool) -> bool:
    """Whether any host says so. All hosts must ask at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))

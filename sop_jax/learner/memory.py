"""How much memory a learner takes on each device, from shapes alone: nothing is loaded, compiled or allocated."""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh

from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.remat import with_remat
from sop_jax.learner.shapes import abstract_batch, example_norm
from sop_jax.learner.sharding import abstract_mesh, batch_ways, check_batch_size, tree_shardings
from sop_jax.learner.state import init_state
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.weights.partition import merge_params, split_params

_COMPUTE_BYTES = 2  # bfloat16


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each device.

    params: float32 masters of the trained leaves. average, moments: what belongs to them. frozen: the other leaves, as the
        base stores them.
    gradients: of the trained leaves, in float32; twice with accumulation (the sum, and those of the part at hand).
    activations: what the forward pass keeps for the backward pass of one part of the batch, and one layer's working set.
        An estimate: the compiler keeps some of it shorter, and adds scratch space of its own.
    gathered: with fsdp, the layer at work and the next one, whole.
    batch: the batch at work and the one fetched ahead.
    publication: the copy that is published while training goes on; whole on several hosts.
    """

    params: int
    average: int
    moments: int
    frozen: int
    gradients: int
    activations: int
    gathered: int
    batch: int
    publication: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))


def estimate_memory(
    model: PolicyModel, params: Params, config: LearnerConfig, image_size: int, num_devices: int, num_hosts: int = 1
) -> MemoryEstimate:
    """What `config` takes on each of `num_devices`. `params` are arrays or shapes, in the types that the base stores.

    Raises ConfigError if the mesh doesn't fit the devices, or the batch the mesh.
    """
    model = with_remat(model, config.remat)
    mesh = abstract_mesh(config.mesh, num_devices)
    check_batch_size(mesh, config.batch_size, config.accumulate_steps)
    trained, frozen = split_params(params, model.is_trained)
    init = functools.partial(init_state, optimizer=make_optimizer(config), ema_decay=config.ema_decay)
    state = jax.eval_shape(init, trained)
    share = functools.partial(_device_bytes, mesh, config.mesh.min_sharded_bytes)
    rows = config.batch_size // batch_ways(mesh)
    return MemoryEstimate(
        params=share(state.params),
        average=share(state.ema),
        moments=share(state.opt_state),
        frozen=share(frozen),
        gradients=share(state.params) * (1 if config.accumulate_steps == 1 else 2),
        activations=_activation_bytes(model, state.params, frozen, image_size, rows // config.accumulate_steps),
        gathered=2 * _layer_bytes(params) if mesh.shape["fsdp"] > 1 else 0,
        batch=2 * tree_bytes(abstract_batch(model, image_size, rows)),
        publication=share(trained) if num_hosts == 1 else tree_bytes(trained),
    )


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves together; random keys count nothing."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def kept_bytes(model: PolicyModel, trained: Params, frozen: Params, image_size: int, rows: int) -> int:
    """Bytes that the forward pass over `rows` examples keeps for the backward pass, beside the parameters themselves."""
    flat = flatten_params(merge_params(trained, frozen))
    leaves = tuple((path, tuple(leaf.shape), np.dtype(leaf.dtype)) for path, leaf in flat.items())
    # Each array either has a row per example or doesn't depend on them, so two traces tell of all batch sizes.
    one, two = (_trace_kept_bytes(model, leaves, image_size, num) for num in (1, 2))
    return one + (rows - 1) * (two - one)


@functools.lru_cache(maxsize=64)
def _trace_kept_bytes(model: PolicyModel, leaves: tuple[Any, ...], image_size: int, rows: int) -> int:
    flat = {path: jax.ShapeDtypeStruct(shape, dtype) for path, shape, dtype in leaves}
    trained, frozen = split_params(unflatten_params(flat), model.is_trained)
    norm, batch = example_norm(model), abstract_batch(model, image_size, rows)

    def backward(trained: Params, frozen: Params, batch: Any) -> Any:
        def loss(params: Params) -> Any:
            return jnp.mean(model.loss(merge_params(params, frozen), norm, batch, jax.random.key(0)))

        return jax.vjp(loss, trained)[1]

    parameters = collections.Counter((shape, dtype) for _, shape, dtype in leaves)
    kept = []
    for leaf in jax.tree.leaves(jax.eval_shape(backward, trained, frozen, batch)):
        if parameters[leaf.shape, leaf.dtype]:
            parameters[leaf.shape, leaf.dtype] -= 1
        else:
            kept.append(leaf)
    return tree_bytes(kept)


def _activation_bytes(model: PolicyModel, trained: Params, frozen: Params, image_size: int, rows: int) -> int:
    """What is kept, and one layer's working set: that layer's share of all that could be kept."""
    kept = kept_bytes(model, trained, frozen, image_size, rows)
    depth = _depth(model)
    everything = kept if depth == 1 else kept_bytes(with_remat(model, "none"), trained, frozen, image_size, rows)
    return kept + everything // depth


def _depth(model: PolicyModel) -> int:
    """Layers that are alike; 1 where the policy has no such stack."""
    return model.config.language.depth if hasattr(model.config, "language") else 1


def _layer_bytes(params: Params) -> int:
    """One layer of every stack, whole, in the type that it computes in."""
    stacked = [leaf for path, leaf in flatten_params(params).items() if {"layers", "encoderblock"} & set(path)]
    return sum(leaf.size // leaf.shape[0] * _COMPUTE_BYTES for leaf in stacked)


def _device_bytes(mesh: AbstractMesh, min_sharded_bytes: int, tree: Any) -> int:
    """Bytes of one device's share."""
    shardings = jax.tree.leaves(tree_shardings(mesh, tree, min_sharded_bytes))
    shares = [
        jax.ShapeDtypeStruct(place.shard_shape(tuple(leaf.shape)), leaf.dtype)
        for leaf, place in zip(jax.tree.leaves(tree), shardings, strict=True)
    ]
    return tree_bytes(shares)

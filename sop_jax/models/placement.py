"""How a model asks for its activations to lie on the learner's mesh.

The learner compiles its step under a mesh (`jax.sharding.use_abstract_mesh`); without one, nothing here does anything.
"""

from typing import Any

import jax
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The axes of the learner's mesh over which a batch is split."""


def split_by_batch(tree: Any) -> Any:
    """Pins every leaf's leading dimension to the batch axes, and leaves its other dimensions whole.

    XLA would else be free to split activations like the parameters that they meet, and to move them between layers.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not set(BATCH_AXES) <= set(mesh.axis_names):
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec(BATCH_AXES)), tree)

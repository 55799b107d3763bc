"""The parameters that a publication replaces, and how they are put in their places."""

from collections.abc import Mapping
from typing import Any

import jax

from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params, flatten_params, unflatten_params
from sop_jax.specs.errors import InvalidPublicationError


def trained_template(model: PolicyModel, params: Mapping[str, Any]) -> Params:
    """Shapes and dtypes of the leaves that publications replace, as a nested dict."""
    return unflatten_params(
        {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for path, leaf in flatten_params(params).items()
            if model.is_trained(path)
        }
    )


def replace_trained(model: PolicyModel, present: Params, new: Mapping[str, Any], version: int) -> Params:
    """`present` with `new` trained leaves (a nested dict like the template), on the device; frozen leaves are shared.

    Raises:
        InvalidPublicationError: leaves are missing, unknown, or of another shape or dtype.
    """
    leaves, expected = flatten_params(new), flatten_params(trained_template(model, present))
    if leaves.keys() != expected.keys():
        missing, unknown = sorted(expected.keys() - leaves.keys()), sorted(leaves.keys() - expected.keys())
        raise InvalidPublicationError(
            f"version {version}: expected the {len(expected)} trained leaves, {len(missing)} are missing "
            f"{missing[:3]}, {len(unknown)} are unknown {unknown[:3]}. Was it published by another model?"
        )
    for path, leaf in leaves.items():
        if (leaf.shape, leaf.dtype) != (expected[path].shape, expected[path].dtype):
            raise InvalidPublicationError(
                f"version {version}: leaf {'/'.join(path)} is {leaf.dtype}{list(leaf.shape)}, expected "
                f"{expected[path].dtype}{list(expected[path].shape)}. Was it published by another model?"
            )
    return jax.block_until_ready(unflatten_params({**flatten_params(present), **jax.device_put(leaves)}))

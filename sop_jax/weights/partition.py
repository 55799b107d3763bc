"""Splitting a model's parameters into the trained leaves (published, optimised) and the frozen ones (part of the base)."""

from collections.abc import Callable, Mapping
from typing import Any

from sop_jax.models.pytrees import Params, flatten_params, unflatten_params

IsTrained = Callable[[tuple[str, ...]], bool]


def split_params(params: Mapping[str, Any], is_trained: IsTrained) -> tuple[Params, Params]:
    """(trained, frozen): two nested dicts whose leaves together are those of `params`."""
    flat = flatten_params(params)
    trained = {path: leaf for path, leaf in flat.items() if is_trained(path)}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return unflatten_params(trained), unflatten_params(frozen)


def merge_params(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> Params:
    """The inverse of `split_params`. Raises ValueError if both hold the same leaf."""
    flat_trained, flat_frozen = flatten_params(trained), flatten_params(frozen)
    if both := flat_trained.keys() & flat_frozen.keys():
        raise ValueError(f"leaves in both the trained and the frozen parameters: {['/'.join(p) for p in sorted(both)]}")
    return unflatten_params(flat_trained | flat_frozen)

"""Frozen dataclasses as pytrees, and nested parameter dicts as flat paths."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

Leaf = jax.Array | np.ndarray
"""An array on a device or on the host."""

Params = dict[str, Any]
"""A nested plain dict: str -> Params | array. No key holds a "/"."""


def register_record(cls: type[T]) -> type[T]:
    """Registers a frozen dataclass as a pytree whose fields are all children, by name.

    Unlike `jax.tree_util.register_dataclass`, rebuilding does not call `__init__`: trees of shardings, shapes or None have
    the same structure as trees of arrays, and must not be checked as if they were arrays.
    """
    names = tuple(field.name for field in dataclasses.fields(cls))  # pyright: ignore[reportArgumentType]

    def flatten_with_keys(record: T) -> tuple[tuple[tuple[Any, Any], ...], None]:
        return tuple((jax.tree_util.GetAttrKey(name), getattr(record, name)) for name in names), None

    def flatten(record: T) -> tuple[tuple[Any, ...], None]:
        return tuple(getattr(record, name) for name in names), None

    def unflatten(_: None, children: Any) -> T:
        record = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(record, name, child)
        return record

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def flatten_params(params: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """`{path: leaf}` of a nested dict, in sorted order of the paths."""
    flat: dict[tuple[str, ...], Any] = {}
    for name in sorted(params):
        value = params[name]
        if isinstance(value, Mapping):
            flat.update(flatten_params(value, (*prefix, name)))
        else:
            flat[*prefix, name] = value
    return flat


def unflatten_params(flat: Mapping[tuple[str, ...], Any]) -> Params:
    """The inverse of `flatten_params`."""
    params: Params = {}
    for path, leaf in flat.items():
        node = params
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return params


def count_params(params: Mapping[str, Any]) -> int:
    """Numbers held by all leaves together; works on shapes as on arrays."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten_params(params).values())

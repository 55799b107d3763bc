"""Configs as JSON and back: what is saved beside a run is what the run was."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sop_jax.specs.errors import ConfigError

KIND = "kind"
"""Names the class where a field may hold one of several configs."""

Config = TypeVar("Config")


def to_json(value: Any) -> Any:
    """Plain JSON values of a config, nested ones included. A dataclass also tells its class, under "kind"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {KIND: type(value).__name__, **fields}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Config], values: Any, where: str = "config") -> Config:
    """A config back from `to_json`; fields that are absent keep their defaults.

    Raises:
        ConfigError: an unknown field (with the near match), a value of the wrong type, or one that the config refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected the fields of {kind.__name__}, got {values!r}")
    annotations = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    given = {name: value for name, value in values.items() if name != KIND}
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected some of {names}"
            raise ConfigError(f"{where}: {kind.__name__} has no field {name!r}{hint}")
    decoded = {name: _decode(annotations[name], value, f"{where}.{name}") for name, value in given.items()}
    try:
        return kind(**decoded)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _decode(annotation: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return from_json(annotation, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: expected one of {list(arguments)}, got {value!r}")
        return value
    if origin is tuple:
        items = _expect(value, list, where)
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if origin in (Mapping, dict):
        items = _expect(value, dict, where)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in items.items()}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        try:
            return annotation(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
    if annotation is float and type(value) is int:
        return float(value)
    return _expect(value, annotation, where)


def _decode_union(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    records: dict[str, type] = {
        kind.__name__: kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    if isinstance(value, Mapping) and records:
        name = value.get(KIND, next(iter(records)) if len(records) == 1 else None)
        if name not in records:
            raise ConfigError(f"{where}: expected {KIND!r} to be one of {sorted(records)}, got {name!r}")
        return from_json(records[name], value, where)
    problems = []
    for kind in kinds:
        try:
            return _decode(kind, value, where)
        except ConfigError as error:
            problems.append(str(error))
    raise ConfigError(problems[-1])


def _expect(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
    return value

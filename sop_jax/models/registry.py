"""Model configs by name, as JSON, and as models."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from sop_jax.models.added_fields import may_lack
from sop_jax.models.compact import CompactConfig, CompactPolicy
from sop_jax.models.pi05.config import FULL, PI0, PI0_TINY, TINY, TINY_REAL_TIME, Pi05Config
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import PolicyModel

PolicyConfig = CompactConfig | Pi05Config

PRESETS: Mapping[str, PolicyConfig] = {
    "compact": CompactConfig(),
    "compact_central": CompactConfig(noise_scale=0.0),
    "pi05_tiny": TINY,
    "pi05_tiny_real_time": TINY_REAL_TIME,
    "pi05": FULL,
    "pi0_tiny": PI0_TINY,
    "pi0": PI0,
}
_KINDS = {CompactConfig.kind: (CompactConfig, CompactPolicy), Pi05Config.kind: (Pi05Config, Pi05Policy)}


def create_model(config: PolicyConfig) -> PolicyModel:
    """The model that this config describes."""
    return _KINDS[config.kind][1](config)


def config_to_json(config: PolicyConfig) -> dict[str, Any]:
    """A JSON-able dict that `config_from_json` turns back into an equal config."""
    return {"kind": config.kind, **_to_json(config)}


def config_from_json(content: Mapping[str, Any]) -> PolicyConfig:
    """The config back.

    Raises:
        ValueError: if the kind is unknown, or a field is missing, unknown or out of its range.
    """
    content = dict(content)
    kind = content.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown model kind {kind!r}: expected one of {sorted(_KINDS)}")
    return _parse(_KINDS[kind][0], content)


def _to_json(record: Any) -> dict[str, Any]:
    content = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not (may_lack(field) and value == field.default):
            content[field.name] = _to_json(value) if dataclasses.is_dataclass(value) else value
    return content


def _parse(cls: type, content: Mapping[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    needed = {name for name, field in fields.items() if not may_lack(field)}
    if not needed <= set(content) <= set(fields):
        raise ValueError(
            f"{cls.__name__} in JSON: missing fields {sorted(needed - set(content))}, unknown fields "
            f"{sorted(set(content) - set(fields))}. Was it written by another version?"
        )
    values = {}
    for name, value in content.items():
        if isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, Mapping):
            value = _parse(_record_type(fields[name].type), value)
        values[name] = value
    return cls(**values)


def _record_type(annotation: Any) -> type:
    """The dataclass in `X` or `X | None`."""
    kinds = (*typing.get_args(annotation), annotation)
    return next(kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind))

"""Model configs by name, as JSON, and as models."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sop_jax.models.compact import CompactConfig, CompactPolicy
from sop_jax.models.pi05.config import FULL, TINY, Pi05Config
from sop_jax.models.pi05.policy import Pi05Policy
from sop_jax.models.policy import PolicyModel

PolicyConfig = CompactConfig | Pi05Config

PRESETS: Mapping[str, PolicyConfig] = {"compact": CompactConfig(), "pi05_tiny": TINY, "pi05": FULL}
_KINDS = {CompactConfig.kind: (CompactConfig, CompactPolicy), Pi05Config.kind: (Pi05Config, Pi05Policy)}


def create_model(config: PolicyConfig) -> PolicyModel:
    """The model that this config describes."""
    return _KINDS[config.kind][1](config)


def config_to_json(config: PolicyConfig) -> dict[str, Any]:
    """A JSON-able dict that `config_from_json` turns back into an equal config."""
    return {"kind": config.kind, **dataclasses.asdict(config)}


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


def _parse(cls: type, content: Mapping[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if set(content) != set(fields):
        raise ValueError(
            f"{cls.__name__} in JSON: missing fields {sorted(set(fields) - set(content))}, unknown fields "
            f"{sorted(set(content) - set(fields))}. Was it written by another version?"
        )
    values = {}
    for name, value in content.items():
        nested = fields[name].type
        if isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, Mapping):
            value = _parse(nested, value)  # pyright: ignore[reportArgumentType]
        values[name] = value
    return cls(**values)

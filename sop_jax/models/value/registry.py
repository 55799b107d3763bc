"""Value models by the kind of policy whose towers they have."""

from sop_jax.models.compact import CompactConfig
from sop_jax.models.value.compact import CompactValue
from sop_jax.models.value.model import ValueConfig, ValueModel
from sop_jax.models.value.pi05 import Pi05Value


def create_value_model(config: ValueConfig) -> ValueModel:
    """The value model that this config describes."""
    return CompactValue(config) if isinstance(config.policy, CompactConfig) else Pi05Value(config)

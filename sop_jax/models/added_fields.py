"""Config fields that came after policies had been saved with the config.

Such a field is left out of JSON while it has its default, so that policies from before keep their fingerprints and load.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

ADDED: Mapping[str, Any] = {"added later": True}
"""Metadata of such a field: `x: int = dataclasses.field(default=0, metadata=ADDED)`."""


def may_lack(field: "dataclasses.Field[Any]") -> bool:
    """Whether JSON without this field is read as one with its default."""
    return field.metadata == ADDED

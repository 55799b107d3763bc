"""Config fields that came after policies had been saved with the config.

Such a field is left out of JSON while it has its default, so that policies from before keep their fingerprints and load.
"""

import dataclasses
from typing import Any

_MARK = "added later"


def added_field(default: Any) -> Any:
    """A dataclass field that JSON may lack."""
    return dataclasses.field(default=default, metadata={_MARK: True})


def may_lack(field: "dataclasses.Field[Any]") -> bool:
    """Whether JSON without this field is read as one with its default."""
    return field.metadata.get(_MARK, False)

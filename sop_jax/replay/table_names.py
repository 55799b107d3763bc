"""One wording for an unknown table, whoever finds out."""

import difflib
from collections.abc import Iterable

from sop_jax.specs.errors import TableNotFoundError


def table_not_found(table: str, known: Iterable[str]) -> TableNotFoundError:
    """The error to raise for `table`, with the nearest of the `known` names."""
    names = sorted(known)
    near = difflib.get_close_matches(table, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return TableNotFoundError(
        f"replay has no table {table!r}; it has {', '.join(names) or 'none'}.{hint} Add the task when the server starts."
    )

"""What can be wrong with a dataset of another project's."""

import reprlib

from sop_jax.specs.errors import SopError


class InvalidDatasetError(SopError):
    """A dataset, or one episode of it, breaks its own format or doesn't fit the mapping; nothing of it was stored."""


def refuse(where: str, what: str, *, expected: object, got: object, fix: str) -> InvalidDatasetError:
    """The error to raise: where, what is wrong, expected, got, likely fix. `got` comes from outside and is cut short."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    short.maxlist = short.maxtuple = short.maxdict = 8
    return InvalidDatasetError(f"{where}: {what}: expected {expected}, got {short.repr(got)}. {fix}")

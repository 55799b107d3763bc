"""Builds the one error that this station raises about an episode's contents."""

import reprlib

from sop_jax.specs.errors import InvalidEpisodeError


class _ShortRepr(reprlib.Repr):
    """Bounded in length and depth, so that quoting hostile values can't fail or fill a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlist = self.maxtuple = self.maxdict = 8


def reject(where: str, what: str, *, expected: object, got: object, fix: str) -> InvalidEpisodeError:
    """The error to raise: which episode, what is wrong, expected, got, likely fix.

    `got` comes from outside, so it is quoted and cut short; `expected` is ours and is printed as it is.
    """
    return InvalidEpisodeError(
        f"episode {where or '(in memory)'}: {what}: expected {expected}, got {_ShortRepr().repr(got)}. {fix}"
    )

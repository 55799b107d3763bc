"""What a robot, or a person beside it, has to say about single frames."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sop_jax.specs.records import EpisodeMark


@runtime_checkable
class MakesMarks(Protocol):
    """A robot that notes what is worth knowing: limits that were hit, holds, faults, stages that people marked."""

    def take_marks(self) -> Sequence[EpisodeMark]:
        """Those of this episode that were not taken yet. Frames count from the reset."""
        ...

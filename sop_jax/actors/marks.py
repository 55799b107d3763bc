"""What a robot, or a person beside it, has to say about single frames, and hears of the episode's end."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sop_jax.specs.records import EpisodeEnd, EpisodeMark


@runtime_checkable
class MakesMarks(Protocol):
    """A robot that notes what is worth knowing: limits that were hit, holds, faults, stages that people marked."""

    def take_marks(self) -> Sequence[EpisodeMark]:
        """Those of this episode that were not taken yet. Frames count from the reset."""
        ...


@runtime_checkable
class HearsEnd(Protocol):
    """A robot that does something at the end of an episode: holds, reports, tells people.

    Its own `check_end` knows only ends that it found itself. Frames run out, a stop or a bad action are found by the loop.
    """

    def told_end(self, end: EpisodeEnd) -> None:
        """How the episode ended, whoever found it: said once, when its last frame is over, before anything is waited for. An
        end that the robot gave itself changes nothing."""
        ...


def tell_end(robot: object, end: EpisodeEnd) -> None:
    """Tells a robot that wants to know."""
    if isinstance(robot, HearsEnd):
        robot.told_end(end)

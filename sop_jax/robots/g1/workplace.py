"""The robot's surroundings, as far as an episode needs them: who sets the scene, and who says how it ended."""

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from sop_jax.specs.records import EpisodeEnd


@runtime_checkable
class Workplace(Protocol):
    """Where one task is done.

    workplace.prepare(seed)         # blocks until the scene is set; a person may need minutes
    workplace.verdict()             # how the episode ended; None while it hasn't
    """

    @property
    def task(self) -> str: ...

    @property
    def instruction(self) -> str: ...

    def prepare(self, seed: int) -> None: ...

    def verdict(self) -> EpisodeEnd | None: ...


class AttendedWorkplace:
    """Implements `Workplace` with a person: `set_scene(seed)` blocks until they have set it, `mark` is their judgement."""

    def __init__(self, task: str, instruction: str, set_scene: Callable[[int], None]):
        self._task = task
        self._instruction = instruction
        self._set_scene = set_scene
        self._lock = threading.Lock()
        self._end: EpisodeEnd | None = None

    @property
    def task(self) -> str:
        return self._task

    @property
    def instruction(self) -> str:
        return self._instruction

    def prepare(self, seed: int) -> None:
        self._set_scene(seed)
        with self._lock:
            self._end = None

    def mark(self, end: EpisodeEnd) -> None:
        """Ends the episode, from any thread; the first judgement counts."""
        with self._lock:
            self._end = self._end or end

    def verdict(self) -> EpisodeEnd | None:
        with self._lock:
            return self._end


class JudgedWorkplace:
    """Implements `Workplace` over another one, whose episodes a person may end before it does."""

    def __init__(self, workplace: Workplace):
        self._workplace = workplace
        self._end: EpisodeEnd | None = None

    @property
    def task(self) -> str:
        return self._workplace.task

    @property
    def instruction(self) -> str:
        return self._workplace.instruction

    def prepare(self, seed: int) -> None:
        self._workplace.prepare(seed)
        self._end = None

    def mark(self, end: EpisodeEnd) -> None:
        """Ends the episode, from any thread; the first judgement counts."""
        self._end = self._end or end

    def verdict(self) -> EpisodeEnd | None:
        return self._end or self._workplace.verdict()

"""Every limit breach and fault as a mark of the episode, and as an event of the metrics.

Events carry the episode's start and the frame, by which they join the manifest (`started_ns`) and the "episode_end" event. A
breach that goes on over several commands is one event; the counts are in the episode's "g1_episode" event.
"""

import collections
from collections.abc import Sequence

from sop_jax.robots.g1.safety import Breach
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import EpisodeMark

_MAX_WAITING = 1000


class SafetyLog:
    """Writes "g1_breach" (kind, amount, where), "g1_fault" (kind, reason) and "g1_hold" events, and keeps them as marks
    "breach", "fault" and "hold" until they are taken. Not thread-safe, but for `take_marks`.
    """

    def __init__(self, metrics: Metrics):
        self._metrics = metrics
        self._started_ns = 0
        self._active: set[str] = set()
        self._counts: collections.Counter[str] = collections.Counter()
        self._marks: collections.deque[EpisodeMark] = collections.deque(maxlen=_MAX_WAITING)

    @property
    def counts(self) -> dict[str, int]:
        """Commands of this episode that breached a limit, by kind of limit."""
        return dict(self._counts)

    def reset(self, started_ns: int) -> None:
        self._started_ns = started_ns
        self._active.clear()
        self._counts.clear()
        self._marks.clear()

    def start_at(self, started_ns: int) -> None:
        """The episode's first frame is at this time."""
        self._started_ns = started_ns

    def note(self, frame: int, breaches: Sequence[Breach]) -> None:
        """What one command breached."""
        kinds = {breach.kind for breach in breaches}
        self._counts.update(kinds)
        for breach in breaches:
            if breach.kind not in self._active:
                self._active.add(breach.kind)
                self.write("g1_breach", frame, kind=breach.kind, amount=breach.amount, where=breach.where)
        self._active &= kinds

    def write(self, event: str, frame: int, **values: float | int | bool | str) -> None:
        note = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values.values())
        self._marks.append(EpisodeMark(frame, event.removeprefix("g1_"), note))
        self._metrics.write(event, episode_started_ns=self._started_ns, frame=frame, **values)

    def take_marks(self) -> list[EpisodeMark]:
        """Those since the last time."""
        return [self._marks.popleft() for _ in range(len(self._marks))]

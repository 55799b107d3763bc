"""Every limit breach and fault as an event of the episode.

The manifest has no place for them (its fields are fixed, and a new one would need a new schema version), so they go to the
metrics: each with the episode's start and its frame, by which they join the manifest (`started_ns`) and the "episode_end"
event. A breach that goes on over several commands is one event; the counts are in the episode's "g1_episode" event.
"""

import collections
from collections.abc import Sequence

from sop_jax.robots.g1.safety import Breach
from sop_jax.specs.interfaces import Metrics


class SafetyLog:
    """Writes "g1_breach" (kind, amount, where), "g1_fault" (kind, reason) and "g1_hold" events. Not thread-safe."""

    def __init__(self, metrics: Metrics):
        self._metrics = metrics
        self._started_ns = 0
        self._active: set[str] = set()
        self._counts: collections.Counter[str] = collections.Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Commands of this episode that breached a limit, by kind of limit."""
        return dict(self._counts)

    def reset(self, started_ns: int) -> None:
        self._started_ns = started_ns
        self._active.clear()
        self._counts.clear()

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
        self._metrics.write(event, episode_started_ns=self._started_ns, frame=frame, **values)

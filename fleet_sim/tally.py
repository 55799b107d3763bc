"""Sums of what a fleet's dynamics did, from the end of the warm-up on."""

import collections
import dataclasses
import math

from fleet_sim.deployment import Deployment
from fleet_sim.planning import Figures

_DAY_S = 86_400


@dataclasses.dataclass(frozen=True)
class DynamicsResult:
    """What happened in the measured stretch.

    figures: those that a plan predicts; what never happened (no upload arrived, nobody asked) is nan.
    num_episodes, num_successes, num_lost: ended; ended well; lost because nobody came in time.
    help_minutes: of people at robots, reaction included.
    backlog: episodes that had not reached the replay at the end, uploads and intake together.
    num_publications: made. robot_s: robots times the time they were there.
    """

    figures: Figures
    num_episodes: int
    num_successes: int
    num_lost: int
    help_minutes: float
    backlog: int
    num_publications: int
    robot_s: float
    stored_bytes_per_day: float
    fetched_bytes_per_day: float

    @property
    def successes_per_operator_minute(self) -> float | None:
        """Return on human effort (after Fleet-DAgger's metric): the fleet's successes per minute of people at robots."""
        return self.num_successes / self.help_minutes if self.help_minutes else None

    @property
    def successes_per_robot_hour(self) -> float:
        return self.num_successes / (self.robot_s / 3600)


class Tally:
    """Counts and sums by name, of what is noted from `begins_s` on."""

    def __init__(self, begins_s: float):
        self._begins_s = begins_s
        self._sums: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._counts: collections.Counter[str] = collections.Counter()

    def note(self, now_s: float, name: str, value: float = 1.0) -> None:
        """Something happened at `now_s`."""
        if now_s >= self._begins_s:
            self._sums[name] += value
            self._counts[name] += 1

    def note_span(self, from_s: float, until_s: float, name: str) -> None:
        """Something lasted; the part after the warm-up counts."""
        self._sums[name] += max(0.0, until_s - max(from_s, self._begins_s))

    def total(self, name: str) -> float:
        return self._sums[name]

    def mean(self, name: str) -> float:
        return self._sums[name] / self._counts[name] if self._counts[name] else math.nan

    def result(self, deployment: Deployment, measured_s: float, backlog: int) -> DynamicsResult:
        """Everything so far. measured_s: from the end of the warm-up."""
        per_hour, robot_s = 3600 / measured_s, self.total("present_s")
        people_s = deployment.operators.num_operators * measured_s
        figures = Figures(
            episodes_per_hour=self.total("episode") * per_hour,
            delivered_per_hour=self.total("delivered") * per_hour,
            moving_share=self.total("moving_s") / robot_s if robot_s else math.nan,
            upload_s=self.mean("upload_s"),
            intake_s=self.mean("intake_s"),
            fan_out_s=self.mean("fan_out_s"),
            weights_age_s=self.mean("age_s"),
            versions_behind=self.mean("behind"),
            operator_wait_s=self.mean("wait_s"),
            operator_load=self.total("people_s") / people_s,
        )
        return DynamicsResult(
            figures=figures,
            num_episodes=round(self.total("episode")),
            num_successes=round(self.total("success")),
            num_lost=round(self.total("lost")),
            help_minutes=self.total("people_s") / 60,
            backlog=backlog,
            num_publications=round(self.total("publication")),
            robot_s=robot_s,
            stored_bytes_per_day=self.total("stored_bytes") * _DAY_S / measured_s,
            fetched_bytes_per_day=self.total("fetched_bytes") * _DAY_S / measured_s,
        )

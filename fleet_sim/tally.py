"""Sums of what a fleet's dynamics did, in the stretches of time that are measured."""

import collections
import dataclasses
import functools
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
        """The fleet's successes per minute of people at robots; None if nobody was there.

        Fleet-DAgger's return on human effort (Hoque et al. 2022, arXiv 2206.14349) is what a robot gains on average over what
        a person spends on average: with M people and N robots M/N times this, which is the plain ratio of the sums.
        """
        return self.num_successes / self.help_minutes if self.help_minutes else None

    @property
    def successes_per_robot_hour(self) -> float:
        return self.num_successes / (self.robot_s / 3600)


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """Something that lasts since `from_s`."""

    name: str
    from_s: float


class Tally:
    """Counts and sums by name, in measured stretches.

    tally.begin(now_s)
    tally.note(now_s, "episode")
    span = tally.open(now_s, "moving_s")
    tally.close(now_s, span)
    tally.end(now_s)
    """

    def __init__(self) -> None:
        self._stretches: list[tuple[float, float]] = []  # from, until
        self._sums: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._counts: collections.Counter[str] = collections.Counter()
        self._spans: set[Span] = set()

    def begin(self, now_s: float) -> None:
        """From now on it counts."""
        self._stretches.append((now_s, math.inf))

    def end(self, now_s: float) -> None:
        """From now on nothing counts, until it begins again."""
        self._stretches[-1] = (self._stretches[-1][0], now_s)

    def measured_s(self, now_s: float) -> float:
        return self._overlap_s(0.0, now_s)

    def note(self, now_s: float, name: str, value: float = 1.0) -> None:
        """Something happened at `now_s`."""
        if any(from_s <= now_s < until_s for from_s, until_s in self._stretches):
            self._sums[name] += value
            self._counts[name] += 1

    def open(self, now_s: float, name: str) -> Span:
        """Something begins to last. What is still open when the sums are asked for counts as far as it has come."""
        span = Span(name, now_s)
        self._spans.add(span)
        return span

    def close(self, now_s: float, span: Span) -> None:
        """It is over."""
        self._spans.remove(span)
        self._sums[span.name] += self._overlap_s(span.from_s, now_s)

    def _overlap_s(self, from_s: float, until_s: float) -> float:
        return sum(max(0.0, min(until_s, end_s) - max(from_s, begin_s)) for begin_s, end_s in self._stretches)

    def total(self, now_s: float, name: str) -> float:
        """Sum of the values, or of the lengths; with what is open."""
        return self._sums[name] + sum(self._overlap_s(s.from_s, now_s) for s in self._spans if s.name == name)

    def mean(self, name: str) -> float:
        return self._sums[name] / self._counts[name] if self._counts[name] else math.nan

    def result(self, deployment: Deployment, now_s: float, robot_s: float, backlog: int) -> DynamicsResult:
        """Everything so far. robot_s: robots times the time they were there, in what is measured."""
        measured_s = self.measured_s(now_s)
        per_hour, total = 3600 / measured_s, functools.partial(self.total, now_s)
        people_s = deployment.operators.num_operators * measured_s
        figures = Figures(
            episodes_per_hour=total("episode") * per_hour,
            delivered_per_hour=total("delivered") * per_hour,
            moving_share=total("moving_s") / robot_s if robot_s else math.nan,
            upload_s=self.mean("upload_s"),
            intake_s=self.mean("intake_s"),
            fan_out_s=self.mean("fan_out_s"),
            weights_age_s=self.mean("age_s"),
            versions_behind=self.mean("behind"),
            operator_wait_s=self.mean("wait_s"),
            operator_load=total("people_s") / people_s,
        )
        return DynamicsResult(
            figures=figures,
            num_episodes=round(total("episode")),
            num_successes=round(total("success")),
            num_lost=round(total("lost")),
            help_minutes=total("people_s") / 60,
            backlog=backlog,
            num_publications=round(total("publication")),
            robot_s=robot_s,
            stored_bytes_per_day=total("stored_bytes") * _DAY_S / measured_s,
            fetched_bytes_per_day=total("fetched_bytes") * _DAY_S / measured_s,
        )

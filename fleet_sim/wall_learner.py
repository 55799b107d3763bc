"""A learner on wall time at a given speed: `python -m fleet_sim.wall_learner SETTINGS` (`LearnerSettings` as JSON).

    it:   fill the replay server with demonstrations, take `warm_steps` (which compiles), publish  ->  "ready"
    you:  a `WallOrder`
    it:   a step every 1 / steps_per_s once online data are there, publications every k steps, until then or until SIGTERM
    you:  "finish": the robots are done
    it:   take in what is left                                                                     ->  a `LearnerReport`

The steps' times are planned, so that a machine that is late catches up.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from fleet_sim.config import SimulatedFleetConfig, TimingConfig
from fleet_sim.learning_side import LearningSide
from fleet_sim.told_to_stop import told_to_stop
from fleet_sim.wall_processes import WallOrder, hear, serve_until_stopped
from sop_jax.actors.rollout import never
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.learner.config import LearnerConfig
from sop_jax.models.bundle import load_bundle
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.clock import Clock, WallClock
from sop_jax.specs.metrics import NoMetrics


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """What the learner needs to know: the base policy's directory, the store, the replay server, and how it learns."""

    bundle: str
    store: str
    replay: str
    robots: dict[str, int]
    steps_per_s: float
    batch_size: int
    publish_every: int
    warm_steps: int
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class LearnerReport:
    """What it did: publications as (version, learner step, seconds after the start), and how late steps were.

    num_settled: episodes that intake has dealt with, demonstrations included. num_inserted: of these, in the tables.
    """

    publications: tuple[tuple[int, int, float], ...]
    num_steps: int
    online_share: float
    began_s: float
    max_late_s: float
    num_settled: int = 0
    num_inserted: int = 0

    @staticmethod
    def from_json(values: dict[str, Any]) -> "LearnerReport":
        return LearnerReport(**{**values, "publications": tuple(tuple(made) for made in values["publications"])})


def fleet_config(settings: LearnerSettings, timing: TimingConfig) -> SimulatedFleetConfig:
    """The fleet that both clocks run."""
    return SimulatedFleetConfig(
        robots=settings.robots,
        algorithm=HgDaggerConfig(),
        seed=settings.seed,
        timing=timing,
        learner=LearnerConfig(batch_size=settings.batch_size, publish_every=settings.publish_every),
        loader=LoaderConfig(batch_size=settings.batch_size),
    )


class WallLearner:
    """Learns at the settings' speed.

    learner.warm_up()
    report = learner.run(start_ns, duration_s)      # or learner.run(..., should_stop)
    report = learner.finish(report)                 # the robots are done
    """

    def __init__(self, settings: LearnerSettings, learning: LearningSide, clock: Clock):
        self._settings, self._learning, self._clock = settings, learning, clock
        self._publications: list[tuple[int, int, float]] = []

    def warm_up(self) -> None:
        """Steps on what the store holds, then a publication."""
        self._learning.take_in_stored()
        for step in range(self._settings.warm_steps):
            self._learning.step(fetch_ahead=step + 1 < self._settings.warm_steps)
        self._learning.publish()

    def run(self, start_ns: int, duration_s: float, should_stop: Callable[[], bool] = never) -> LearnerReport:
        """Blocks until the end of that time, or until told to stop."""
        period_s, late_s, began_s = 1 / self._settings.steps_per_s, 0.0, float("nan")
        for tick in range(1, int(duration_s / period_s)):
            early_s = start_ns / 1e9 + tick * period_s - self._clock.now_ns() / 1e9
            late_s = max(late_s, -early_s)
            self._clock.sleep_s(max(0.0, early_s))
            if should_stop():
                break
            self._learning.take_in_stored()
            if not self._learning.is_ready():
                continue
            now_s = (self._clock.now_ns() - start_ns) / 1e9
            began_s = now_s if began_s != began_s else began_s
            before = self._learning.last_version
            self._learning.step(fetch_ahead=False)
            if self._learning.last_version > before:
                made_s = (self._clock.now_ns() - start_ns) / 1e9
                self._publications.append((self._learning.last_version, self._learning.num_steps, made_s))
        return LearnerReport(
            tuple(self._publications), self._learning.num_steps, self._learning.online_share(), began_s, late_s
        )

    def finish(self, report: LearnerReport) -> LearnerReport:
        """Takes in what came last."""
        self._learning.take_in_stored()
        total = self._learning.intake_total
        settled = total.inserted + total.untrainable + total.empty
        return dataclasses.replace(report, num_settled=settled, num_inserted=total.inserted)


def main(text: str) -> None:
    should_stop = told_to_stop()
    settings = LearnerSettings(**json.loads(text))
    clock = WallClock()
    config = fleet_config(settings, TimingConfig())
    learning = LearningSide(
        config, load_bundle(pathlib.Path(settings.bundle)), create_algorithm(config.algorithm), settings.store, clock,
        NoMetrics(), ReverbTables(settings.replay),
    )  # fmt: skip
    try:
        learner = WallLearner(settings, learning, clock)
        learner.warm_up()

        def work(order: WallOrder) -> LearnerReport:
            report = learner.run(order.start_ns, order.duration_s, should_stop)
            hear()
            return learner.finish(report)

        serve_until_stopped(work)
    finally:
        learning.close()


if __name__ == "__main__":
    main(sys.argv[1])

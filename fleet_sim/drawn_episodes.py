"""Episodes that are drawn, not played: how long, how often a person is asked for, and how it ends."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fleet_sim.deployment import Deployment
from fleet_sim.journal import EpisodeRecord
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class DrawnHelp:
    """One call for a person.

    help_s: how long a person will act; expected_help_s: as far as the call tells. patience_s: until the episode is lost.
    """

    help_s: float
    expected_help_s: float
    patience_s: float


@dataclasses.dataclass(frozen=True)
class DrawnEpisode:
    """policy_s: time in which the policy moves the robot; calls come at random in it. succeeds: if each call is answered."""

    policy_s: float
    helps: tuple[DrawnHelp, ...]
    succeeds: bool


class EpisodeSource(Protocol):
    """Where a robot's next episode comes from; a pure function of the generator's state."""

    def draw(self, rng: np.random.Generator) -> DrawnEpisode: ...


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far drawn values lie around a deployment's means: standard deviation over mean (gamma distributions; 0 = constant).

    episode: of the policy's time. expected_help: of what a call tells; help: of the help around that. With the defaults,
        help is spread about as an exponential.
    patience_s: mean time in which a robot can hold still before its episode is lost; inf = as long as it takes.
    success: share of the episodes, all calls answered, that succeed.
    """

    episode: float = 0.5
    expected_help: float = 0.7
    help: float = 0.6
    patience_s: float = math.inf
    success: float = 0.95

    def __post_init__(self) -> None:
        if min(self.episode, self.expected_help, self.help) < 0 or not 0 <= self.success <= 1 or self.patience_s <= 0:
            raise ConfigError(f"Spread: spreads >= 0, success in [0, 1] and patience_s above 0 are needed, got {self}")


@dataclasses.dataclass(frozen=True)
class DrawnFromMeans:
    """Gamma times and a Poisson number of calls around a deployment's means."""

    deployment: Deployment
    spread: Spread = Spread()

    def draw(self, rng: np.random.Generator) -> DrawnEpisode:
        operators = self.deployment.operators
        policy_s = self.deployment.robots.episode_s - operators.takeovers_per_episode * operators.help_s
        helps = tuple(self._help(rng) for _ in range(rng.poisson(operators.takeovers_per_episode)))
        return DrawnEpisode(draw_gamma(rng, policy_s, self.spread.episode), helps, rng.random() < self.spread.success)

    def _help(self, rng: np.random.Generator) -> DrawnHelp:
        expected_s = draw_gamma(rng, self.deployment.operators.help_s, self.spread.expected_help)
        help_s = draw_gamma(rng, expected_s, self.spread.help)
        return DrawnHelp(help_s, expected_s, draw_exponential(rng, self.spread.patience_s))


@dataclasses.dataclass(frozen=True)
class DrawnFromRecords:
    """Episodes of a journal (a run with learning, or a real fleet's), drawn again with equal chances.

    A record keeps the sum of its help: its calls share it evenly.
    """

    records: Sequence[EpisodeRecord]
    patience_s: float = math.inf

    def __post_init__(self) -> None:
        if not self.records:
            raise ConfigError("DrawnFromRecords needs at least one record, got none")

    def draw(self, rng: np.random.Generator) -> DrawnEpisode:
        record = self.records[int(rng.integers(len(self.records)))]
        each_s = record.human_s / max(1, record.num_takeovers)
        helps = tuple(
            DrawnHelp(each_s, each_s, draw_exponential(rng, self.patience_s)) for _ in range(record.num_takeovers)
        )
        policy_s = max(0.0, record.ended_s - record.started_s - record.human_s - record.waited_s)
        return DrawnEpisode(policy_s, helps, record.outcome == "success")


def draw_gamma(rng: np.random.Generator, mean: float, spread: float) -> float:
    """Mean and standard deviation over mean; spread 0 gives the mean."""
    return mean if spread == 0 or mean == 0 else float(rng.gamma(1 / spread**2, mean * spread**2))


def draw_exponential(rng: np.random.Generator, mean: float) -> float:
    return math.inf if math.isinf(mean) else float(rng.exponential(mean))

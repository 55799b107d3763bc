"""How far two journals of the same fleet lie apart: what virtual time predicted, and what wall time showed."""

import dataclasses
import math

import numpy as np

from fleet_sim.journal import Journal


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Second minus first.

    episodes: relative to the first. publications, learner_steps: counts. staleness_ks: largest distance of the two
    distributions of the acting weights' age (Kolmogorov-Smirnov; 0 = alike, 1 = apart). median_staleness_s: of medians.
    online_share: of examples. What one of them lacks is nan.
    """

    episodes: float
    publications: int
    staleness_ks: float
    median_staleness_s: float
    online_share: float
    learner_steps: int


def compare_journals(first: Journal, second: Journal) -> Agreement:
    """Of two journals of equal length. Raises ValueError if the first has no episode."""
    if not first.episodes:
        raise ValueError("there is nothing to compare with: the first journal has no episode")
    ages = [_ages(journal) for journal in (first, second)]
    medians = [float(np.median(found)) if len(found) else math.nan for found in ages]
    return Agreement(
        episodes=len(second.episodes) / len(first.episodes) - 1,
        publications=len(second.publications) - len(first.publications),
        staleness_ks=_distance(*ages),
        median_staleness_s=medians[1] - medians[0],
        online_share=second.online_share - first.online_share,
        learner_steps=second.learner_steps - first.learner_steps,
    )


def _ages(journal: Journal) -> np.ndarray:
    """Sorted, float64 [episodes in which a policy acted]."""
    return np.sort([episode.staleness_s for episode in journal.episodes if episode.staleness_s is not None])


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    if not len(first) or not len(second):
        return math.nan
    at = np.concatenate([first, second])
    shares = [np.searchsorted(ages, at, side="right") / len(ages) for ages in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())

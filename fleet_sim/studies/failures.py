"""How trials failed and how far they had come: counted for a method, and several methods' side by side."""

import collections
from collections.abc import Iterable, Mapping, Sequence

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.results import failure_of

Failures = Mapping[str, Mapping[str, int]]
"""Furthest stage reached ("": not known) -> kind of failure -> number of trials."""


def count_failures(trials: Iterable[TrialResult], order: Sequence[str]) -> dict[str, dict[str, int]]:
    """Stages that occur, in this order, those that it lacks last; of each the most frequent kind first."""
    counted = collections.Counter((trial.furthest_stage, failure_of(trial)) for trial in trials if not trial.success)
    found: dict[str, dict[str, int]] = {}
    for stage, kind in sorted(counted, key=lambda pair: (_place(pair[0], order), -counted[pair], pair[1])):
        found.setdefault(stage, {})[kind] = counted[stage, kind]
    return found


def ways_in(several: Sequence[Failures], order: Sequence[str]) -> list[tuple[str, str]]:
    """All (stage, kind) that occur in any of these, by stage in this order, then the most frequent kind first."""
    total = collections.Counter[tuple[str, str]]()
    for failures in several:
        total.update({(stage, kind): number for stage, kinds in failures.items() for kind, number in kinds.items()})
    return sorted(total, key=lambda way: (_place(way[0], order), -total[way], way[1]))


def _place(stage: str, order: Sequence[str]) -> tuple[int, bool, str]:
    """To sort by. Stages that the order lacks come by name, what isn't known after all."""
    return (order.index(stage) if stage in order else len(order), not stage, stage)

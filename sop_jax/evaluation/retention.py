"""Forgetting: what a policy could do before it was trained on something else, and can't do after."""

import dataclasses
from collections.abc import Mapping, Sequence

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.paired import PairCounts, PairedComparison, compare_counts, count_pairs
from sop_jax.evaluation.statistics import Interval


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Success before minus after, in points of 1: positive = forgotten, with a 95% interval over paired trials.

    before, after: success rates. p_value: McNemar's exact test of no change.
    """

    label: str
    num_trials: int
    before: float
    after: float
    forgotten: Interval
    p_value: float


def forgetting(
    before: Mapping[str, Sequence[TrialResult]], after: Mapping[str, Sequence[TrialResult]]
) -> tuple[Forgetting, ...]:
    """Per world of a retention suite (see `suites`), and all its pairs together as "all", last.

    Raises ValueError: the worlds or their seeds differ.
    """
    if not before or before.keys() != after.keys():
        raise ValueError(f"expected the same worlds before and after, got {sorted(before)} and {sorted(after)}")
    # Second minus first is the rise: with "after" first, it is what was lost.
    counts = {label: count_pairs(after[label], before[label]) for label in before}
    totals = PairCounts(*(sum(column) for column in zip(*map(dataclasses.astuple, counts.values()), strict=True)))
    return tuple(_tell(label, compare_counts(pairs)) for label, pairs in {**counts, "all": totals}.items())


def _tell(label: str, pair: PairedComparison) -> Forgetting:
    return Forgetting(label, pair.counts.total, pair.second, pair.first, pair.difference, pair.p_value)

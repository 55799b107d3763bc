"""Two evaluations' output folders beside each other: their trials in pairs. Reads only.

Trials are pairs if they are the same ones: equal worlds, of equal versions, and equal seeds. Whatever else differs (weights,
what the policy is told, how it acts) is what is compared.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.paired import PairCounts, PairedComparison, compare_counts, count_pairs
from sop_jax.evaluation.seeds import FIRST_EVALUATION_SEED, FIRST_SELECTION_SEED, MAX_TRIALS
from sop_jax.evaluation.trial_log import read_trials
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError

ALL = "all"
"""The label of all worlds' pairs together."""


class UnpairedError(ConfigError):
    """Two evaluations whose trials aren't the same."""


@dataclasses.dataclass(frozen=True)
class FoundTrials:
    """What lies in the output folder of an evaluation, by label: headers, and trials in the order of their seeds."""

    folder: pathlib.Path
    headers: Mapping[str, Mapping[str, Any]]
    trials: Mapping[str, tuple[TrialResult, ...]]

    @property
    def actor(self) -> str:
        """Who acted, in words: of the first world, for all have the same."""
        header = next(iter(self.headers.values()))
        candidate = header.get("candidate", {})
        if candidate.get("is_expert"):
            return "the expert"
        told = Conditioning(**candidate.get("conditioning", {}))
        return f"version {header.get('policy_version')} of base {header.get('base')}, told {told.describe()}"


def read_folder(folder: pathlib.Path) -> FoundTrials:
    """What `sop eval --output FOLDER` has left, or leaves. Raises ConfigError: no evaluation, or a damaged one."""
    headers, trials = {}, {}
    for path in sorted((folder / "trials").glob("*.jsonl")):
        header, found = read_trials(path)
        if header is not None and found:
            headers[path.stem] = header
            trials[path.stem] = tuple(found[seed] for seed in sorted(found))
    if not trials:
        raise ConfigError(
            f"{folder} holds no trials: expected what `sop eval --output {folder}` leaves, trials/TASK.jsonl"
        )
    return FoundTrials(folder, headers, trials)


def compare_folders(first: FoundTrials, second: FoundTrials) -> dict[str, PairedComparison]:
    """Second minus first by label, and of several worlds all pairs together as "all", last.

    Raises:
        UnpairedError: naming what differs.
    """
    check_pairs(first, second)
    counts = {label: count_pairs(first.trials[label], second.trials[label]) for label in first.trials}
    if len(counts) > 1:
        columns = zip(*map(dataclasses.astuple, counts.values()), strict=True)
        counts = {**counts, ALL: PairCounts(*map(sum, columns))}
    return {label: compare_counts(pairs) for label, pairs in counts.items()}


def check_pairs(first: FoundTrials, second: FoundTrials) -> None:
    """Raises UnpairedError unless both hold the same trials."""
    if first.trials.keys() != second.trials.keys():
        raise UnpairedError(
            f"{first.folder} has the worlds {', '.join(first.trials)}, {second.folder} has {', '.join(second.trials)}: "
            "only evaluations of the same tasks can be compared. Evaluate both with the same --task, --tasks or --suite"
        )
    for label in first.trials:
        for name, what, fix in (
            ("world", "worlds", "evaluate both with the same scene and --image-size"),
            ("world_version", "versions of the world", "evaluate both with the same sop-jax"),
        ):
            one, two = first.headers[label].get(name), second.headers[label].get(name)
            if one != two:
                raise UnpairedError(
                    f"{label}: the {what} differ ({_difference(one, two)}), so trials aren't pairs: {fix}"
                )
        seeds = [{trial.seed for trial in found.trials[label]} for found in (first, second)]
        if seeds[0] != seeds[1]:
            told = [f"{found.folder} has {_seeds_in_words(found.trials[label])}" for found in (first, second)]
            raise UnpairedError(
                f"{label}: {told[0]}, {told[1]}: only equal trials are pairs. Evaluate both with the same --seed, --trials "
                "and --selection; the same command goes on where it was stopped"
            )


def _difference(one: Any, two: Any) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
        return "; ".join(f"{name}: {one.get(name)} and {two.get(name)}" for name in names)
    return f"{one} and {two}"


def _seeds_in_words(trials: tuple[TrialResult, ...]) -> str:
    first = trials[0].seed
    for_selection = first >= FIRST_SELECTION_SEED
    start = FIRST_SELECTION_SEED if for_selection else FIRST_EVALUATION_SEED
    return f"{len(trials)} {'selection ' * for_selection}trials of seed {(first - start) // MAX_TRIALS}"

"""What an evaluation found: its trials summed up, with intervals. Plain numbers, so that they fit JSON."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sop_jax.actors.episode import TrialResult
from sop_jax.evaluation.statistics import wilson_interval
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError

RESET_S = 10.0
"""Time to set the scene up again between two episodes of a real robot [s]: what a person needs to clear the shelf and lay out
the next items. Simulated resets take no time, so successes per hour would flatter the simulation without it."""


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """A policy's trials on one task, summed up.

    policy: who acted: "expert", or the weights' name. policy_version and base (fingerprint) say which weights.
    condition: what it was told after the instruction, "" = nothing; beta: the scale of guidance towards it.
    seed: the evaluation's seed; trials are a pure function of (weights, seed).
    success, success_low, success_high: share of successes and its 95% Wilson interval.
    successes_per_hour: successes per hour of robot time, `reset_s` after every episode included.
    throughput_per_hour: episodes ended per hour (success, failure or timeout) of policy execution time only, the paper's
        figure; it counts quick failures too.
    failures: kind -> number of trials that ended so. failure_stages: the furthest stage that they came to -> kind -> number,
        in the order in which stages are passed; empty on robots that don't know their stage.
    mean_duration_s, mean_success_duration_s: robot time of an episode, and of a successful one (0 if there is none).
    """

    task: str
    policy: str
    policy_version: int
    base: str
    seed: int
    num_trials: int
    num_successes: int
    success: float
    success_low: float
    success_high: float
    successes_per_hour: float
    throughput_per_hour: float
    reset_s: float
    mean_duration_s: float
    mean_success_duration_s: float
    failures: Mapping[str, int]
    failure_stages: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    condition: str = ""
    beta: float = 1.0

    @property
    def counts(self) -> tuple[int, int]:
        """(successes, trials)."""
        return self.num_successes, self.num_trials

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(self.condition, self.beta)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "EvaluationResult":
        """Reads what `dataclasses.asdict` wrote; fields that this version doesn't know are ignored. Raises ConfigError."""
        names = {field.name for field in dataclasses.fields(EvaluationResult)}
        try:
            return EvaluationResult(**{name: value for name, value in values.items() if name in names})
        except TypeError as error:
            raise ConfigError(f"stored evaluation result is incomplete: {error}. Evaluate again.") from None


@dataclasses.dataclass(frozen=True)
class Subject:
    """Who is evaluated, for the record. `stages`: the task's, in the order in which they are passed; () = not known."""

    task: str
    policy: str
    policy_version: int = -1
    base: str = ""
    stages: tuple[str, ...] = ()
    conditioning: Conditioning = dataclasses.field(default_factory=Conditioning)


def summarise(subject: Subject, trials: Sequence[TrialResult], seed: int, reset_s: float = RESET_S) -> EvaluationResult:
    """Sums up trials, whatever their order."""
    successes = [trial for trial in trials if trial.success]
    interval = wilson_interval(len(successes), len(trials))
    acting_s = sum(trial.duration_s for trial in trials)
    total_s = acting_s + reset_s * len(trials)
    failed = [trial for trial in trials if not trial.success]
    return EvaluationResult(
        task=subject.task,
        policy=subject.policy,
        policy_version=subject.policy_version,
        base=subject.base,
        seed=seed,
        num_trials=len(trials),
        num_successes=len(successes),
        success=interval.value,
        success_low=interval.low,
        success_high=interval.high,
        successes_per_hour=3600 * len(successes) / total_s if total_s > 0 else 0.0,
        throughput_per_hour=3600 * len(trials) / acting_s if acting_s > 0 else 0.0,
        reset_s=reset_s,
        mean_duration_s=acting_s / len(trials) if trials else 0.0,
        mean_success_duration_s=sum(t.duration_s for t in successes) / len(successes) if successes else 0.0,
        failures=_count(failed),
        failure_stages=_by_stage(failed, subject.stages),
        condition=subject.conditioning.suffix,
        beta=subject.conditioning.guidance,
    )


def failure_of(trial: TrialResult) -> str:
    """The kind of a failed trial; its outcome if it has none."""
    return trial.failure_kind or trial.outcome.value


def _count(failed: Sequence[TrialResult]) -> dict[str, int]:
    """Kinds, the most frequent first."""
    kinds = collections.Counter(failure_of(trial) for trial in failed)
    return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))


def _by_stage(failed: Sequence[TrialResult], order: Sequence[str]) -> dict[str, dict[str, int]]:
    """Stages that occur, in order; those that the order lacks come last, by name."""
    reached = {trial.furthest_stage for trial in failed if trial.furthest_stage}
    stages = [*(stage for stage in order if stage in reached), *sorted(reached.difference(order))]
    return {stage: _count([trial for trial in failed if trial.furthest_stage == stage]) for stage in stages}

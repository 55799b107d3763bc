"""Success rates of a policy or of the scripted expert in one world or several: N trials each on reserved seeds, on several
processes, several side by side in each, and from where an earlier call has left off."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sop_jax.actors.episode import TrialResult
from sop_jax.actors.rollout import RolloutConfig, never
from sop_jax.evaluation.results import RESET_S, EvaluationResult, Subject, summarise
from sop_jax.evaluation.seeds import selection_seeds, trial_seeds
from sop_jax.evaluation.trial_book import TrialBook
from sop_jax.evaluation.trial_pool import ask_identity, num_usable_cores, run_trials
from sop_jax.evaluation.trials import TrialJob
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.errors import ConfigError

SIDE_BY_SIDE = 4
"""Trials that a worker runs at once: the rows of each of its policy calls. Another number can change a chunk's last bits."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Who acts.

    bundle: directory of the base policy; "" = the scripted expert. store: root of the store that holds the publications.
    version: which publication; 0 = the base policy itself, which needs no store.
    conditioning: what the policy is told beside its observation.
    """

    bundle: str = ""
    store: str = ""
    version: int = 0
    conditioning: Conditioning = dataclasses.field(default_factory=Conditioning)

    def __post_init__(self) -> None:
        if self.version < 0 or (self.version > 0 and not (self.bundle and self.store)):
            raise ConfigError(f"a published version needs a base bundle and a store, got {self}")

    @property
    def is_expert(self) -> bool:
        return not self.bundle

    @property
    def name(self) -> str:
        """Short, and without the machine's paths: it goes into reports."""
        if self.is_expert:
            return "expert"
        base = pathlib.PurePath(self.bundle).name
        return f"{base}, version {self.version}" if self.version else base


@dataclasses.dataclass(frozen=True)
class WorkerTask:
    """What a worker process is told. JSON on its command line."""

    candidate: Candidate
    worlds: tuple[WorldConfig, ...]
    rollout: RolloutConfig
    side_by_side: int = SIDE_BY_SIDE

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "WorkerTask":
        values = json.loads(text)
        worlds = tuple(WorldConfig(**world) for world in values["worlds"])
        candidate = {**values["candidate"], "conditioning": Conditioning(**values["candidate"]["conditioning"])}
        return WorkerTask(
            Candidate(**candidate), worlds, RolloutConfig.from_dict(values["rollout"]), int(values["side_by_side"])
        )


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What was found in one world: the trials in the order of their seeds, and what they come to."""

    label: str
    world: WorldConfig
    result: EvaluationResult
    trials: tuple[TrialResult, ...]


def evaluate(
    candidate: Candidate,
    world: WorldConfig,
    num_trials: int,
    seed: int = 0,
    *,
    rollout: RolloutConfig | None = None,
    num_workers: int = 0,
    reset_s: float = RESET_S,
    on_trial: Callable[[TrialResult], None] | None = None,
    should_stop: Callable[[], bool] = never,
) -> EvaluationResult:
    """As `evaluate_worlds`, in one world."""
    found = evaluate_worlds(
        candidate,
        {world.task: world},
        num_trials,
        seed,
        rollout=rollout,
        num_workers=num_workers,
        reset_s=reset_s,
        on_trial=None if on_trial is None else lambda _, trial: on_trial(trial),
        should_stop=should_stop,
    )
    return found[world.task].result


def evaluate_worlds(
    candidate: Candidate,
    worlds: Mapping[str, WorldConfig],
    num_trials: int,
    seed: int = 0,
    *,
    rollout: RolloutConfig | None = None,
    side_by_side: int = SIDE_BY_SIDE,
    num_workers: int = 0,
    reset_s: float = RESET_S,
    for_selection: bool = False,
    folder: pathlib.Path | None = None,
    on_trial: Callable[[str, TrialResult], None] | None = None,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Evaluated]:
    """Runs `num_trials` trials in each world and sums them up. Blocks; starts `num_workers` processes (0: one per core).

    A trial depends on the weights, the world, the seed and `side_by_side`, and not on the number of workers or on the
    other trials. `worlds` maps labels to worlds.

    Args:
        for_selection: use the seeds that are kept for choosing, not those for reporting (see `seeds`).
        folder: where trials are written as they end; those that are there already are not run again. Even if
            none is missing, one worker is started to tell whether they are these weights' trials.
        on_trial: called with a world's label as each trial ends, and first for those that were there already.

    Raises:
        ForeignTrialsError: the folder holds trials of another candidate, world, seed or setting.
        EvaluationFailedError, ConfigError; KeyboardInterrupt once `should_stop` says so.
    """
    if not worlds:
        raise ConfigError("nothing to evaluate: expected at least one world, got none")
    rollout = dataclasses.replace(rollout or RolloutConfig(), realtime=False)
    if candidate.is_expert:  # asked tick by tick: there is nothing to compute together
        side_by_side = 1
    task = WorkerTask(candidate, tuple(worlds.values()), rollout, side_by_side)
    seeds = (selection_seeds if for_selection else trial_seeds)(seed, num_trials)
    asked = {
        "candidate": _without_paths(candidate),
        "rollout": dataclasses.asdict(rollout),
        "side_by_side": side_by_side,
        "first_seed": seeds[0],
    }
    with TrialBook(worlds, asked, folder) as book:
        book.read(seeds)
        if on_trial is not None:
            for job, trial in book.trials.items():
                on_trial(book.labels[job.world], trial)
        _run_missing(book, task, seeds, num_workers, on_trial, should_stop)
        identity = book.identity
        found = {}
        for index, (label, world) in enumerate(worlds.items()):
            trials = tuple(book.trials[TrialJob(index, trial_seed)] for trial_seed in seeds)
            subject = Subject(
                world.task, candidate.name, identity.policy_version, identity.base, identity.stages[index],
                candidate.conditioning,
            )  # fmt: skip
            found[label] = Evaluated(label, world, summarise(subject, trials, seed, reset_s), trials)
        return found


def _run_missing(
    book: TrialBook,
    task: WorkerTask,
    seeds: Sequence[int],
    num_workers: int,
    on_trial: Callable[[str, TrialResult], None] | None,
    should_stop: Callable[[], bool],
) -> None:
    jobs = [TrialJob(world, seed) for world in range(len(task.worlds)) for seed in seeds]
    missing = [job for job in jobs if job not in book.trials]
    command = [sys.executable, "-m", "sop_jax.evaluation.worker", task.to_json()]
    if not missing:  # who made these trials must be asked all the same: the weights may be others by now
        book.claim(ask_identity(command, should_stop))
        return

    def keep(job: TrialJob, trial: TrialResult) -> None:
        book.write(job, trial)
        if on_trial is not None:
            on_trial(book.labels[job.world], trial)

    run_trials(
        command,
        missing,
        num_workers or num_usable_cores(),
        side_by_side=task.side_by_side,
        on_trial=keep,
        on_identity=book.claim,
        should_stop=should_stop,
    )


def _without_paths(candidate: Candidate) -> dict[str, Any]:
    """What of a candidate its trials depend on, beside the weights, which their fingerprints tell."""
    values = {"is_expert": candidate.is_expert, **dataclasses.asdict(candidate)}
    return {name: value for name, value in values.items() if name not in ("bundle", "store")}

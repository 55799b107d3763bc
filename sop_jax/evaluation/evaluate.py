"""Success rate of a policy or of the scripted expert on a task: N trials on reserved seeds, on several processes."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.handover import HandoverConfig
from sop_jax.actors.rollout import RolloutConfig, never
from sop_jax.evaluation.results import RESET_S, EvaluationResult, Subject, summarise
from sop_jax.evaluation.seeds import trial_seeds
from sop_jax.evaluation.trial_pool import OnTrial, num_usable_cores, run_trials
from sop_jax.evaluation.world import WorldConfig
from sop_jax.specs.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Who acts.

    bundle: directory of the base policy; "" = the scripted expert. store: root of the store that holds the publications.
    version: which publication; 0 = the base policy itself, which needs no store.
    """

    bundle: str = ""
    store: str = ""
    version: int = 0

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
    world: WorldConfig
    rollout: RolloutConfig

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "WorkerTask":
        values = json.loads(text)
        rollout = {
            **values["rollout"],
            "chunking": ChunkingConfig(**values["rollout"]["chunking"]),
            "handover": HandoverConfig(**values["rollout"]["handover"]),
        }
        return WorkerTask(Candidate(**values["candidate"]), WorldConfig(**values["world"]), RolloutConfig(**rollout))


def evaluate(
    candidate: Candidate,
    world: WorldConfig,
    num_trials: int,
    seed: int = 0,
    *,
    rollout: RolloutConfig | None = None,
    num_workers: int = 0,
    reset_s: float = RESET_S,
    on_trial: OnTrial | None = None,
    should_stop: Callable[[], bool] = never,
) -> EvaluationResult:
    """Runs the trials and sums them up. Blocks; starts `num_workers` processes (0: one per usable core).

    The result depends on the weights, the world and the seed, and not on the number of workers. `on_trial` is called as
    each trial ends. Raises EvaluationFailedError, ConfigError; KeyboardInterrupt once `should_stop` says so.
    """
    task = WorkerTask(candidate, world, dataclasses.replace(rollout or RolloutConfig(), realtime=False))
    command = [sys.executable, "-m", "sop_jax.evaluation.worker", task.to_json()]
    found = run_trials(
        command, trial_seeds(seed, num_trials), num_workers or num_usable_cores(), on_trial, should_stop=should_stop
    )
    subject = Subject(world.task, candidate.name, found.identity.policy_version, found.identity.base)
    return summarise(subject, found.trials, seed, reset_s)

"""The learner's half of a simulated fleet: tables in this process, intake, loader, learner and publisher, on virtual time."""

import dataclasses
import pathlib

from fleet_sim.config import Operation, SimulatedFleetConfig
from fleet_sim.planning import FanOut
from sop_jax.algorithms.algorithm import Algorithm, Phase, make_labeler
from sop_jax.episodes.retention import RetentionConfig, apply_plan, plan_for
from sop_jax.episodes.store import EpisodeStore
from sop_jax.learner.learner import Learner
from sop_jax.models.bundle import PolicyBundle
from sop_jax.replay.intake import Intake
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.beginning import Beginning
from sop_jax.sampling.loader import Loader
from sop_jax.specs.clock import Clock
from sop_jax.specs.interfaces import Metrics, ReplayTables
from sop_jax.specs.records import CameraSpec
from sop_jax.weights.publisher import Publisher
from sop_jax.weights.publisher import RetentionConfig as WeightsRetention


class LearningSide:
    """Takes episodes in, and makes learner steps when it is told to. Belongs to one thread."""

    def __init__(
        self,
        config: SimulatedFleetConfig,
        bundle: PolicyBundle,
        algorithm: Algorithm,
        store_url: str,
        clock: Clock,
        metrics: Metrics,
        tables: ReplayTables | None = None,
    ):
        """`tables`: a replay server's, on wall time; default: tables in this process, for virtual time."""
        self._config, self._clock = config, clock
        self.store = EpisodeStore(store_url, clock=clock)
        self._tables = tables or LocalTables(mix_tables(config.tasks, config.mix), config.seed, clock)
        model = bundle.model
        self._intake = Intake(
            self.store,
            self._tables,
            make_labeler(algorithm, model.horizon),
            clock=clock,
            metrics=metrics,
        )
        self._beginning = Beginning(algorithm, config.tasks, config.min_online_items, clock)
        size = config.world.image_size
        spec = BatchSpec(
            cameras=tuple(CameraSpec(name, size, size) for name in model.cameras),
            state_dim=model.config.state_dim,
            action_dim=model.action_dim,
            horizon=model.horizon,
        )
        sampler = AdaptiveSampler(config.sampler, config.tasks)
        picker = config.loader.picker
        if tables is None:
            # Nothing may wait: a table that gives nothing now gives nothing until virtual time has moved on.
            picker = dataclasses.replace(picker, table_timeout_s=0.0, starved_after_s=0.0)
        loading = dataclasses.replace(config.loader, seed=config.seed, prefetch_batches=0, picker=picker)
        self._loader = Loader(
            loading, spec, model.tokenize, self._tables, self.store, sampler, algorithm, clock, metrics
        )
        retention = _weights_retention(config.operation)
        publisher = Publisher(
            store_url, bundle.fingerprint, bundle.norm.fingerprint, clock, retention, metrics,
            algorithm.conditioning(Phase.EVALUATING),
        )  # fmt: skip
        learning = dataclasses.replace(config.learner, seed=config.seed, publish_in_background=False)
        self._learner = Learner(
            learning, model, algorithm, bundle.params, bundle.norm, self._loader, publisher, metrics, clock
        )

    @property
    def last_version(self) -> int:
        """The newest publication, 0 if none."""
        return self._learner.last_version

    @property
    def num_steps(self) -> int:
        """Learner steps so far."""
        return self._learner.current_step

    @property
    def intake_total(self) -> IntakeReport:
        """What intake did so far."""
        return self._intake.total

    def take_in(self, episode_id: str, path: pathlib.Path) -> None:
        """Stores a packed episode, and lets intake see it. The file is removed."""
        self.store.put_bytes(episode_id, path.read_bytes())
        path.unlink()
        self._intake.poll()

    def take_in_stored(self) -> None:
        """Lets intake see what the store held before."""
        self._intake.poll()

    def retain(self, retention: RetentionConfig) -> None:
        """Lets go the episodes that retention doesn't keep, and has intake take their items out."""
        apply_plan(self.store, plan_for(self.store, self._clock, retention))
        self._intake.poll()

    def table_sizes(self) -> dict[str, int]:
        """Items in each table."""
        return {name: table.size for name, table in self._tables.info().items()}

    def is_ready(self) -> bool:
        """Whether the learner may begin, by the rule of `sop learn`."""
        return self._beginning.has_come(self._tables.info())

    def step(self, fetch_ahead: bool) -> None:
        """One learner step, and the publication that is due after it."""
        self._learner.step(fetch_ahead)

    def publish(self) -> None:
        """Publishes what has been learnt since the last publication, if anything."""
        self._learner.settle()
        self._learner.publish()

    def online_share(self) -> float:
        """Share of all examples so far that came from online tables."""
        return self._loader.online_share()

    def close(self) -> None:
        """Ends threads and lets go of the device's memory."""
        self._loader.stop()
        self._learner.close()
        self._tables.close()


def _weights_retention(operation: Operation | None) -> WeightsRetention:
    """Publications stay for as long as a robot may still be fetching one, or acting with it: here a robot reads its weights
    as each episode begins, where a real one holds them."""
    default = WeightsRetention()
    if operation is None:
        return default
    deployment = operation.deployment
    slowest_s = 3 * FanOut.of(deployment).total_s + deployment.network.outage_s + 10 * deployment.moving_s
    return dataclasses.replace(default, grace_s=default.grace_s + slowest_s)

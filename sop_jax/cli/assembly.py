"""Puts the learner's side together from an experiment's configs: tables, intake, loader, learner."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from configs.experiment import LearningConfig, ReplayConfig
from sop_jax.algorithms.algorithm import Algorithm, make_labeler
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.world import WorldConfig
from sop_jax.learner.checkpoints import newest_step
from sop_jax.models.policy import PolicyModel
from sop_jax.replay.intake import Intake
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import mix_tables
from sop_jax.sampling.adaptive import AdaptiveSampler
from sop_jax.sampling.batch_spec import BatchSpec
from sop_jax.sampling.beginning import Beginning
from sop_jax.sampling.loader import Loader, LoaderConfig
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, ReplayUnavailableError
from sop_jax.specs.interfaces import Metrics, ReplayTables
from sop_jax.specs.records import CameraSpec

_POLL_S = 0.5


def with_seed(learning: LearningConfig, seed: int) -> LearningConfig:
    """The same learning with another order of data and other random numbers."""
    return dataclasses.replace(
        learning,
        learner=dataclasses.replace(learning.learner, seed=seed),
        loader=dataclasses.replace(learning.loader, seed=seed),
    )


def share_of_host(loader: LoaderConfig, process_id: int, num_processes: int) -> LoaderConfig:
    """The loader of one of a learner's hosts: its part of every batch, in an order of its own. Raises ConfigError if the
    batch doesn't divide."""
    if num_processes == 1:
        return loader
    if loader.batch_size % num_processes:
        raise ConfigError(
            f"LearnerConfig.batch_size must be a multiple of the {num_processes} hosts, got {loader.batch_size}"
        )
    seed = int(np.random.SeedSequence([loader.seed, process_id]).generate_state(1)[0])
    return dataclasses.replace(loader, batch_size=loader.batch_size // num_processes, seed=seed)


def draws_seed(seed: int, checkpoints: pathlib.Path | None) -> int:
    """Seed of one process's in-process tables: another one on every host of a learner, and after every resume. With the same
    one, all hosts would draw the same segments, and a training that goes on would draw again what it has learnt from."""
    host, step = jax.process_index(), newest_step(checkpoints) if checkpoints is not None else 0
    if (host, step) == (0, 0):
        return seed
    return int(np.random.SeedSequence([seed, host, step]).generate_state(1)[0])


def make_loader(
    learning: LearningConfig,
    worlds: Sequence[WorldConfig],
    model: PolicyModel,
    algorithm: Algorithm,
    tables: ReplayTables,
    store: EpisodeStore,
    clock: Clock,
    metrics: Metrics,
) -> Loader:
    """A loader of this host's share of these tasks' batches, as this model wants them."""
    image_size = worlds[0].image_size
    spec = BatchSpec(
        cameras=tuple(CameraSpec(name, image_size, image_size) for name in model.cameras),
        state_dim=model.config.state_dim,
        action_dim=model.action_dim,
        horizon=model.horizon,
        control_hz=learning.control_hz,
    )
    sampler = AdaptiveSampler(learning.sampler, [world.task for world in worlds])
    own = share_of_host(learning.loader, jax.process_index(), jax.process_count())
    return Loader(own, spec, model.tokenize, tables, store, sampler, algorithm, clock, metrics)


def fill_local_tables(
    replay: ReplayConfig,
    worlds: Sequence[WorldConfig],
    algorithm: Algorithm,
    horizon: int,
    store: EpisodeStore,
    seed: int,
    clock: Clock,
    metrics: Metrics,
) -> LocalTables:
    """In-process tables with everything that the store holds now. `seed`: see `draws_seed`."""
    tables = LocalTables(mix_tables([world.task for world in worlds], replay.mix), seed, clock)
    intake = Intake(
        store,
        tables,
        make_labeler(algorithm, horizon),
        replay.intake,
        clock,
        metrics,
    )
    intake.poll()
    return tables


def wait_to_begin(
    tables: ReplayTables, beginning: Beginning, clock: Clock, metrics: Metrics, should_stop: Callable[[], bool]
) -> bool:
    """Blocks until the learner may begin; a server that still starts is waited for. False: stopped.

    Metrics: "awaits_items" (missing: online items, of the task that lacks fewest) at the beginning, whenever it changes, and
    with 0 at the end; a server that doesn't answer lacks them all.
    """
    told = 0
    while not should_stop():
        try:
            info = tables.info(timeout_s=5.0)
        except ReplayUnavailableError:
            info = {}
        has_come = beginning.has_come(info)
        missing = 0 if has_come else beginning.num_missing(info)
        if missing != told:
            metrics.write("awaits_items", missing=missing)
            told = missing
        if has_come:
            return True
        clock.sleep_s(_POLL_S)
    return False

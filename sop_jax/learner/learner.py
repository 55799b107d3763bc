"""The learner's loop: take a batch, step, tell the sampler its losses, publish, checkpoint, report.

Legend: `B` batch.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, final

import jax
import numpy as np

from sop_jax.algorithms.algorithm import Algorithm
from sop_jax.learner.checkpoints import Bookkeeping, CheckpointError, Checkpoints
from sop_jax.learner.config import LearnerConfig
from sop_jax.learner.hosts import Exchange, StepOfAll, stand_in_for
from sop_jax.learner.optimizer import make_optimizer
from sop_jax.learner.publishing import Publications, PublishesWeights
from sop_jax.learner.remat import with_remat
from sop_jax.learner.sharding import (
    check_batch_size,
    fetch,
    local_rows,
    make_mesh,
    put_batch,
    put_state,
    replicated,
    tree_shardings,
)
from sop_jax.learner.state import init_state
from sop_jax.learner.stats import SettledStep, StepStats
from sop_jax.learner.train_step import StepResult, compile_copy, compile_step
from sop_jax.models.batch import TrainBatch
from sop_jax.models.normalization import NormStats
from sop_jax.models.policy import PolicyModel
from sop_jax.models.pytrees import Params
from sop_jax.sampling.batch_source import BatchSource, BatchStarvedError, LoadedBatch
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import ConfigError, SopError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import Source
from sop_jax.weights.partition import merge_params, split_params

_STARVED_PAUSE_S = 1.0
_MAX_FAILED_SAVES = 3
"""So many checkpoints in a row that could not be written stop the training."""


class TrainingDivergedError(SopError):
    """Many steps in a row had no finite gradient; the parameters are those of the last good step."""


@dataclasses.dataclass(frozen=True)
class LearnerSummary:
    """How a run of the learner went. `step` counts from the start of training, the rest from the call of `run`."""

    step: int
    num_steps: int
    duration_s: float
    wait_share: float
    last_loss: float
    last_version: int

    @property
    def steps_per_s(self) -> float:
        return self.num_steps / self.duration_s if self.duration_s > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class _InFlight:
    """A step that was given to the device and whose losses haven't been fetched."""

    step: int
    loaded: LoadedBatch
    learner_version: int
    result: StepResult
    heard: tuple[Any, Any] | None


@dataclasses.dataclass(frozen=True)
class _Share:
    """This host's share of the next step, on its way to the devices. `told`: what the other hosts are told of it."""

    loaded: LoadedBatch
    batch: TrainBatch
    told: Any


@final
class Learner:
    """Trains a policy from a stream of batches and publishes it.

        learner = Learner(config, model, algorithm, params, norm, loader, publisher, metrics, clock, checkpoint_dir)
        summary = learner.run(should_stop=interrupted.is_set)
        learner.close()

    If `checkpoint_dir` holds a checkpoint, training goes on from there: step, parameters, optimiser, random numbers and the
    order of the data. `params` is the base model (all leaves); the trained ones are copied, the frozen ones shared.

    A learner that publishes, has a `checkpoint_dir` and finds no checkpoint there writes one of step 0 before anything else:
    nothing is ever published without a checkpoint to go on from, so that publications without one mean that it was lost
    (`lost_checkpoints.py`). Raises CheckpointError if that one can't be written.

    Nothing in the loop waits for the device except the losses of the step before: while the device computes step k, the
    host fetches and moves batch k+1. One thread drives a learner.

    On several hosts each runs a learner of its own with its share of every batch, and the same checkpoint directory. With
    every step they tell each other what they drew and lost, and whether they were asked to stop: so every sampler hears of
    all losses and all hosts stop after the same step. A host without data makes the others wait. One that was asked to stop
    waits for no more data: it gives its last examples once more, without weight.

    Events written: "learner_begins" (step that it takes up: what the learner before it did beyond that is discarded, and its
    first uses are told anew), "learner_step" (see `StepStats`; of a learner that publishes also publish_every, and
    unpublished_steps: since the last publication that is out, or since this learner began), "first_use" (episode_id, task,
    learner_step: that many steps were done once an online episode had been learnt from), "correction_use" (and ended_ns: the
    same for its frames in which a person acted, as far as this host sampled them), "publication", "publication_failed",
    "starved" (at the end of every deadline without a batch; waited_s since the first) and "data_came", "step_skipped",
    "checkpoint", "checkpoint_failed" (step, reason).
    """

    def __init__(
        self,
        config: LearnerConfig,
        model: PolicyModel,
        algorithm: Algorithm,
        params: Params,
        norm: NormStats,
        batches: BatchSource,
        publisher: PublishesWeights | None,
        metrics: Metrics,
        clock: Clock,
        checkpoint_dir: pathlib.Path | None = None,
    ):
        self._config = config
        self._batches = batches
        self._metrics = metrics
        self._clock = clock
        self._mesh = make_mesh(config.mesh)
        check_batch_size(self._mesh, config.batch_size, config.accumulate_steps)
        model = with_remat(model, config.remat)
        trained, frozen = split_params(params, model.is_trained)
        if not trained:
            raise ConfigError("the model has no trained parameters: its is_trained() is False for every leaf.")

        init = functools.partial(init_state, optimizer=make_optimizer(config), ema_decay=config.ema_decay)
        shapes = jax.eval_shape(init, trained)
        shardings = tree_shardings(self._mesh, shapes, config.mesh.min_sharded_bytes)
        self._checkpoints = Checkpoints(checkpoint_dir, config.keep_checkpoints) if checkpoint_dir is not None else None
        self._first_used: set[str] = set()
        resume_step = self._checkpoints.latest_step() if self._checkpoints is not None else None
        if self._checkpoints is not None and resume_step is not None:
            wanted = jax.tree.map(
                lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, shardings
            )
            self._state, bookkeeping = self._checkpoints.restore(resume_step, wanted)
            self._first_used.update(bookkeeping.first_used)
            batches.load_state(bookkeeping.batches)
        else:
            trained_shardings = tree_shardings(self._mesh, trained, config.mesh.min_sharded_bytes)
            placed = put_state(trained, trained_shardings, may_alias=True)
            self._state = jax.jit(init, out_shardings=shardings)(placed)
        self._step = resume_step or 0
        self._saved_step = resume_step
        self._failed_saves: list[CheckpointError] = []  # since the last that was written
        self._corrections_used = set(self._first_used)
        frozen_shardings = tree_shardings(self._mesh, frozen, config.mesh.min_sharded_bytes)
        self._frozen = put_state(frozen, frozen_shardings, may_alias=True)
        self._norm = put_state(norm, jax.tree.map(lambda _: replicated(self._mesh), norm))

        self._train_step = compile_step(model, algorithm, config, self._mesh, shapes, frozen)
        self._copy = compile_copy(self._mesh, jax.tree.map(lambda leaf: np.dtype(leaf.dtype), trained))
        self._publishes = publisher is not None
        self._publications = Publications(publisher, metrics, clock, config.publish_in_background, self._step)
        self._exchange = Exchange(self._mesh) if jax.process_count() > 1 else None
        self._asked_to_stop: Callable[[], bool] = lambda: False
        self._stop_agreed = False
        self._last_loaded: LoadedBatch | None = None
        self._ahead: _Share | None = None
        self._in_flight: _InFlight | None = None
        self._starved_ns: int | None = None  # when a batch was first missed; None once one has come
        self._num_bad_steps = 0
        self._last_loss = float("nan")
        self._stats = StepStats(clock.now_ns())
        metrics.write("learner_begins", step=self._step)
        if self._publishes and self._checkpoints is not None and resume_step is None:
            self._save_beginning(self._checkpoints)

    @property
    def current_step(self) -> int:
        """Learner steps given to the device so far, across resumes."""
        return self._step

    @property
    def last_version(self) -> int:
        """The last version published, 0 if none."""
        return self._publications.last_version

    def run(self, num_steps: int | None = None, should_stop: Callable[[], bool] = lambda: False) -> LearnerSummary:
        """Trains until step `num_steps` (the config's by default; steps before a resume count) or until `should_stop`.

        Waits for as long as there is no data, and says so; `should_stop` is heard while it waits. Ends with a checkpoint
        written, all losses recorded and all publications out. Raises TrainingDivergedError, CheckpointError (the last
        checkpoint could not be written, or several in a row), or what the batch source raised.
        """
        target = self._config.num_steps if num_steps is None else num_steps
        self._asked_to_stop, self._stop_agreed = should_stop, False
        first_step, started_ns, self._starved_ns = self._step, self._clock.now_ns(), None
        while self._step < target and not self._should_stop(self._starved_ns is not None):
            try:
                self.step(fetch_ahead=self._step + 1 < target)
            except BatchStarvedError as error:
                self._note_starved(error)
                if not self._asked_to_stop():
                    self._clock.sleep_s(_STARVED_PAUSE_S)
        if self._ahead is not None and self._exchange is None and self._step < target:
            self.step()  # a batch that was taken is trained on: after a resume the next one follows
        self.settle()
        if not self._leaves_alone():
            self.save()
        self._publications.wait()
        self._settle_save()
        self._raise_failed_save()
        return LearnerSummary(
            step=self._step,
            num_steps=self._step - first_step,
            duration_s=(self._clock.now_ns() - started_ns) / 1e9,
            wait_share=self._batches.wait_share(),
            last_loss=self._last_loss,
            last_version=self.last_version,
        )

    def step(self, fetch_ahead: bool = False) -> int:
        """One learner step, with the publication and the checkpoint that are due after it; returns the steps done.

        The step may still be computing on return; `settle` waits for it. `fetch_ahead` takes the next batch meanwhile,
        unless `run` was asked to stop: no data may come for minutes, and whoever asked won't wait as long. Raises
        BatchStarvedError before anything has changed if there is no batch.
        """
        share = self._ahead or self._take_batch()
        self._ahead = None
        version = self._publications.last_version
        self._state, result = self._train_step(self._state, self._frozen, self._norm, share.batch)
        heard = self._exchange.hear(share.told, result.per_example) if self._exchange is not None else None
        self._step += 1
        if self._publishes and self._step % self._config.publish_every == 0:
            self.publish()
        self.settle()
        self._in_flight = _InFlight(self._step, share.loaded, version, result, heard)
        if self._checkpoints is not None and self._step % self._config.checkpoint_every == 0:
            self.settle()
            self.save()
        if fetch_ahead and not self._asked_to_stop():
            try:
                self._ahead = self._take_batch()
            except BatchStarvedError as error:  # the next step asks again, and then it matters
                self._note_starved(error)
        return self._step

    def settle(self) -> None:
        """Waits for the step in flight, if any, and records its losses. Raises TrainingDivergedError."""
        flight, self._in_flight = self._in_flight, None
        if flight is None:
            return
        per_example = local_rows(flight.result.per_example)
        if self._exchange is not None and flight.heard is not None:
            everyone = self._exchange.read(flight.heard)
            self._stop_agreed |= everyone.stop
        else:
            everyone = StepOfAll(flight.loaded.draws, flight.loaded.episode_ids, per_example)
        now_ns = self._clock.now_ns()
        learning_rate = float(flight.result.learning_rate)
        if not bool(flight.result.is_finite):
            self._skip(flight)
        else:
            self._num_bad_steps = 0
            self._last_loss = float(flight.result.loss)
            self._batches.record_losses(everyone.draws, everyone.per_example)
            self._report_first_use(everyone, flight.step)
            self._report_corrections(flight.loaded, flight.step)
            settled = SettledStep(
                step=flight.step,
                loaded=flight.loaded,
                learner_version=flight.learner_version,
                loss=self._last_loss,
                grad_norm=float(flight.result.grad_norm),
                learning_rate=learning_rate,
                per_example=per_example,
            )
            self._stats.add(settled, now_ns)
        if flight.step % self._config.log_every == 0:
            values = self._stats.flush(learning_rate, now_ns)
            if self._publishes:
                values["publish_every"] = self._config.publish_every
                values["unpublished_steps"] = max(0, flight.step - self._publications.last_step)
            self._metrics.write(
                "learner_step",
                step=flight.step,
                version=flight.learner_version,
                **values,
            )

    def publish(self) -> None:
        """Publishes the parameters as of now, beside training if the config says so."""
        self._publications.submit(self._copy(self._state.published), self._step)

    def save(self) -> None:
        """Checkpoints this step, unless there is no directory or it was saved already. Call `settle` first.

        A checkpoint that can't be written is reported and training goes on; the next one is the next try. Raises
        CheckpointError after several in a row.
        """
        started_ns = self._clock.now_ns()
        self._settle_save()
        if self._checkpoints is None or self._saved_step == self._step:
            return
        bookkeeping = Bookkeeping(
            batches=self._batches.state_dict(),
            first_used=tuple(sorted(self._first_used)),
            config=dataclasses.asdict(self._config),
        )
        try:
            self._checkpoints.save(self._step, self._state, bookkeeping)
        except CheckpointError as error:
            if self._exchange is not None:
                raise  # the other hosts wait inside their save: none can go on
            self._note_failed_save(error)
            return
        self._saved_step = self._step
        blocked_s = (self._clock.now_ns() - started_ns) / 1e9
        self._metrics.write("checkpoint", step=self._step, blocked_s=blocked_s)

    def policy_params(self) -> Params:
        """All parameters that a robot would act with now (the average, if there is one), as numpy arrays. On several hosts
        all must ask at the same step."""
        return merge_params(fetch(self._copy(self._state.published)), fetch(self._frozen))

    def close(self) -> None:
        """Waits for publications and checkpoints under way. The batch source is the caller's to stop. Raises CheckpointError
        if the last checkpoint could not be written and `run` hasn't said so."""
        self._publications.wait()
        if self._checkpoints is not None:
            try:
                self._settle_save()
            finally:
                self._checkpoints.close()
            self._raise_failed_save()

    def _save_beginning(self, checkpoints: Checkpoints) -> None:
        """Blocks until the checkpoint of step 0 is written. Raises CheckpointError."""
        try:
            self.save()
            self._settle_save()
            self._raise_failed_save()
        except CheckpointError:
            checkpoints.close()
            raise

    def _settle_save(self) -> None:
        """Waits until the last checkpoint is written. One that failed doesn't count as saved."""
        if self._checkpoints is None:
            return
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            self._note_failed_save(error)
        else:
            if self._saved_step is not None:
                self._failed_saves.clear()

    def _note_failed_save(self, error: CheckpointError) -> None:
        self._saved_step = None
        self._failed_saves.append(error)
        self._metrics.write("checkpoint_failed", step=error.step, reason=str(error)[:500])
        if len(self._failed_saves) >= _MAX_FAILED_SAVES:
            self._raise_failed_save()

    def _raise_failed_save(self) -> None:
        """Raises what the last checkpoint failed with, if it did; each failure once."""
        if self._failed_saves:
            error = self._failed_saves[-1]
            self._failed_saves.clear()
            raise error

    def _take_batch(self) -> _Share:
        stop, stand_in = self._exchange is not None and self._asked_to_stop(), self._stand_in()
        try:
            # With a stand-in it doesn't ask for a batch: none may come for minutes, longer than a preempted machine has.
            loaded = stand_in or self._batches.next(self._asked_to_stop)
        except BatchStarvedError:
            if (stand_in := self._stand_in()) is None:
                raise
            loaded = stand_in
        if stand_in is None:
            self._note_fed()
        stop, stands_in = stop or stand_in is not None, stand_in is not None
        expected = self._config.batch_size // jax.process_count()
        if len(loaded.draws) != expected:
            raise ConfigError(
                f"the batch source gave {len(loaded.draws)} examples, LearnerConfig.batch_size asks for {expected} on each "
                "host. Give both the same batch size."
            )
        if self._exchange is None:
            return _Share(loaded, put_batch(loaded.batch, self._mesh), None)
        self._last_loaded = loaded
        return _Share(loaded, put_batch(loaded.batch, self._mesh), self._exchange.tell(loaded, stop, stands_in))

    def _note_starved(self, error: BatchStarvedError) -> None:
        now_ns = self._clock.now_ns()
        self._starved_ns = now_ns if self._starved_ns is None else self._starved_ns
        if self._asked_to_stop():
            return  # nobody waits for data any more
        waited_s = (now_ns - self._starved_ns) / 1e9
        self._metrics.write("starved", step=self._step, waited_s=waited_s, reason=str(error)[:300])

    def _note_fed(self) -> None:
        if self._starved_ns is not None:
            waited_s = (self._clock.now_ns() - self._starved_ns) / 1e9
            self._metrics.write("data_came", step=self._step, waited_s=waited_s)
            self._starved_ns = None

    def _stand_in(self) -> LoadedBatch | None:
        """What stands in for a batch once one of several hosts was asked to stop, so that the others can end too."""
        if self._exchange is None or self._last_loaded is None or not self._asked_to_stop():
            return None
        return stand_in_for(self._last_loaded)

    def _should_stop(self, is_starved: bool) -> bool:
        if self._exchange is None:
            return self._asked_to_stop()
        return self._stop_agreed or (is_starved and self._leaves_alone())

    def _leaves_alone(self) -> bool:
        """Whether this host ends without the consent of the others. Only one that never had data may: it can't take part in a
        step, nor in a checkpoint, for which it would wait for the others for ever."""
        return self._exchange is not None and self._last_loaded is None and self._asked_to_stop()

    def _skip(self, flight: _InFlight) -> None:
        self._num_bad_steps += 1
        self._stats.skip()
        self._metrics.write("step_skipped", step=flight.step, loss=str(float(flight.result.loss)))
        if self._num_bad_steps >= self._config.max_bad_steps:
            raise TrainingDivergedError(
                f"steps {flight.step - self._num_bad_steps + 1} to {flight.step} had no finite gradient (loss "
                f"{float(flight.result.loss)}). Lower the learning rate, or go back to an earlier checkpoint; the parameters "
                "are those of the last good step."
            )

    def _report_first_use(self, everyone: StepOfAll, step: int) -> None:
        for draw, episode_id in zip(everyone.draws, everyone.episode_ids, strict=True):
            if draw.source is Source.ONLINE and episode_id not in self._first_used:
                self._first_used.add(episode_id)
                self._metrics.write("first_use", episode_id=episode_id, task=draw.task, learner_step=step)

    def _report_corrections(self, loaded: LoadedBatch, step: int) -> None:
        for row in np.flatnonzero(loaded.intervention):
            draw, episode_id = loaded.draws[row], loaded.episode_ids[row]
            if draw.source is Source.ONLINE and episode_id not in self._corrections_used:
                self._corrections_used.add(episode_id)
                self._metrics.write(
                    "correction_use",
                    episode_id=episode_id,
                    task=draw.task,
                    learner_step=step,
                    ended_ns=int(loaded.ended_ns[row]),
                )

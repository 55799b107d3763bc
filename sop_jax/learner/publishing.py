"""Publishing beside training: the learner hands over a copy of the parameters and goes on."""

import threading
from typing import Protocol, final, runtime_checkable

import jax

from sop_jax.models.pytrees import Params
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import SopError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import Publication


@runtime_checkable
class PublishesWeights(Protocol):
    """What `weights.publisher.Publisher` offers: see there. Called from one thread at a time."""

    @property
    def last_version(self) -> int: ...

    def publish(self, trained_params: Params, learner_step: int) -> Publication: ...


@final
class Publications:
    """Publishes in the order of submission, on a thread that lives only while there is something to publish.

    If the store is slower than the learner, only the newest waiting parameters are kept: robots want the latest. A store
    that can't be reached is reported ("publication_failed") and training goes on; the next submission tries again. Every
    publication is reported ("publication" with version, learner_step, created_ns, publish_s). On hosts other than the
    first nothing is published. Methods belong to one thread. A checkpoint may be written at the same time: see the options
    in `Checkpoints`.

    `learner_step`: the steps done when this learner began, which count as published.
    """

    def __init__(
        self,
        publisher: PublishesWeights | None,
        metrics: Metrics,
        clock: Clock,
        in_background: bool,
        learner_step: int = 0,
    ):
        self._publisher = publisher if jax.process_index() == 0 else None
        self._metrics = metrics
        self._clock = clock
        self._in_background = in_background
        self._lock = threading.Lock()
        self._waiting: tuple[Params, int] | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.last_version = publisher.last_version if publisher is not None else 0
        self.last_step = learner_step

    def submit(self, params: Params, learner_step: int) -> None:
        """Publishes `params`, which nobody may donate or change. Raises what an earlier publication raised unexpectedly."""
        if self._publisher is None:
            return
        if not self._in_background:
            self._publish(self._publisher, params, learner_step)
            return
        with self._lock:
            self._raise_error()
            self._waiting = (params, learner_step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._drain, args=(self._publisher,), name="publish")
                self._thread.start()

    def wait(self) -> None:
        """Blocks until everything submitted has been published."""
        thread = self._thread
        if thread is not None:
            thread.join()
        with self._lock:
            self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _drain(self, publisher: PublishesWeights) -> None:
        while True:
            with self._lock:
                if self._waiting is None:
                    self._thread = None
                    return
                (params, learner_step), self._waiting = self._waiting, None
            try:
                self._publish(publisher, params, learner_step)
            except BaseException as error:
                with self._lock:
                    self._error = error

    def _publish(self, publisher: PublishesWeights, params: Params, learner_step: int) -> None:
        started_ns = self._clock.now_ns()
        try:
            publication = publisher.publish(params, learner_step)
        except (OSError, ValueError, SopError) as error:  # TensorStore reports an absent store as ValueError
            reason = f"{type(error).__name__}: {error}"[:300]
            self._metrics.write("publication_failed", learner_step=learner_step, reason=reason)
            return
        self.last_version, self.last_step = publication.version, publication.learner_step
        self._metrics.write(
            "publication",
            version=publication.version,
            learner_step=publication.learner_step,
            created_ns=publication.created_ns,
            publish_s=(self._clock.now_ns() - started_ns) / 1e9,
        )

"""Where an actor gets new weights from: fetched at the boundary, or by a thread while the robot works."""

import threading
from typing import Protocol, final

from sop_jax.models.pytrees import Params
from sop_jax.specs.clock import Clock
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.records import Publication
from sop_jax.weights.follower import LoadedWeights, PublicationRemovedError

_WAKE_S = 0.2
_CLOSE_S = 5.0


class WeightsSource(Protocol):
    """What `weights.follower.Follower` offers: see there."""

    def latest(self) -> Publication | None: ...

    def load(self, publication: Publication, template: Params) -> Params: ...


class WeightsFeed(Protocol):
    """Gives an actor the newest verified weights, if they are newer than its own.

    `take` is called between episodes and never raises for what is wrong with a publication or with the way to it: the
    robot then goes on with the policy it has. `num_refused` counts publications that were not to be trusted.
    """

    @property
    def num_refused(self) -> int: ...

    def take(self, newer_than: int) -> LoadedWeights | None: ...

    def close(self) -> None: ...


@final
class InlineFeed:
    """Looks for a publication and downloads it when asked: between two episodes the robot waits for the download.

    A refused publication is counted, reported once as "publication_refused", and not downloaded again; a store that is away
    is reported as "weights_unavailable" at each try.
    """

    def __init__(self, source: WeightsSource, template: Params, metrics: Metrics):
        self._source = source
        self._template = template
        self._metrics = metrics
        self._refused: set[int] = set()

    @property
    def num_refused(self) -> int:
        """Publications refused so far."""
        return len(self._refused)

    def take(self, newer_than: int) -> LoadedWeights | None:
        publication = None
        try:
            publication = self._source.latest()
            if publication is None or publication.version <= newer_than or publication.version in self._refused:
                return None
            return LoadedWeights(publication, self._source.load(publication, self._template))
        except PublicationRemovedError:
            return None  # A newer one is there already: the next boundary finds it.
        except InvalidPublicationError as error:
            if publication is None:
                self._metrics.write("weights_unavailable", reason=_short(error))
            else:
                self._refuse(publication.version, error)
        except Exception as error:  # Whatever keeps the store away must not stop the robot; it is reported.
            self._metrics.write("weights_unavailable", reason=_short(error))
        return None

    def close(self) -> None:
        pass

    def _refuse(self, version: int, error: Exception) -> None:
        self._refused.add(version)
        self._metrics.write("publication_refused", version=version, reason=_short(error))


@final
class BackgroundFeed:
    """Fetches with an InlineFeed on a thread of its own, every `poll_s` of the clock; `take` never waits for a download."""

    def __init__(self, feed: InlineFeed, clock: Clock, first_version: int, poll_s: float = 2.0):
        self._feed = feed
        self._clock = clock
        self._poll_ns = round(poll_s * 1e9)
        self._lock = threading.Lock()
        self._newest_version = first_version
        self._waiting: LoadedWeights | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weights-feed", daemon=True)
        self._thread.start()

    @property
    def num_refused(self) -> int:
        return self._feed.num_refused

    def take(self, newer_than: int) -> LoadedWeights | None:
        with self._lock:
            loaded, self._waiting = self._waiting, None
        return loaded if loaded is not None and loaded.publication.version > newer_than else None

    def close(self) -> None:
        """Ends the looking; whoever hangs in a store that doesn't answer is left there after 5 s."""
        self._stop.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            due_ns = self._clock.now_ns() + self._poll_ns
            loaded = self._feed.take(self._newest_version)
            if loaded is not None:
                self._newest_version = loaded.publication.version
                with self._lock:
                    self._waiting = loaded
            while self._clock.now_ns() < due_ns and not self._stop.wait(_WAKE_S):
                pass


@final
class SharedFeed:
    """One feed for the robots of a process, each of which takes at its own boundary: a publication is downloaded once.

    `first`: what is known already. Belongs to the thread that drives the robots.
    """

    def __init__(self, feed: WeightsFeed, first: LoadedWeights | None = None):
        self._feed = feed
        self._newest = first

    @property
    def num_refused(self) -> int:
        return self._feed.num_refused

    def take(self, newer_than: int) -> LoadedWeights | None:
        newest = self._newest
        known = newer_than if newest is None else max(newer_than, newest.publication.version)
        self._newest = newest = self._feed.take(known) or newest
        return newest if newest is not None and newest.publication.version > newer_than else None

    def close(self) -> None:
        self._feed.close()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]

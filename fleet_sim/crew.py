"""Workers that play episodes: each is a pure function of (weights version, robot, seed, world).

So an episode may be played as soon as it has begun in virtual time, on any worker, and again on another one if that was
lost, while the simulation goes on; whoever needs to know whether it still lasts waits until a worker has come that far.
"""

import collections
import dataclasses
import importlib
import json
import pathlib
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from sop_jax.specs.errors import ConfigError, MissingDependencyError, SopError

LOOK_TICKS = 5
"""A simulation asks of every episode in play, before its time goes beyond a multiple of this, whether the episode still lasts
then. Until a worker has come so far everybody stands still, also those who could begin episodes for other workers."""


def is_told(tick: int) -> bool:
    """Whether a worker tells that an episode has come to this tick, whose number is that of the ticks played before it: as
    soon as the answer for a multiple of LOOK_TICKS is known."""
    return tick > LOOK_TICKS and (tick - 1) % LOOK_TICKS == 0


class CrewFailedError(SopError):
    """A worker died, or an episode could not be played."""


class WorkerLostError(Exception):
    """A worker is gone through no fault of the episode's: another one can play it."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where a fleet's episodes are played.

    local: on processes of this machine. ray: on actors of the Ray cluster at `address`; "" is the one that this machine is in
    ($RAY_ADDRESS), or else a new one on this machine alone.
    """

    kind: Literal["local", "ray"] = "local"
    address: str = ""


LOCAL = Engine()


@dataclasses.dataclass(frozen=True)
class EpisodeOrder:
    """One episode to play. `started_ns` is virtual time; `version` 0 is the base policy, -1 nobody (the expert acts).
    `drifts`: how often the robot has become another individual."""

    episode_id: str
    robot_id: str
    task: str
    seed: int
    started_ns: int
    version: int
    actor: Literal["policy", "expert"] = "policy"
    supervised: bool = True
    drifts: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "EpisodeOrder":
        return EpisodeOrder(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class PlayedEpisode:
    """A finished episode: its length in control ticks, the file that holds its sealed bytes, and whether it ended well."""

    num_frames: int
    path: pathlib.Path
    succeeded: bool


@dataclasses.dataclass(frozen=True)
class Helps:
    """Ticks at which people took over, and at which they had handed back (or the episode was over)."""

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @staticmethod
    def from_json(values: Mapping[str, Sequence[int]]) -> "Helps":
        return Helps(tuple(values["starts"]), tuple(values["ends"]))


class EpisodeInPlay:
    """An episode that was ordered. `wait` blocks until it is known to last longer than `tick`, or how long it lasted; `drop`
    says that nobody wants it any more. However far ahead a worker is, the answers for a tick are the same.

    The simulation says with `reach` how far its own time has come in the episode, once `wait` for this tick has returned.
    """

    def __init__(self, order: EpisodeOrder):
        self.order = order
        self._changed = threading.Condition()
        self._num_ticks = 0
        self._reached = 0
        self._helps = Helps()
        self._played: PlayedEpisode | None = None
        self._error = ""
        self.is_dropped = False

    @property
    def is_over(self) -> bool:
        with self._changed:
            return self._has_ended()

    def drop(self) -> None:
        with self._changed:
            self.is_dropped = True
            if self._played is not None:
                self._played.path.unlink(missing_ok=True)

    def wait(self, tick: int) -> PlayedEpisode | None:
        """None: it goes on after this tick. Raises CrewFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended() or self._num_ticks > tick)
            if self._error:
                raise CrewFailedError(self._error)
            return self._played if self._played is not None and self._played.num_frames <= tick else None

    def wait_for_end(self) -> PlayedEpisode:
        """Blocks until the episode is over. Raises CrewFailedError."""
        with self._changed:
            self._changed.wait_for(self._has_ended)
            if self._played is None:
                raise CrewFailedError(self._error)
            return self._played

    def helps_until(self, tick: int) -> Helps:
        """What is known once `wait(tick)` has returned."""
        with self._changed:
            known = self._helps
        return Helps(*(tuple(edge for edge in edges if edge <= tick) for edges in (known.starts, known.ends)))

    def reach(self, tick: int) -> None:
        self._reached = tick

    @property
    def num_helped(self) -> int:
        """At how many ticks people have acted, as far as the simulation's time has come."""
        helps = self.helps_until(self._reached)
        still_helping = len(helps.starts) > len(helps.ends)
        return sum(helps.ends) + still_helping * self._reached - sum(helps.starts)

    def note(self, num_ticks: int, helps: Helps) -> None:
        with self._changed:
            if num_ticks <= self._num_ticks:  # played again by another worker, which tells the same as the first one
                return
            self._num_ticks, self._helps = num_ticks, helps
            self._changed.notify_all()

    def finish(self, played: PlayedEpisode | None, error: str = "", helps: Helps = Helps()) -> None:
        """How it ended; what was said first stands."""
        with self._changed:
            if self._has_ended():
                return
            self._played, self._error, self._helps = played, error, helps
            if played is not None and self.is_dropped:
                played.path.unlink(missing_ok=True)
            self._changed.notify_all()

    def _has_ended(self) -> bool:
        return self._played is not None or bool(self._error)


class Worker(Protocol):
    """Plays one episode at a time."""

    def play(self, playing: EpisodeInPlay) -> None:
        """Blocks until the episode is over, telling `playing`. Raises WorkerLostError, or whatever stops the simulation."""
        ...

    def wait_until_there(self) -> bool:
        """Whether it can play, before its first episode and after it was lost. Blocks for as long as there is hope."""
        ...

    def kill(self) -> None:
        """Ends it, also in the middle of an episode; once more does nothing."""
        ...


class Crew:
    """Plays episodes on workers, first come, first served. What is played depends on neither their number nor their kind.

    with Crew(settings, num_workers) as crew:
        playing = crew.play(order)
        played = playing.wait(tick)
    """

    def __init__(self, settings: Mapping[str, Any], num_workers: int, engine: Engine = LOCAL):
        """`settings`: a `crew_worker.WorkerSettings` as JSON. `num_workers` 0: one per core, of this machine or the cluster.

        Raises MissingDependencyError where Ray is missing, ConfigError if there would be no worker.
        """
        if num_workers < 0:
            raise ConfigError(f"Crew: num_workers must be >= 0 (0 = one per core), got {num_workers}")
        self._todo: collections.deque[EpisodeInPlay] = collections.deque()
        self._wanted = threading.Condition()
        self._closing = False
        self._failure = ""
        self._workers = _make_workers(settings, num_workers, engine)
        if not self._workers:
            raise ConfigError(f"Crew: nobody would play, for {engine} has no CPU; say how many workers there are to be")
        self._num_left = len(self._workers)
        self._threads = [
            threading.Thread(target=self._feed, args=(worker,), name=f"crew-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def play(self, order: EpisodeOrder) -> EpisodeInPlay:
        """Orders an episode; returns at once."""
        playing = EpisodeInPlay(order)
        with self._wanted:
            if self._failure:
                playing.finish(None, self._failure)
            else:
                self._todo.append(playing)
                self._wanted.notify()
        return playing

    def close(self) -> None:
        """Ends the workers; episodes in play are lost."""
        with self._wanted:
            self._closing = True
            self._wanted.notify_all()
        for worker in self._workers:
            worker.kill()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self, worker: Worker) -> None:
        """A worker's life. It takes no episode before it is there: one that never comes would never give it back."""
        why = "none came in time"
        try:
            while worker.wait_until_there():
                lost = self._play_until_lost(worker)
                if lost is None:
                    return
                why = f"the last one was lost: {lost}"
        except Exception as error:  # the simulation ends with the first failure
            self._fail(str(error))
            return
        self._leave(worker, f"no worker is left; {why}")

    def _play_until_lost(self, worker: Worker) -> WorkerLostError | None:
        """None: there is nothing more to play. Raises CrewFailedError: an episode failed."""
        while (playing := self._next()) is not None:
            try:
                if not playing.is_dropped:
                    worker.play(playing)
            except WorkerLostError as error:
                self._put_back(playing)
                return error
            except Exception as error:
                why = f"episode {playing.order.episode_id}: {error}"
                playing.finish(None, why)
                raise CrewFailedError(why) from error
        return None

    def _next(self) -> EpisodeInPlay | None:
        """Blocks until there is one; None: the crew is closing."""
        with self._wanted:
            self._wanted.wait_for(lambda: self._todo or self._closing)
            return None if self._closing else self._todo.popleft()

    def _put_back(self, playing: EpisodeInPlay) -> None:
        """Who played it is lost. After its last word that changes nothing; once all has failed, the episode has, too."""
        with self._wanted:
            if self._failure:
                playing.finish(None, self._failure)
            elif not playing.is_over:
                self._todo.appendleft(playing)
                self._wanted.notify()

    def _leave(self, worker: Worker, why: str) -> None:
        """A worker is gone for good; with the last one, so is whatever waits."""
        worker.kill()  # or it might come later, and hold a CPU for nothing
        with self._wanted:
            self._num_left -= 1
            if self._num_left:
                return
        self._fail(why)

    def _fail(self, why: str) -> None:
        """Nothing is played any more: neither what waits nor what is ordered later, also if nobody asks for the episode
        that failed."""
        with self._wanted:
            self._failure = self._failure or why
            for playing in self._todo:
                playing.finish(None, why)
            self._todo.clear()


def keep_file(scratch: pathlib.Path, episode_id: str, data: bytes) -> pathlib.Path:
    """Puts a sealed episode into the folder, whole or not at all; returns where."""
    path = scratch / f"{episode_id}.zip"
    draft = path.with_suffix(".part")
    draft.write_bytes(data)
    draft.replace(path)
    return path


def _make_workers(settings: Mapping[str, Any], num_workers: int, engine: Engine) -> Sequence[Worker]:
    """Importing a kind of worker is put off until it is wanted: Ray is not installed everywhere."""
    try:
        module = importlib.import_module(f"fleet_sim.{'process' if engine.kind == 'local' else 'ray'}_worker")
    except ImportError as error:
        if engine.kind == "local":
            raise
        raise MissingDependencyError(f"--engine ray needs Ray ({error}): launch/setup.sh ray") from error
    return module.make_workers(settings, num_workers, engine.address)

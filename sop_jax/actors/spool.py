"""Finished episodes on the robot's disk, until the store has acknowledged them.

Layout of the spool's directory::

    <episode_id>.zip            sealed, durable, waiting for upload (or unreadable: left for somebody to look at)
    <episode_id>.zip.tmp        being written; never read
    <episode_id>.zip.given_up   empty: the mark of an episode that a full spool gave up
    set_aside/<name>            what can't be uploaded, with <name>.reason.json beside it
    lock                        held by the one process that uses the directory
    next_episode.json           how far the robot has counted (`episode_counter.py`)
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import threading
from typing import Protocol, final

from sop_jax.actors.durable_files import (
    is_disk_full,
    make_directory_durably,
    move_durably,
    remove_durably,
    sync_directory,
    write_durably,
)
from sop_jax.actors.spool_room import Waiting, choose_victim, count_marks, give_up, mark_given_up
from sop_jax.actors.upload_order import UploadOrder
from sop_jax.episodes.format import pack, parse
from sop_jax.episodes.paths import episode_path
from sop_jax.specs.clock import Clock, age_s
from sop_jax.specs.errors import ConfigError, EpisodeExistsError, InvalidEpisodeError
from sop_jax.specs.interfaces import Metrics
from sop_jax.specs.metrics import NoMetrics
from sop_jax.specs.records import Episode

_SUFFIX = ".zip"
_TMP_SUFFIX = ".zip.tmp"
_SET_ASIDE = "set_aside"
_WAKE_S = 0.05
_CLOSE_S = 5.0


class EpisodeSink(Protocol):
    """The part of `episodes.store.EpisodeStore` that a robot needs. `put_bytes` is atomic, and idempotent by id."""

    def put_bytes(self, episode_id: str, data: bytes) -> object: ...


@dataclasses.dataclass(frozen=True)
class SpoolConfig:
    """Waits between attempts while the store is away: from `first_retry_s`, doubling, up to `max_retry_s` [clock seconds].

    Each wait is shortened by up to half, differently per episode, so that a fleet doesn't come back all at once. An episode
    that fails while others get through waits like that by itself (`upload_order.py`).

    max_bytes: what waits takes no more of the disk than this. When it is full, or the disk is, the oldest autonomous episodes
        are given up first, and those with interventions last.
    """

    first_retry_s: float = 1.0
    max_retry_s: float = 60.0
    max_bytes: int = 16 * 2**30

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"SpoolConfig.max_bytes must be at least 1, got {self.max_bytes}")
        if not 0 < self.first_retry_s <= self.max_retry_s:
            raise ConfigError(
                f"SpoolConfig needs 0 < first_retry_s <= max_retry_s, got {self.first_retry_s} and {self.max_retry_s}"
            )


@final
class Spool:
    """Takes finished episodes and brings them to the store, whatever happens to the process or the network.

        spool = Spool(directory, store, clock)
        spool.accept(episode)            # returns once the episode would survive a power cut
        spool.drain(timeout_s=60)        # True if everything is in the store
        spool.close()

    Uploading is a background thread's work, oldest episode first, and no episode that can't be uploaded holds up another
    (`upload_order.py`); with `background=False` it happens in `upload_due` and `drain` only (simulation on virtual time).
    A new Spool on the same directory goes on where the last one was stopped or killed. A file that it can't read then stays
    where it is, counted and told, until the next start tries again. Thread-safe.

    Metrics: "accepted", "upload", "upload_failed" (each with the episode_id and what waits then: num_pending, pending_bytes,
    max_bytes), "set_aside", "given_up" (episode_id, corrected, num_bytes, num_given_up, reason), "unreadable" (episode_id,
    file, reason). An upload's `upload_s` counts from the episode's end; it is left out if the clock learnt the date in
    between.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        store: EpisodeSink,
        clock: Clock,
        metrics: Metrics | None = None,
        config: SpoolConfig | None = None,
        background: bool = True,
    ):
        self._directory = pathlib.Path(directory)
        self._store = store
        self._clock = clock
        self._metrics = metrics or NoMetrics()
        self._config = config or SpoolConfig()
        self._changed = threading.Condition()
        self._uploading = threading.Lock()
        self._accepting = threading.Lock()
        self._pending: dict[str, Waiting] = {}
        self._in_flight: str | None = None
        self._num_given_up = 0
        self._num_unreadable = 0
        self._order = UploadOrder(self._config.first_retry_s, self._config.max_retry_s)
        self._closed = False
        make_directory_durably(self._directory)
        self._lock_file = _lock(self._directory)
        self._recover()
        self._thread = threading.Thread(target=self._run, name="spool-upload", daemon=True) if background else None
        if self._thread is not None:
            self._thread.start()

    @property
    def num_pending(self) -> int:
        """Episodes that the store hasn't acknowledged yet."""
        with self._changed:
            return len(self._pending)

    @property
    def pending_bytes(self) -> int:
        """Bytes that they take on the disk."""
        with self._changed:
            return self._total_bytes()

    @property
    def num_given_up(self) -> int:
        """Episodes that found no room here, since the directory was made."""
        with self._changed:
            return self._num_given_up

    @property
    def num_unreadable(self) -> int:
        """Files that this Spool found when it began, and could neither read nor set aside."""
        return self._num_unreadable

    def accept(self, episode: Episode) -> bool:
        """Writes the episode to the disk, atomically and durably, and returns; the upload comes later.

        Accepting the same episode again changes nothing. If there is no room, the least precious episodes are given up,
        counted and told; False if that was this one.

        Raises:
            InvalidEpisodeError: its parts contradict each other, or its id is malformed. Nothing was written.
            EpisodeExistsError: another episode of this id waits here.
        """
        episode_id = episode.manifest.episode_id
        episode_path(episode_id)
        data = pack(episode)
        target = self._path(episode_id)
        new = Waiting(len(data), bool(episode.arrays.intervention.any()), episode.manifest.ended_ns)
        with self._accepting:
            if target.exists():
                if target.read_bytes() == data:
                    self._take_up(episode_id, new)
                    return True
                raise EpisodeExistsError(
                    f"spool {self._directory}: another episode {episode_id} waits for upload; ids must never be used twice"
                )
            return self._write(episode_id, data, new)

    def _take_up(self, episode_id: str, new: Waiting) -> None:
        """The file is there. If nobody knows of it, an earlier `accept` wrote it and failed after that, and it isn't known
        to be durable. An upload removes the file before it forgets the episode."""
        with self._changed:
            if episode_id in self._pending or not self._path(episode_id).exists():
                return
        sync_directory(self._directory)
        self._add(episode_id, new)

    def _add(self, episode_id: str, new: Waiting) -> None:
        with self._changed:
            self._pending[episode_id] = new
            waits = self._what_waits()
            self._changed.notify_all()
        self._metrics.write(
            "accepted", episode_id=episode_id, corrected=new.corrected, num_bytes=new.num_bytes, **waits
        )

    def _write(self, episode_id: str, data: bytes, new: Waiting) -> bool:
        full = f"the spool is full ({self._config.max_bytes} bytes)"
        if new.num_bytes > self._config.max_bytes:
            return self._refuse(episode_id, new, f"it is larger than the whole spool ({self._config.max_bytes} bytes)")
        while self.pending_bytes + new.num_bytes > self._config.max_bytes:
            if not self._make_room(episode_id, new, full):
                return self._refuse(episode_id, new, full)
        while True:
            try:
                write_durably(self._path(episode_id), data)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                if not self._make_room(episode_id, new, f"the disk is full: {error}"):
                    return self._refuse(episode_id, new, f"the disk is full: {error}")
                continue
            self._add(episode_id, new)
            return True

    def _what_waits(self, without: str | None = None) -> dict[str, int]:
        """For the metrics; under the lock."""
        waiting = [other.num_bytes for episode_id, other in self._pending.items() if episode_id != without]
        return {"num_pending": len(waiting), "pending_bytes": sum(waiting), "max_bytes": self._config.max_bytes}

    def _make_room(self, episode_id: str, new: Waiting, reason: str) -> bool:
        """Gives up one episode that is worth less than the new one; False if there is none."""
        with self._changed:
            busy = () if self._in_flight is None else (self._in_flight,)
            victim = choose_victim({**self._pending, episode_id: new}, busy)
            if victim is None or victim == episode_id:
                return False
            # Under the lock, so that no upload of it begins meanwhile.
            give_up(self._path(victim))
            lost = self._pending.pop(victim)
            self._order.done(victim, store_answers=False)
        self._tell_given_up(victim, lost, reason)
        return True

    def _refuse(self, episode_id: str, new: Waiting, reason: str) -> bool:
        mark_given_up(self._path(episode_id))
        self._tell_given_up(episode_id, new, reason)
        return False

    def _tell_given_up(self, episode_id: str, lost: Waiting, reason: str) -> None:
        with self._changed:
            self._num_given_up += 1
            self._changed.notify_all()
        self._metrics.write(
            "given_up",
            episode_id=episode_id,
            corrected=lost.corrected,
            num_bytes=lost.num_bytes,
            num_given_up=self._num_given_up,
            reason=reason[:300],
        )

    def _total_bytes(self) -> int:
        return sum(waiting.num_bytes for waiting in self._pending.values())

    def upload_due(self) -> int:
        """Uploads what waits, unless a failed attempt says to wait longer; returns how many episodes reached the store.

        Stops when the store fails. Blocks while uploading.
        """
        with self._uploading:
            num_uploaded = 0
            while (episode_id := self._next_due()) is not None:
                num_uploaded += self._upload(episode_id)
            return num_uploaded

    def drain(self, timeout_s: float) -> bool:
        """Blocks until everything is in the store, or until the clock has passed `timeout_s`; True if all of it is."""
        deadline_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        while True:
            if self._thread is None:
                self.upload_due()
            with self._changed:
                if not self._pending:
                    return True
                if self._clock.now_ns() >= deadline_ns:
                    return False
                if self._thread is not None:
                    self._changed.wait(_WAKE_S)
                    continue
            self._clock.sleep_s(_WAKE_S)

    def close(self) -> None:
        """Stops uploading; what still waits stays on the disk for the next Spool. An attempt that is under way may take 5 s
        more: a store that doesn't answer mustn't keep a robot from being let go."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                return  # It may yet remove what it uploads, so the lock stays until the process ends.
        os.close(self._lock_file)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._pending:
                    self._changed.wait()
                if self._closed:
                    return
                if self._order.choose(self._pending, self._clock.now_ns()) is None:
                    self._changed.wait(_WAKE_S)
                    continue
            self.upload_due()

    def _next_due(self) -> str | None:
        with self._changed:
            if self._closed:
                return None
            self._in_flight = self._order.choose(self._pending, self._clock.now_ns())
            return self._in_flight

    def _upload(self, episode_id: str) -> bool:
        """False if it has to be tried again later; the episode is safe here."""
        path = self._path(episode_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self._lose(episode_id, "somebody removed its file from the spool")
            return True
        except OSError as error:
            return self._wait_longer(episode_id, error, its_own=True)
        refusal = None
        try:
            self._store.put_bytes(episode_id, data)
        except (EpisodeExistsError, InvalidEpisodeError) as error:  # Trying again would change nothing.
            refusal = error
        except Exception as error:  # storage drivers raise what they like
            return self._wait_longer(episode_id, error, its_own=False)
        try:
            if refusal is None:
                remove_durably(path)
            else:
                self._set_aside(path, f"{type(refusal).__name__}: {refusal}")
        except OSError as error:
            return self._wait_longer(episode_id, error, its_own=True)
        if refusal is None:
            self._tell_uploaded(episode_id, len(data))
        # Bytes that aren't this episode are refused before the store is asked.
        self._forget(episode_id, store_answers=not isinstance(refusal, InvalidEpisodeError))
        return True

    def _tell_uploaded(self, episode_id: str, num_bytes: int) -> None:
        with self._changed:
            waits, ended_ns = self._what_waits(without=episode_id), self._pending[episode_id].ended_ns
            num_failures = self._order.num_failures(episode_id)
        upload_s = age_s(ended_ns, self._clock.now_ns())
        self._metrics.write(
            "upload",
            episode_id=episode_id,
            num_bytes=num_bytes,
            num_failures=num_failures,
            **({} if upload_s is None else {"upload_s": upload_s}),
            **waits,
        )

    def _lose(self, episode_id: str, reason: str) -> None:
        with self._changed:
            lost = self._pending[episode_id]
        self._refuse(episode_id, lost, reason)
        self._forget(episode_id, store_answers=False)

    def _forget(self, episode_id: str, store_answers: bool) -> None:
        with self._changed:
            self._order.done(episode_id, store_answers=store_answers)
            self._in_flight = None
            del self._pending[episode_id]
            self._changed.notify_all()

    def _wait_longer(self, episode_id: str, error: Exception, its_own: bool) -> bool:
        with self._changed:
            delay_s = self._order.failed(episode_id, self._clock.now_ns(), its_own=its_own)
            num_failures = self._order.num_failures(episode_id)
            self._in_flight = None
            waits = self._what_waits()
        self._metrics.write(
            "upload_failed",
            episode_id=episode_id,
            num_failures=num_failures,
            retry_in_s=delay_s,
            **waits,
            reason=f"{type(error).__name__}: {error}"[:300],
        )
        return False

    def _recover(self) -> None:
        """Takes stock of what a former process left: whole episodes are pending, torn ones are set aside."""
        self._num_given_up = count_marks(self._directory)
        for path in sorted(self._directory.iterdir()):
            try:
                self._recover_file(path)
            except OSError as error:  # One bad sector must not keep the robot from starting.
                self._num_unreadable += 1
                self._metrics.write(
                    "unreadable",
                    episode_id=path.name.removesuffix(_TMP_SUFFIX).removesuffix(_SUFFIX),
                    file=path.name,
                    reason=f"left in place: {type(error).__name__}: {error}"[:300],
                )

    def _recover_file(self, path: pathlib.Path) -> None:
        if path.name.endswith(_TMP_SUFFIX):
            self._set_aside(path, "torn: the process ended while it wrote this file, before it was sealed")
        elif path.name.endswith(_SUFFIX):
            data = path.read_bytes()
            episode_id = path.name.removesuffix(_SUFFIX)
            try:
                parsed = parse(data, episode_path(episode_id))
            except InvalidEpisodeError as error:
                self._set_aside(path, f"corrupt: {error}")
            else:
                corrected = bool(parsed.arrays.intervention.any())
                self._pending[episode_id] = Waiting(len(data), corrected, parsed.manifest.ended_ns)

    def _set_aside(self, path: pathlib.Path, reason: str) -> None:
        directory = self._directory / _SET_ASIDE
        directory.mkdir(exist_ok=True)
        name = path.name
        for attempt in range(1, 1000):
            if not (directory / name).exists():
                break
            name = f"{path.name}.{attempt}"
        record = json.dumps({"file": path.name, "reason": reason, "time_ns": self._clock.now_ns()}) + "\n"
        try:
            write_durably(directory / f"{name}.reason.json", record.encode())
        except OSError as error:
            if not is_disk_full(error):
                raise
            reason = f"(no room to write this down) {reason}"
        move_durably(path, directory / name)
        episode_id = path.name.removesuffix(_TMP_SUFFIX).removesuffix(_SUFFIX)
        self._metrics.write("set_aside", episode_id=episode_id, file=path.name, reason=reason[:300])

    def _path(self, episode_id: str) -> pathlib.Path:
        return self._directory / f"{episode_id}{_SUFFIX}"


def _lock(directory: pathlib.Path) -> int:
    """Locks the directory for this process; the lock goes with the process, however it ends."""
    file = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise ConfigError(
            f"spool {directory} is in use by another process; give every robot a spool directory of its own"
        ) from None
    return file

"""A robot's own account of what its spool accepted: written beside the spool, read by the checker and by nobody else.

One JSON line per step: what will be handed over, then what became of it. Each line is on the disk before the next step, so
that a killed robot leaves one open question at most: an episode that was announced and has no answer. Only a disk that takes
no lines makes them late: no robot stops for its ledger.
"""

import collections
import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Callable
from typing import final

from sop_jax.actors.actor import EpisodeAcceptor
from sop_jax.actors.durable_files import is_disk_full
from sop_jax.episodes.format import pack
from sop_jax.specs.records import Episode, Outcome

_MAX_LATE_LINES = 10_000
"""How many lines wait for a disk that takes none: a few dozen MB at most, days of episodes."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One announced episode. sha256: of its packed bytes, hex. image_frames: the frames whose images were kept.

    accepted: what the spool answered; None if the robot was killed before it could write that down. trains: it has an outcome
    that is trained on. ended_ns: when it ended, by the robot's clock; 0 in ledgers from before that was written down.
    """

    episode_id: str
    task: str
    source: str
    sha256: str
    num_bytes: int
    image_frames: tuple[int, ...]
    trains: bool
    accepted: bool | None = None
    ended_ns: int = 0


@final
class Ledger:
    """Implements `EpisodeAcceptor` around a spool: keeps the account and passes the episodes on.

        ledger = Ledger(pathlib.Path("ledger/robot-0.jsonl"), spool)
        Actor(config, robot, policy, ledger, clock)

    A line that can't be written waits for the next one and costs no episode: `tell` hears of it once, and at the end of
    what was never written. Packing an episode for its checksum costs as much again as the spool's own packing. Belongs to one
    thread.
    """

    def __init__(self, path: pathlib.Path, spool: EpisodeAcceptor, tell: Callable[[str], None] = lambda text: None):
        self._path = path
        self._spool = spool
        self._tell = tell
        self._has_told = False
        self._late: collections.deque[bytes] = collections.deque()
        self._num_lost = 0
        self._file: io.FileIO | None = None
        self._is_torn = False
        """The file ends in the middle of a line: a kill or a full disk cut it off."""
        try:
            self._open()
        except OSError as error:
            if not is_disk_full(error):  # a path that never works is better known at the start
                raise
            self._tell_once(error)

    @property
    def num_given_up(self) -> int:
        return self._spool.num_given_up

    @property
    def num_unwritten(self) -> int:
        """Lines that the disk hasn't taken, so far or for good."""
        return len(self._late) + self._num_lost

    def accept(self, episode: Episode) -> bool:
        """Hands the episode to the spool. Returns and raises what the spool does."""
        manifest, data = episode.manifest, pack(episode)
        entry = Entry(
            episode_id=manifest.episode_id,
            task=manifest.task,
            source=manifest.source.value,
            sha256=hashlib.sha256(data).hexdigest(),
            num_bytes=len(data),
            image_frames=tuple(episode.arrays.image_frames.tolist()),
            trains=manifest.outcome not in (Outcome.ERROR, Outcome.ABORTED),
            ended_ns=manifest.ended_ns,
        )
        self._write({"announced": dataclasses.asdict(entry)})
        accepted = self._spool.accept(episode) is not False
        self._write({"accepted": accepted, "episode_id": manifest.episode_id})
        return accepted

    def close(self) -> None:
        """Writes what is late, if the disk lets it. Raises nothing: others are closed after it."""
        self._write_late()
        if self.num_unwritten:
            self._tell(
                f"{self.num_unwritten} lines of the ledger {self._path} were not written: `sop doctor --drill` won't know "
                "these episodes"
            )
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _open(self) -> io.FileIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            self._is_torn = self._path.stat().st_size > 0 and not self._path.read_bytes().endswith(b"\n")
        return self._file

    def _write(self, line: dict[str, object]) -> None:
        self._late.append(json.dumps(line).encode() + b"\n")
        if len(self._late) > _MAX_LATE_LINES:
            self._late.popleft()
            self._num_lost += 1
        self._write_late()

    def _write_late(self) -> None:
        try:
            while self._late:
                self._append(self._late[0])
                self._late.popleft()
        except OSError as error:
            self._tell_once(error)

    def _append(self, line: bytes) -> None:
        """One line, on the disk. A line that was written and not synced is written again: the reader doesn't mind."""
        file = self._open()
        whole = b"\n" + line if self._is_torn else line
        num_bytes = file.write(whole) or 0
        if num_bytes:
            self._is_torn = num_bytes < len(whole)
        if num_bytes < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fsync(file.fileno())

    def _tell_once(self, error: OSError) -> None:
        if not self._has_told:
            self._has_told = True
            self._tell(f"the ledger {self._path} can't be written: {error}. Its lines wait; the robot acts on")


def read_ledgers(paths: list[pathlib.Path]) -> dict[str, Entry]:
    """All entries of several robots, by episode_id. Lines that a kill cut off are passed over.

    Raises ValueError if two lines announce one id with different bytes.
    """
    entries: dict[str, Entry] = {}
    for path in paths:
        for text in path.read_bytes().splitlines():
            line = _parse(text)
            if "announced" in line:
                values = line["announced"]
                entry = Entry(**{**values, "image_frames": tuple(values["image_frames"])})
                known = entries.setdefault(entry.episode_id, entry)
                if known.sha256 != entry.sha256:
                    raise ValueError(f"{path}: episode {entry.episode_id} is announced twice, with different bytes")
            elif line.get("episode_id") in entries:
                found = entries[line["episode_id"]]
                entries[found.episode_id] = dataclasses.replace(found, accepted=bool(line["accepted"]))
    return entries


def _parse(text: bytes) -> dict:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}

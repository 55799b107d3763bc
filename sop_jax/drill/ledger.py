"""A robot's own account of what its spool accepted: written beside the spool, read by the checker and by nobody else.

One JSON line per step: what will be handed over, then what became of it. Each line is on the disk before the next step, so
that a killed robot leaves one open question at most: an episode that was announced and has no answer.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import final

from sop_jax.actors.actor import EpisodeAcceptor
from sop_jax.episodes.format import pack
from sop_jax.specs.records import Episode, Outcome


@dataclasses.dataclass(frozen=True)
class Entry:
    """One announced episode. sha256: of its packed bytes, hex. image_frames: the frames whose images were kept.

    accepted: what the spool answered; None if the robot was killed before it could write that down. trains: it has an outcome
    that is trained on.
    """

    episode_id: str
    task: str
    source: str
    sha256: str
    num_bytes: int
    image_frames: tuple[int, ...]
    trains: bool
    accepted: bool | None = None


@final
class Ledger:
    """Implements `EpisodeAcceptor` around a spool: keeps the account and passes the episodes on.

        ledger = Ledger(pathlib.Path("ledger/robot-0.jsonl"), spool)
        Actor(config, robot, policy, ledger, clock)

    Packing an episode for its checksum costs as much again as the spool's own packing. Belongs to one thread.
    """

    def __init__(self, path: pathlib.Path, spool: EpisodeAcceptor):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._spool = spool
        self._file = path.open("ab")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a line that a kill cut off ends here

    @property
    def num_given_up(self) -> int:
        return self._spool.num_given_up

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
        )
        self._write({"announced": dataclasses.asdict(entry)})
        accepted = self._spool.accept(episode) is not False
        self._write({"accepted": accepted, "episode_id": manifest.episode_id})
        return accepted

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


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

"""The processes of a drill: `python -m sop_jax.drill.stations '{"role": "actor", ...}'`.

Robots are fakes without physics and the learner doesn't compute gradients; spool, store, intake, tables and item formats are
the real ones. A process ends with its parent.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from sop_jax.actors import spool as spool_module
from sop_jax.actors.durable_files import write_durably
from sop_jax.actors.episode import EpisodeHeader, run_episode
from sop_jax.actors.fake import FakePolicy, reads_goal
from sop_jax.actors.rollout import RolloutConfig
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.drill.ledger import Ledger, read_ledgers
from sop_jax.drill.place import TASK, Place
from sop_jax.episodes.images import decode_images
from sop_jax.episodes.store import EpisodeStore
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.items import decode_segment, label_all
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.tls import TlsFiles
from sop_jax.robots.fake import FakeRobot
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError, RateLimitedError, ReplayUnavailableError
from sop_jax.specs.identifiers import make_episode_id, online_table
from sop_jax.specs.interfaces import SampledItem

SEGMENT_LENGTH = 4
INSERT_TIMEOUT_S = 2.0
SAMPLE_TIMEOUT_S = 0.2
_PAUSE_S = 0.05
_CHECKPOINT_EVERY = 5
_STORE_SILENCE_S = 60.0
"""How long TensorStore waits for a silent server before it connects again."""


@dataclasses.dataclass(frozen=True)
class StationSpec:
    """What a process of the drill is told.

    parent: the process that it ends with. grace_s: what a call may take beyond its deadline on a busy machine.
    store: another store than the place's own. tls: folder of folders with certificates, one for each role. pause_s: between
    a robot's episodes.
    """

    role: str
    name: str
    place: str
    parent: int
    replay: str = ""
    seed: int = 0
    num_episodes: int = 0
    spool_bytes: int = 2**30
    clock_offset_s: float = 0.0
    grace_s: float = 20.0
    store: str = ""
    tls: str = ""
    pause_s: float = 0.05

    @property
    def where(self) -> Place:
        return Place(pathlib.Path(self.place), self.store)

    def open_tables(self) -> ReverbTables:
        folder = pathlib.Path(self.tls) / self.role
        return ReverbTables(self.replay, TlsFiles.in_folder(folder) if self.tls else None)


class OffsetClock(WallClock):
    """A machine whose time of day is wrong."""

    def __init__(self, offset_s: float):
        super().__init__()
        self._epoch_ns += round(offset_s * 1e9)


class CutLink:
    """The store as a robot sees it: away while a file says so."""

    def __init__(self, store: EpisodeStore, flag: pathlib.Path):
        self._store = store
        self._flag = flag

    def put_bytes(self, episode_id: str, data: bytes) -> object:
        if self._flag.exists():
            raise ConnectionError(f"the drill cut the link: no route to the store for {episode_id}")
        return self._store.put_bytes(episode_id, data)


def act(spec: StationSpec, alive: Callable[[], bool]) -> None:
    """A robot: makes its episodes, hands them to its spool, and stays until everything is uploaded and it is told to go."""
    place, clock = spec.where, OffsetClock(spec.clock_offset_s)
    _fill_disk_on_demand(place.disk_full(spec.name))
    sink = CutLink(EpisodeStore(place.store_url), place.link_cut(spec.name))
    config = SpoolConfig(first_retry_s=0.02, max_retry_s=0.2, max_bytes=spec.spool_bytes)
    spool = Spool(place.spool(spec.name), sink, clock, config=config)
    path = place.ledger(spec.name)
    num_made = len(read_ledgers([path])) if path.exists() else 0
    ledger, robot, started_ns = Ledger(path, spool), FakeRobot(clock=clock), clock.now_ns()
    for count in range(num_made, spec.num_episodes):
        if not alive():
            return
        header = EpisodeHeader(make_episode_id(spec.name, started_ns, count), seed=spec.seed * 1000 + count)
        episode = run_episode(robot, FakePolicy(reads_goal), None, header, RolloutConfig(), clock)
        with _deadline(place, spec, "accept", 0.0):
            ledger.accept(episode)
        time.sleep(spec.pause_s)
    ledger.close()
    place.idle(spec.name).touch()
    while alive():
        time.sleep(_PAUSE_S)


def take_in(spec: StationSpec, alive: Callable[[], bool]) -> None:
    """Intake, as `sop replay` runs it."""
    place = spec.where
    config = IntakeConfig(SEGMENT_LENGTH, insert_timeout_s=INSERT_TIMEOUT_S, items_per_insert=4, num_readers=2)
    intake = Intake(EpisodeStore(place.store_url), spec.open_tables(), label_all, config)
    while alive():
        # A look makes a handful of calls, and gives up after the first that fails; reads from the store know no deadline.
        with _deadline(place, spec, "look", 3 * INSERT_TIMEOUT_S + (_STORE_SILENCE_S if spec.store else 0.0)):
            intake.poll(lambda: not alive())
        time.sleep(_PAUSE_S)


def learn(spec: StationSpec, alive: Callable[[], bool]) -> None:
    """A learner without gradients: samples, reads what the items point to, checkpoints how far it came."""
    place = spec.where
    tables, store = spec.open_tables(), EpisodeStore(place.store_url)
    step = newest_checkpoint(place.checkpoints)
    with place.samples.open("a", encoding="utf-8") as log:
        while alive():
            rng = np.random.default_rng([spec.seed, step])
            try:
                with _deadline(place, spec, "sample", SAMPLE_TIMEOUT_S + 5.0):
                    items = tables.sample(online_table(TASK), 4, SAMPLE_TIMEOUT_S)
            except (RateLimitedError, ReplayUnavailableError):
                continue
            for item in items:
                log.write(json.dumps({"step": step, **look_at(store, item, rng)}) + "\n")
            log.flush()
            step += 1
            if step % _CHECKPOINT_EVERY == 0:
                place.checkpoints.mkdir(exist_ok=True)
                write_durably(place.checkpoints / f"{step:09d}.json", json.dumps({"step": step}).encode())
            time.sleep(_PAUSE_S)


def newest_checkpoint(directory: pathlib.Path) -> int:
    """The step to go on from; 0 without a checkpoint."""
    return max((int(path.stem) for path in directory.glob("*.json")), default=0)


def look_at(store: EpisodeStore, item: SampledItem, rng: np.random.Generator) -> dict[str, str | int]:
    """Reads one frame that an item points to, as the loader does; says what came of it."""
    segment = decode_segment(item.columns)
    told: dict[str, str | int] = {"episode_id": segment.episode_id, "key": item.key, "result": "good"}
    slot = int(rng.integers(len(segment.frames)))
    try:
        manifest, arrays = store.read_arrays(segment.path, segment.arrays_range)
        (jpegs,) = store.read_images([(segment.path, segment.image_ranges[slot])])
        decode_images(jpegs, manifest.cameras, segment.path)
    except EpisodeNotFoundError:
        return {**told, "result": "gone"}
    except InvalidEpisodeError as error:
        return {**told, "result": f"torn: {error}"}
    if manifest.episode_id != segment.episode_id or int(segment.frames[slot]) not in arrays.image_frames:
        return {**told, "result": f"foreign: {segment.path} holds {manifest.episode_id}"}
    return told


@contextlib.contextmanager
def _deadline(place: Place, spec: StationSpec, call: str, allowed_s: float) -> Iterator[None]:
    """Notes a call that took longer than allowed and the grace together."""
    started_s = time.monotonic()
    try:
        yield
    finally:
        took_s = time.monotonic() - started_s
        if took_s > allowed_s + spec.grace_s:
            line = json.dumps({"station": spec.name, "call": call, "took_s": took_s, "allowed_s": allowed_s})
            with place.overdue.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _fill_disk_on_demand(flag: pathlib.Path) -> None:
    """The spool's writes fail as on a full disk while the file exists."""

    def write(target: pathlib.Path, data: bytes) -> None:
        if flag.exists():
            raise OSError(errno.ENOSPC, "the drill filled the disk", str(target))
        write_durably(target, data)

    spool_module.write_durably = write


def main(argv: list[str]) -> None:
    spec = StationSpec(**json.loads(argv[0]))
    roles = {"actor": act, "intake": take_in, "learner": learn}
    roles[spec.role](spec, lambda: os.getppid() == spec.parent)


if __name__ == "__main__":
    main(sys.argv[1:])

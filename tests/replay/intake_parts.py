"""A store and tables that fail when told to, and an intake between them."""

from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.items import decode_segment, label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import Sampler, TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ReplayUnavailableError
from sop_jax.specs.interfaces import ReplayTables
from sop_jax.specs.records import Episode, Segment

TASK = "restock_shelf"
ONLINE, OFFLINE = f"{TASK}/online", f"{TASK}/offline"
CONFIG = IntakeConfig(segment_length=2, num_readers=2)
SPEC = make_spec(image_size=16, camera_names=("head",))
DUMP = tuple(TableConfig(name, 1000, sampler=Sampler.FIFO, max_times_sampled=1) for name in (ONLINE, OFFLINE))


class FlakyTables(LocalTables):
    """In-process tables that are away when told to be, and note every insert."""

    away = False
    away_after_inserts: int | None = None
    num_inserts = 0

    def insert(self, table, items, timeout_s=30.0):
        self._check()
        super().insert(table, items, timeout_s)
        self.num_inserts += 1
        if self.num_inserts == self.away_after_inserts:
            self.away = True

    def state_id(self, timeout_s=30.0):
        self._check()
        return super().state_id(timeout_s)

    def _check(self) -> None:
        if self.away:
            raise ReplayUnavailableError("away")


class FlakyStore(EpisodeStore):
    """A store of which some reads, listings or writes fail."""

    def __init__(self, url: str):
        super().__init__(url, clock=ManualClock())
        self.failing: set[str] = set()
        self.num_full_reads = 0

    def list_paths(self, robot_id=None):
        if "list" in self.failing:
            raise OSError("listing failed")
        return super().list_paths(robot_id)

    def read_bytes(self, path):
        self.num_full_reads += 1
        if path in self.failing:
            raise ValueError("UNAVAILABLE: connection reset")
        return super().read_bytes(path)

    def quarantine(self, path, reason, *, size=None):
        if "quarantine" in self.failing:
            raise OSError("read-only")
        super().quarantine(path, reason, size=size)


def episode(seed: int, **options) -> Episode:
    options.setdefault("spec", SPEC)
    return make_episode(seed, **{"num_frames": 9, "image_stride": 3, "task": TASK, **options})


def make_intake(store: EpisodeStore, tables: ReplayTables, labeler=label_all, **options) -> Intake:
    options.setdefault("clock", ManualClock(start_ns=50_000_000_000))
    return Intake(store, tables, labeler, options.pop("config", CONFIG), **options)


def drain(tables: ReplayTables, table: str) -> list[Segment]:
    """All segments of a first-in-first-out table, oldest first; empties it."""
    num = tables.info()[table].size
    return [decode_segment(item.columns) for item in tables.sample(table, num)] if num else []

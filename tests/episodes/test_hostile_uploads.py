"""Intake amid attacks: each is set aside with its reason, none ends the loop, and honest episodes train as before."""

import pathlib

import pytest
from hostile import attacks

from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode, make_spec
from sop_jax.replay.intake import Intake, IntakeConfig
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.items import decode_segment, label_all
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import Sampler, TableConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.identifiers import make_episode_id
from sop_jax.specs.metrics import MemoryMetrics

TABLES = tuple(
    TableConfig(f"synthetic/{kind}", 1000, Sampler.FIFO, max_times_sampled=1) for kind in ("online", "offline")
)
CONFIG = IntakeConfig(decode_all_images=True, num_readers=2)
SPEC = make_spec(image_size=16, camera_names=("head",))
START_NS = 1_000_000_000


def honest(count):
    return make_episode(count, num_frames=5, spec=SPEC, task="synthetic", takeovers=((0, 1, 3),))


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    return tmp_path / "store"


def upload_by_force(folder, robot, count, data) -> str:
    """As a hostile robot would: past `EpisodeStore`, straight into its own prefix."""
    path = episode_path(make_episode_id(robot, START_NS, count))
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return path


@pytest.mark.parametrize("owns_store", [True, False])
def test_every_attack_is_set_aside_and_the_honest_go_in(store_url, folder, owns_store):
    store = EpisodeStore(store_url)
    good = {store.put(honest(count)).path for count in (1, 50)}
    hostile = {}
    for count, (name, data) in enumerate(attacks(pack(honest(0))).items(), start=100):
        hostile[upload_by_force(folder, "robot-0", count, data)] = name
    stolen = upload_by_force(folder, "robot-7", 1, pack(honest(1)))  # another robot's episode under one's own prefix
    wrong = upload_by_force(folder, "robot-0", 2, pack(make_episode(2, num_frames=5, spec=SPEC, task="syntetic")))
    (folder / "episodes/robot-0/notes.txt").write_text("no episode")
    tables, metrics = LocalTables(TABLES), MemoryMetrics()
    intake = Intake(store, tables, label_all, CONFIG, ManualClock(START_NS), metrics, owns_store=owns_store)
    report = intake.poll()
    reasons = store.quarantined()
    if owns_store:
        bad = {*hostile, stolen, wrong}
        assert reasons[wrong].startswith("wrong task: 'syntetic' is none of this store's (synthetic)")
    else:  # told, and left to whoever else is filled from this store
        bad = {*hostile, stolen}
        (told,) = [event for event in metrics.events if event["event"] == "foreign_episode"]
        assert (told["path"], "unknown task" in told["reason"]) == (wrong, True)
    assert set(reasons) == bad
    assert (report.inserted, report.quarantined, report.unreadable) == (2, len(bad), 0)
    assert report.foreign == (0 if owns_store else 1)
    assert all(len(reason) > 40 for reason in reasons.values())
    assert "identity" in reasons[stolen]
    size = tables.info()["synthetic/online"].size
    assert {decode_segment(item.columns).path for item in tables.sample("synthetic/online", size)} == good
    assert intake.poll() == IntakeReport()
    store.put(honest(51))
    assert intake.poll().inserted == 1

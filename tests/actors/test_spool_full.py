"""A full spool, a full disk, and power cuts: nothing is lost without being counted."""

import contextlib
import errno
import json
import os
import pathlib
import threading

import pytest
from actor_parts import FlakyStore
from hypothesis import given, settings
from hypothesis import strategies as st
from power_cut import FragileDisk, PowerCut

from sop_jax.actors import spool as spool_module
from sop_jax.actors.durable_files import write_durably
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.actors.spool_room import Waiting, choose_victim
from sop_jax.episodes.format import pack
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.identifiers import make_episode_id, number_of_episode
from sop_jax.specs.metrics import MemoryMetrics

AWAY = ConnectionError("no route to the store")


def autonomous(count):
    return make_episode(seed=0, num_frames=3, image_size=16, count=count)


def corrected(count):
    return make_episode(seed=0, num_frames=3, image_size=16, count=count, takeovers=((0, 1, 2),))


SIZE = max(len(pack(make(count))) for make in (autonomous, corrected) for count in range(6))


def name(episode):
    return episode.manifest.episode_id


@pytest.fixture
def store(store_url):
    store = FlakyStore(store_url)
    store.broken = AWAY
    return store


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool"


def waiting(place):
    return sorted(path.stem for path in place.glob("*.zip"))


def marks(place):
    return sorted(path.name.removesuffix(".zip.given_up") for path in place.glob("*.given_up"))


def stored(store):
    return [path.rpartition("/")[2].removesuffix(".zip") for path in store.store.list_paths()]


def open_spool(place, store, room=3, metrics=None):
    return Spool(place, store, ManualClock(), metrics, SpoolConfig(max_bytes=room * SIZE), background=False)


def test_the_oldest_autonomous_episodes_go_first_and_interventions_last(store, place):
    metrics = MemoryMetrics()
    spool = open_spool(place, store, metrics=metrics)
    for episode in (corrected(0), autonomous(1), autonomous(2), corrected(3)):
        assert spool.accept(episode)
    assert waiting(place) == [name(corrected(0)), name(autonomous(2)), name(corrected(3))]
    assert spool.accept(corrected(4))
    assert waiting(place) == [name(corrected(count)) for count in (0, 3, 4)]
    assert not spool.accept(autonomous(5))  # worth less than all that waits
    assert spool.accept(corrected(6))
    assert waiting(place) == [name(corrected(count)) for count in (3, 4, 6)]
    lost = [event for event in metrics.events if event["event"] == "given_up"]
    assert [event["episode_id"] for event in lost] == [name(autonomous(count)) for count in (1, 2, 5, 0)]
    assert [event["corrected"] for event in lost] == [False, False, False, True]
    assert [event["num_given_up"] for event in lost] == [1, 2, 3, 4]
    assert "the spool is full" in str(lost[0]["reason"])
    assert spool.num_given_up == 4
    assert spool.pending_bytes <= 3 * SIZE
    spool.close()

    spool = open_spool(place, store)
    assert (spool.num_given_up, spool.num_pending) == (4, 3)
    assert spool.accept(autonomous(1)) is False  # the kinds are known again after a restart
    spool.close()


def test_an_episode_that_never_fits_costs_no_other(store, place):
    spool = Spool(place, store, ManualClock(), None, SpoolConfig(max_bytes=SIZE), background=False)
    assert spool.accept(autonomous(1))
    assert not spool.accept(make_episode(seed=0, num_frames=30, image_size=16, count=2))
    assert (waiting(place), spool.num_given_up) == ([name(autonomous(1))], 1)
    spool.close()


def test_the_episode_that_is_being_uploaded_is_never_given_up(store, place):
    store.broken = None
    uploading, go_on = threading.Event(), threading.Event()
    original = store.put_bytes
    store.put_bytes = lambda *call: (uploading.set(), go_on.wait(10), original(*call))[2]
    spool = Spool(place, store, WallClock(), config=SpoolConfig(max_bytes=2 * SIZE))
    spool.accept(autonomous(1))
    assert uploading.wait(10)
    spool.accept(autonomous(2))
    assert spool.accept(autonomous(3))
    assert marks(place) == [name(autonomous(2))]
    go_on.set()
    assert spool.drain(10.0)
    spool.close()
    assert stored(store) == [name(autonomous(1)), name(autonomous(3))]


IDS = [make_episode_id(robot, started_ns, count) for robot, started_ns, count in (
    ("robot-0", 2 * 10**18, 7), ("robot-0", 2 * 10**18, 8), ("robot-0", 3, 9), ("robot-0", 3, 11), ("renamed", 5, 10),
)]  # fmt: skip


@given(
    kinds=st.dictionaries(st.sampled_from(IDS), st.booleans(), min_size=1),
    busy=st.sets(st.sampled_from(IDS), max_size=1),
)
def test_the_victim_is_never_busy_and_never_a_correction_before_an_autonomous_one(kinds, busy):
    victim = choose_victim({key: Waiting(1, kind) for key, kind in kinds.items()}, busy)
    free = {key: kind for key, kind in kinds.items() if key not in busy}
    if victim is None:
        assert not free
        return
    assert victim in free
    rivals = [key for key, kind in free.items() if kind == free[victim]]
    assert number_of_episode(victim) == min(map(number_of_episode, rivals))
    assert not free[victim] or all(free.values())


def test_a_robot_started_without_the_date_gives_up_its_oldest_episodes_all_the_same(store, place):
    spool = open_spool(place, store)
    for count in (7, 8):
        assert spool.accept(make_episode(seed=0, num_frames=3, image_size=16, count=count, started_ns=17 * 10**17))
    spool.close()
    spool = open_spool(place, store)
    for count in (9, 10):  # it thinks that 1970 has just begun
        assert spool.accept(autonomous(count))
    assert [number_of_episode(episode_id) for episode_id in marks(place)] == [7]
    assert {number_of_episode(episode_id) for episode_id in waiting(place)} == {8, 9, 10}
    spool.close()


class SmallDisk:
    """Writes of whole files that fail once the spool's folder holds so many bytes."""

    def __init__(self, place: pathlib.Path, num_bytes: int, code: int = errno.ENOSPC):
        self.place, self.num_bytes, self.code = place, num_bytes, code

    def __call__(self, target, data):
        used = sum(path.stat().st_size for path in self.place.rglob("*") if path.is_file())
        if used + len(data) > self.num_bytes:
            target.with_name(target.name + ".tmp").write_bytes(data[: max(0, self.num_bytes - used)])
            target.with_name(target.name + ".tmp").unlink()
            raise OSError(self.code, os.strerror(self.code))
        write_durably(target, data)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_robot_goes_on(store, place, monkeypatch, code):
    monkeypatch.setattr(spool_module, "write_durably", SmallDisk(place, 2 * SIZE, code))
    metrics = MemoryMetrics()
    spool = open_spool(place, store, room=100, metrics=metrics)
    assert [spool.accept(corrected(count)) for count in (1, 2)] == [True, True]
    assert not spool.accept(autonomous(3))
    assert spool.accept(corrected(4))
    assert waiting(place) == [name(corrected(2)), name(corrected(4))]
    lost = [event for event in metrics.events if event["event"] == "given_up"]
    assert [event["episode_id"] for event in lost] == [name(autonomous(3)), name(corrected(1))]
    assert all("the disk is full" in str(event["reason"]) for event in lost)
    store.broken = None
    spool.close()
    spool = open_spool(place, store, room=100)
    assert spool.drain(1.0)
    assert (spool.num_given_up, stored(store)) == (2, [name(corrected(2)), name(corrected(4))])
    spool.close()


def test_a_disk_that_is_full_of_other_things(store, place, monkeypatch):
    spool = open_spool(place, store)
    monkeypatch.setattr(spool_module, "write_durably", SmallDisk(place, 0))
    assert not spool.accept(autonomous(1))
    assert (spool.num_given_up, marks(place), spool.num_pending) == (1, [name(autonomous(1))], 0)
    monkeypatch.setattr(spool_module, "write_durably", write_durably)
    assert spool.accept(autonomous(2))
    spool.close()


def test_a_broken_disk_is_no_full_disk(store, place, monkeypatch):
    spool = open_spool(place, store)
    monkeypatch.setattr(spool_module, "write_durably", SmallDisk(place, 0, errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        spool.accept(autonomous(1))
    assert spool.num_given_up == 0
    spool.close()


def test_half_a_file_on_a_full_disk_is_removed(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_durably(tmp_path / "a.zip", b"12345")
    assert list(tmp_path.iterdir()) == []


def test_setting_aside_on_a_full_disk_loses_only_the_written_reason(store, place, monkeypatch):
    spool = open_spool(place, store)
    spool.accept(autonomous(1))
    spool.close()
    file = place / f"{name(autonomous(1))}.zip"
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(spool_module, "write_durably", SmallDisk(place, 0))
    metrics = MemoryMetrics()
    open_spool(place, store, metrics=metrics).close()
    assert [path.name for path in (place / "set_aside").iterdir()] == [file.name]
    assert "no room to write this down" in str(metrics.events[0]["reason"])


def test_a_file_that_somebody_removed_is_counted_and_holds_nobody_up(store, place):
    store.broken = None
    metrics = MemoryMetrics()
    spool = open_spool(place, store, metrics=metrics)
    for count in (1, 2):
        spool.accept(autonomous(count))
    (place / f"{name(autonomous(1))}.zip").unlink()
    assert spool.drain(1.0)
    assert (stored(store), marks(place), spool.num_given_up) == ([name(autonomous(2))], [name(autonomous(1))], 1)
    (lost,) = [event for event in metrics.events if event["event"] == "given_up"]
    assert lost["reason"] == "somebody removed its file from the spool"
    spool.close()


def test_a_file_that_somebody_removed_from_a_full_spool_is_given_up_all_the_same(store, place):
    metrics = MemoryMetrics()
    spool = open_spool(place, store, metrics=metrics)
    for count in (1, 2, 3):
        assert spool.accept(autonomous(count))
    (place / f"{name(autonomous(1))}.zip").unlink()
    assert spool.accept(autonomous(4))
    assert (marks(place), spool.num_given_up) == ([name(autonomous(1))], 1)
    assert waiting(place) == [name(autonomous(count)) for count in (2, 3, 4)]
    (lost,) = [event for event in metrics.events if event["event"] == "given_up"]
    assert lost["episode_id"] == name(autonomous(1))
    store.broken = None
    assert spool.drain(10.0)
    assert stored(store) == [name(autonomous(count)) for count in (2, 3, 4)]
    spool.close()


def live(spool, store, accepted):
    """A short life: five episodes into room for three, an upload, one that the store refuses."""
    for episode in (autonomous(0), corrected(1), autonomous(2), corrected(3), autonomous(4)):
        if spool.accept(episode):
            accepted.add(name(episode))
    store.broken = None
    spool.upload_due()


def count_steps(root):
    with pytest.MonkeyPatch.context() as patch:
        disk = FragileDisk(patch, root / "spool")
        store = FlakyStore(f"file://{root}/store/")
        store.broken = AWAY
        spool = open_spool(root / "spool", store)
        live(spool, store, set())
        spool.close()
        return disk.num_steps


@pytest.mark.parametrize("worst", [True, False], ids=["unsynced_lost", "all_written"])
def test_a_power_cut_at_any_step_loses_nothing_uncounted(tmp_path, worst):
    """Whatever `accept` said yes to is afterwards in the store, in the spool, or marked as given up."""
    num_steps = count_steps(tmp_path / "whole")
    assert num_steps > 25
    for cut_at in range(1, num_steps + 1):
        root = tmp_path / str(cut_at)
        store = FlakyStore(f"file://{root}/store/")
        store.broken = AWAY
        accepted: set[str] = set()
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as opened:
            disk = FragileDisk(patch, root / "spool")
            disk.cut_at = cut_at
            with pytest.raises(PowerCut):
                live(opened.enter_context(contextlib.closing(open_spool(root / "spool", store))), store, accepted)
            disk.cut_at = None
        after = root / "after"
        after.mkdir()
        (disk.forget_unsynced if worst else disk.keep_everything)(after / "spool")
        spool = open_spool(after / "spool", store)
        store.broken = None
        assert spool.drain(1.0)
        assert accepted <= {*stored(store), *marks(after / "spool")}, f"cut at step {cut_at}"
        assert spool.num_given_up == len(marks(after / "spool"))
        spool.close()


def test_no_reason_is_written_for_marks(store, place):
    """A mark is no torn file: it stays where it is and is never uploaded."""
    spool = open_spool(place, store, room=1)
    spool.accept(corrected(1))
    assert not spool.accept(autonomous(2))
    spool.close()
    open_spool(place, store, room=1).close()
    assert not (place / "set_aside").exists()
    assert json.dumps(marks(place)) == json.dumps([name(autonomous(2))])


def test_an_empty_spool_is_refused():
    with pytest.raises(ConfigError, match="max_bytes"):
        SpoolConfig(max_bytes=0)


@given(plan=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=10))
@settings(max_examples=20)
def test_every_episode_is_in_the_store_or_counted(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("full")
    store = FlakyStore(f"file://{root}/store/")
    spool = open_spool(root / "spool", store, room=2)
    offered = set()
    for count, is_corrected, away in plan:
        store.broken = AWAY if away else None
        episode = (corrected if is_corrected else autonomous)(2 * count + is_corrected)
        spool.accept(episode)
        offered.add(name(episode))
        assert spool.pending_bytes <= 2 * SIZE
        if not away:
            spool.drain(100.0)
    store.broken = None
    assert spool.drain(200.0)
    spool.close()
    assert {*stored(store), *marks(root / "spool")} == offered

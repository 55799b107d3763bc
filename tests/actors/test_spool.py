import dataclasses
import errno
import json
import os
import pathlib
import threading

import pytest
from actor_parts import FlakyStore
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.actors import spool as spool_module
from sop_jax.actors.spool import Spool, SpoolConfig
from sop_jax.episodes.format import pack
from sop_jax.episodes.paths import episode_path
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.clock import ManualClock, WallClock
from sop_jax.specs.errors import ConfigError, EpisodeExistsError, InvalidEpisodeError
from sop_jax.specs.metrics import MemoryMetrics

AWAY = ConnectionError("no route to the store")


def small(count, **changes):
    return make_episode(seed=0, num_frames=3, image_size=16, count=count, **changes)


@pytest.fixture
def store(store_url):
    return FlakyStore(store_url)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool"


def ids(store):
    return [path.rpartition("/")[2].removesuffix(".zip") for path in store.store.list_paths()]


def names(place):
    return sorted(path.name for path in place.iterdir() if path.name != "lock")


def test_an_accepted_episode_is_on_the_disk_until_the_store_has_it(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    episode = small(1)
    spool.accept(episode)
    data = pack(episode)
    assert names(place) == [f"{episode.manifest.episode_id}.zip"]
    assert (place / names(place)[0]).read_bytes() == data
    assert (spool.num_pending, spool.pending_bytes) == (1, len(data))
    assert ids(store) == []

    assert spool.upload_due() == 1
    assert store.store.read_bytes(episode_path(episode.manifest.episode_id)) == data
    assert (names(place), spool.num_pending, spool.pending_bytes) == ([], 0, 0)
    spool.close()


def test_the_background_thread_uploads_oldest_first(store, place):
    with_lock = threading.Event()
    original = store.put_bytes
    store.put_bytes = lambda *call: (with_lock.wait(5), original(*call))[1]
    spool = Spool(place, store, WallClock())
    episodes = [small(count) for count in (3, 1, 2)]
    for episode in episodes:
        spool.accept(episode)
    with_lock.set()
    assert spool.drain(10.0)
    spool.close()
    assert sorted(store.attempts) == ids(store)
    assert store.attempts[1:] == sorted(store.attempts[1:])
    assert names(place) == []


def test_a_store_that_is_away_is_tried_again_later_and_later(store, place):
    clock, metrics = ManualClock(), MemoryMetrics()
    spool = Spool(place, store, clock, metrics, SpoolConfig(first_retry_s=1.0, max_retry_s=4.0), background=False)
    store.broken = AWAY
    spool.accept(small(1))
    spool.accept(small(2))
    waits = []
    for number in range(1, 6):
        assert spool.upload_due() == 0
        assert spool.upload_due() == 0  # Not due: no attempt.
        assert len(store.attempts) == number
        waits.append(metrics.events[-1]["retry_in_s"])
        clock.advance_s(waits[-1])
    for wait, full in zip(waits, [1, 2, 4, 4, 4], strict=True):
        assert full / 2 <= wait <= full
    assert spool.num_pending == 2
    assert "no route to the store" in metrics.events[-1]["reason"]

    store.broken = None
    assert spool.upload_due() == 2
    assert [event["event"] for event in metrics.events[-2:]] == ["upload", "upload"]
    assert [event["num_failures"] for event in metrics.events[-2:]] == [5, 0]
    assert [event["num_pending"] for event in metrics.events] == [1, 2, 2, 2, 2, 2, 2, 1, 0]
    assert metrics.events[1]["event"] == "accepted"
    assert metrics.events[1]["pending_bytes"] == sum(event["num_bytes"] for event in metrics.events[:2])
    assert metrics.events[-2]["pending_bytes"] == metrics.events[1]["num_bytes"]
    ended_s = small(1).manifest.ended_ns / 1e9
    assert metrics.events[-2]["upload_s"] == pytest.approx(sum(waits) - ended_s)
    spool.close()


def test_an_episode_that_the_store_refuses_holds_up_no_other(store, place):
    clock, metrics = ManualClock(), MemoryMetrics()
    spool = Spool(place, store, clock, metrics, background=False)
    refused = small(1).manifest.episode_id
    store.refused = {refused}
    for count in (1, 2, 3):
        spool.accept(small(count))
    assert not spool.drain(5.0)
    assert ids(store) == [small(count).manifest.episode_id for count in (2, 3)]
    for count in range(4, 50):  # new ones go up at once, while the first is tried again later and later
        clock.advance_s(30.0)
        spool.accept(small(count))
        assert spool.upload_due() == 1
    assert store.attempts.count(refused) <= 1 + 6 + 46
    waits = [event["retry_in_s"] for event in metrics.events if event["event"] == "upload_failed"]
    assert 30 <= waits[-1] <= 60
    assert (spool.num_pending, names(place)) == (1, [f"{refused}.zip"])

    store.refused = set()
    clock.advance_s(60.0)
    assert spool.upload_due() == 1
    spool.close()


def test_a_bad_sector_under_one_episode_holds_up_no_other(store, place, monkeypatch):
    clock, metrics = ManualClock(), MemoryMetrics()
    spool = Spool(place, store, clock, metrics, background=False)
    for count in (1, 2, 3):
        spool.accept(small(count))
    with monkeypatch.context() as patch:
        break_sector(patch, place / names(place)[0])
        assert spool.upload_due() == 2  # without any wait: the store is there
        assert "Input/output error" in str(metrics.events[3]["reason"])
    clock.advance_s(1.0)
    assert spool.upload_due() == 1  # the disk has thought better of it
    assert len(ids(store)) == 3
    spool.close()


def break_sector(patch, bad):
    real = pathlib.Path.read_bytes

    def read_bytes(self):
        if self == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self)

    patch.setattr(pathlib.Path, "read_bytes", read_bytes)


def test_a_file_that_cant_be_read_keeps_no_spool_from_starting(store, place, monkeypatch):
    spool = Spool(place, store, ManualClock(), background=False)
    for count in (1, 2):
        spool.accept(small(count))
    spool.close()
    bad, good = names(place)
    metrics = MemoryMetrics()
    with monkeypatch.context() as patch:
        break_sector(patch, place / bad)
        spool = Spool(place, store, ManualClock(), metrics, background=False)
        assert (spool.num_unreadable, spool.num_pending) == (1, 1)
        assert spool.drain(1.0)
        spool.close()
    assert (names(place), ids(store)) == ([bad], [good.removesuffix(".zip")])
    told = metrics.events[0]
    assert (told["event"], told["episode_id"], told["file"]) == ("unreadable", bad.removesuffix(".zip"), bad)
    assert "left in place: OSError: [Errno 5] Input/output error" in str(told["reason"])
    spool = Spool(place, store, ManualClock(), background=False)
    assert (spool.num_unreadable, spool.num_pending) == (0, 1)
    assert spool.drain(1.0)
    spool.close()


def test_a_disk_that_refuses_to_set_aside_keeps_no_spool_from_starting(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))
    spool.close()
    (place / "half.zip.tmp").write_bytes(b"half")
    (place / "set_aside").write_bytes(b"no folder")
    spool = Spool(place, store, ManualClock(), background=False)
    assert (spool.num_unreadable, spool.num_pending) == (1, 1)
    assert (place / "half.zip.tmp").exists()
    spool.close()


def test_a_clock_that_learns_the_date_makes_no_upload_last_for_decades(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))  # ended a second after 1970 began
    spool.close()
    metrics = MemoryMetrics()
    spool = Spool(place, store, ManualClock(1_790_000_000 * 10**9), metrics, background=False)
    assert spool.drain(1.0)
    spool.close()
    (event,) = metrics.events
    assert event["event"] == "upload"
    assert "upload_s" not in event


def test_the_thread_comes_back_by_itself(store, place):
    spool = Spool(place, store, WallClock(), config=SpoolConfig(0.01, 0.05))
    store.broken = AWAY
    spool.accept(small(1))
    assert not spool.drain(0.2)
    store.broken = None
    assert spool.drain(10.0)
    spool.close()
    assert len(ids(store)) == 1


@pytest.mark.timeout(60)
def test_a_store_that_hangs_keeps_nobody_from_closing(store, place, monkeypatch):
    monkeypatch.setattr(spool_module, "_CLOSE_S", 0.2)
    asked, go_on = threading.Event(), threading.Event()
    original = store.put_bytes
    store.put_bytes = lambda *call: (asked.set(), go_on.wait(), original(*call))[2]
    spool = Spool(place, store, WallClock())
    spool.accept(small(1))
    spool.accept(small(2))
    assert asked.wait(10)
    spool.close()
    with pytest.raises(ConfigError, match="in use"):  # by the thread that hangs
        Spool(place, store, WallClock(), background=False)
    go_on.set()
    assert spool._thread is not None
    spool._thread.join(10)
    assert ids(store) == [small(1).manifest.episode_id]  # what was under way; the next one wasn't begun
    assert [name for name in names(place) if name.endswith(".zip")] == [f"{small(2).manifest.episode_id}.zip"]


def test_a_new_spool_goes_on_where_the_last_one_stopped(store, place):
    store.broken = AWAY
    spool = Spool(place, store, ManualClock(), background=False)
    for count in (1, 2):
        spool.accept(small(count))
    spool.upload_due()
    spool.close()

    store.broken = None
    spool = Spool(place, store, ManualClock(), background=False)
    assert spool.num_pending == 2
    assert spool.drain(1.0)
    spool.close()
    assert len(ids(store)) == 2


def test_an_upload_that_was_acknowledged_but_not_yet_removed_is_harmless(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))
    spool.close()
    (file,) = (place / name for name in names(place))
    store.store.put_bytes(file.stem, file.read_bytes())  # The robot died between the store's answer and the removal.
    spool = Spool(place, store, ManualClock(), background=False)
    assert spool.drain(1.0)
    assert (names(place), len(ids(store))) == ([], 1)
    spool.close()


def test_accepting_twice_changes_nothing(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))
    spool.accept(small(1))
    assert spool.num_pending == 1
    spool.upload_due()
    spool.accept(small(1))
    assert spool.drain(1.0)
    assert len(ids(store)) == 1
    spool.close()


def test_what_was_written_before_the_disk_failed_is_taken_up_when_it_is_accepted_again(store, place, monkeypatch):
    metrics = MemoryMetrics()
    spool = Spool(place, store, ManualClock(), metrics, background=False)
    calls = []
    real = os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) in (2, 3):  # the folder, after the file has its name; and again
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            spool.accept(small(1))
        assert names(place) == [f"{small(1).manifest.episode_id}.zip"]
        assert spool.num_pending == 0
    assert spool.accept(small(1))
    assert (spool.num_pending, len(calls)) == (1, 4)
    assert [event["event"] for event in metrics.events] == ["accepted"]
    assert spool.accept(small(1))  # known by now
    assert (spool.num_pending, len(calls), len(metrics.events)) == (1, 4, 1)
    assert spool.drain(1.0)
    assert (ids(store), names(place)) == ([small(1).manifest.episode_id], [])
    spool.close()


def test_one_id_two_episodes(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))
    with pytest.raises(EpisodeExistsError, match="never be used twice"):
        spool.accept(small(1, policy_version=2))
    spool.upload_due()
    spool.accept(small(1, policy_version=2))  # The spool no longer knows; the store does.
    assert spool.drain(1.0)
    reasons = [json.loads(path.read_text()) for path in (place / "set_aside").glob("*.reason.json")]
    assert len(reasons) == 1
    assert reasons[0]["reason"].startswith("EpisodeExistsError")
    spool.close()


def test_torn_and_corrupt_leftovers_are_set_aside_with_a_reason(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    spool.accept(small(1))
    spool.accept(small(2))
    spool.close()
    first, second = (place / name for name in names(place))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    (place / "robot-0.00000000000000000009.000003.zip.tmp").write_bytes(b"half an epi")
    (place / "notes.txt").write_text("not ours")
    (place / "strange.zip").write_bytes(b"")

    metrics = MemoryMetrics()
    spool = Spool(place, store, ManualClock(), metrics, background=False)
    assert spool.num_pending == 1
    assert spool.drain(1.0)
    assert ids(store) == [second.stem]
    aside = sorted(path.name for path in (place / "set_aside").iterdir())
    torn = "robot-0.00000000000000000009.000003.zip.tmp"
    expected = [first.name, torn, "strange.zip"]
    assert aside == sorted([*expected, *(f"{name}.reason.json" for name in expected)])
    assert (place / "set_aside" / first.name).read_bytes() == data
    reason = json.loads((place / "set_aside" / f"{torn}.reason.json").read_text())["reason"]
    assert reason.startswith("torn")
    assert [event["event"] for event in metrics.events] == ["set_aside"] * 3 + ["upload"]
    assert (place / "notes.txt").exists()
    spool.close()


class PowerCut(BaseException):
    """The machine goes dark at this point."""


def test_a_power_cut_before_the_file_has_its_name_shows_no_episode(store, place, monkeypatch):
    spool = Spool(place, store, ManualClock(), background=False)

    def cut(source, target):
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(PowerCut):
            spool.accept(small(1))
    assert spool.num_pending == 0
    assert [name for name in names(place) if name.endswith(".zip")] == []
    spool.close()
    spool = Spool(place, store, ManualClock(), background=False)
    assert spool.num_pending == 0
    assert len(list((place / "set_aside").glob("*.zip.tmp"))) == 1
    spool.close()


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_answer(store, place, monkeypatch):
    spool = Spool(place, store, ManualClock(), background=False)
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    spool.accept(small(1))
    assert calls == ["fsync", "replace", "fsync"]
    spool.close()


def test_an_episode_that_contradicts_itself_is_refused_before_it_is_written(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    episode = small(1)
    with pytest.raises(InvalidEpisodeError):
        spool.accept(dataclasses.replace(episode, jpegs=episode.jpegs[:-1]))
    bad_id = dataclasses.replace(episode.manifest, episode_id="../../etc/passwd")
    with pytest.raises(InvalidEpisodeError):
        spool.accept(dataclasses.replace(episode, manifest=bad_id))
    assert (spool.num_pending, names(place)) == (0, [])
    spool.close()


def test_one_directory_one_process(store, place):
    spool = Spool(place, store, ManualClock(), background=False)
    with pytest.raises(ConfigError, match="in use by another process"):
        Spool(place, store, ManualClock(), background=False)
    spool.close()
    Spool(place, store, ManualClock(), background=False).close()


def test_a_drain_that_fails_says_so_in_time(store, place):
    clock = ManualClock()
    store.broken = AWAY
    spool = Spool(place, store, clock, background=False)
    spool.accept(small(1))
    assert not spool.drain(5.0)
    assert 5.0 <= clock.now_ns() / 1e9 < 5.2
    spool.close()


@given(
    plan=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["accept", "away", "back", "restart", "upload"])), max_size=12
    )
)
@settings(max_examples=25)
def test_nothing_is_lost_and_nothing_doubled(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("plan")
    store, clock = FlakyStore(f"file://{root}/store/"), ManualClock()
    spool = Spool(root / "spool", store, clock, background=False)
    accepted = set()
    for count, step in plan:
        if step == "accept":
            spool.accept(EPISODES[count])
            accepted.add(EPISODES[count].manifest.episode_id)
        elif step == "upload":
            clock.advance_s(100.0)
            spool.upload_due()
        elif step == "restart":
            spool.close()
            spool = Spool(root / "spool", store, clock, background=False)
        else:
            store.broken = AWAY if step == "away" else None
        stored = set(ids(store))
        assert stored <= accepted
        assert spool.num_pending >= len(accepted - stored)
    store.broken = None
    clock.advance_s(100.0)
    assert spool.drain(1.0)
    spool.close()
    assert ids(store) == sorted(accepted)


EPISODES = [small(count) for count in range(5)]


@pytest.mark.parametrize("wrong", [{"first_retry_s": 0.0}, {"first_retry_s": 2.0, "max_retry_s": 1.0}])
def test_wrong_settings_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match="first_retry_s"):
        SpoolConfig(**wrong)

"""What is wrong is found and explained; what is mended never costs anything whole."""

import os
import pathlib
import time

import pytest
from episode_strategies import small_spec
from recorded_store import Killed, watched

from sop_jax.episodes import kvstore, paths, retirement
from sop_jax.episodes.format import pack
from sop_jax.episodes.repair import (
    Finding,
    Kind,
    Repair,
    find_problems,
    finish_repairs,
    quarantine_bad,
    remove_found,
    restore_from_spool,
    take_back,
)
from sop_jax.episodes.retirement import RetirementRecord
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.episodes.wrong_task import wrong_task
from sop_jax.specs.records import Source


def tiny(seed):
    return make_episode(seed, num_frames=4, spec=small_spec)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    return tmp_path / "store"


@pytest.fixture
def store(store_url) -> EpisodeStore:
    return EpisodeStore(store_url)


def everything(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def kinds(store):
    return {finding.path: finding.kind for finding in find_problems(store)}


def damage(folder, path):
    data = bytearray((folder / path).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / path).write_bytes(data)


def test_a_whole_store_has_no_problems_and_looking_changes_nothing(store, folder):
    store.put(tiny(1))
    before = everything(folder)
    assert list(find_problems(store)) == []
    assert everything(folder) == before


def test_each_kind_is_told_apart_and_explained(store, folder):
    good, bad, gone, known = (store.put(tiny(seed)).path for seed in range(1, 5))
    damage(folder, bad)
    damage(folder, known)
    store.quarantine(known, "seen before")
    store.quarantine(gone, "too odd")
    (folder / gone).unlink()
    robot = folder / "episodes/robot-0"
    (robot / "notes.txt").write_text("hello")
    (robot / "copy-of.zip").write_bytes((folder / good).read_bytes())
    lock = robot / f"{pathlib.Path(gone).name}.__lock"
    lock.write_bytes(b"half")
    (robot / "young.zip.__lock").write_bytes(b"somebody writes this now")
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    record = folder / paths.retired_path(good)
    record.parent.mkdir(parents=True)
    record.write_text("{")
    found = {finding.path: finding for finding in find_problems(store)}
    assert {path: finding.kind for path, finding in found.items()} == {
        bad: Kind.CORRUPT,
        known: Kind.CORRUPT,
        "episodes/robot-0/notes.txt": Kind.STRANGER,
        "episodes/robot-0/copy-of.zip": Kind.MISPLACED,
        f"episodes/robot-0/{lock.name}": Kind.LEFTOVER,
        paths.quarantine_path(gone): Kind.ORPHAN,
        paths.retired_path(good): Kind.DAMAGED_RECORD,
    }
    assert [found[bad].set_aside, found[known].set_aside] == [False, True]
    assert "robot-0" in found[bad].reason
    assert f"{good} is its path" in found["episodes/robot-0/copy-of.zip"].reason
    assert "4 bytes of a writer that was killed" in found[f"episodes/robot-0/{lock.name}"].reason
    assert [finding.path for finding in find_problems(store, "robot-0")] == [bad, known]


def test_an_upload_that_ends_while_leftovers_are_looked_for_is_none(store, folder, monkeypatch):
    """TensorStore renames its lock file to the object's name."""
    path = store.put(tiny(1)).path
    old, live = (folder / f"episodes/robot-0/{name}.zip.__lock" for name in ("old", "live"))
    for lock in (old, live):
        lock.write_bytes(b"half")
        os.utime(lock, (time.time() - 7200, time.time() - 7200))
    real = pathlib.Path.stat

    def stat(self, **options):
        if self == live:
            self.unlink(missing_ok=True)
        return real(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "stat", stat)
        found = [(finding.path, finding.kind) for finding in find_problems(store)]
    assert not live.exists()
    assert found == [("episodes/robot-0/old.zip.__lock", Kind.LEFTOVER)]
    assert store.list_paths() == [path]


def test_corrupt_episodes_are_set_aside_once_with_the_reason(store, folder):
    bad = store.put(tiny(1)).path
    damage(folder, bad)
    findings = list(find_problems(store))
    assert quarantine_bad(store, findings) == [Repair(bad, "quarantined")]
    assert store.quarantined() == {bad: findings[0].reason}
    assert (folder / bad).exists()
    assert quarantine_bad(store, list(find_problems(store))) == []


def test_whole_episodes_of_a_wrong_task_are_set_aside_where_somebody_says_the_tasks(store):
    right = store.put(make_episode(1, num_frames=4, spec=small_spec, task="box_assembly")).path
    wrong = store.put(make_episode(2, num_frames=4, spec=small_spec, task="box_asembly")).path
    assert list(find_problems(store)) == []
    findings = list(find_problems(store, tasks=("box_assembly", "restock_shelf")))
    assert [(finding.path, finding.kind, finding.set_aside) for finding in findings] == [
        (wrong, Kind.WRONG_TASK, False)
    ]
    assert quarantine_bad(store, findings) == [Repair(wrong, "quarantined")]
    right_ones = "box_assembly, restock_shelf"
    reason = f"wrong task: 'box_asembly' is none of this store's ({right_ones}). Did the robot mean 'box_assembly'?"
    assert store.quarantined() == {wrong: reason}
    assert store.list_paths() == sorted([right, wrong])
    (again,) = find_problems(store, tasks=("box_assembly",))
    assert again.set_aside
    assert list(find_problems(store)) == []


def test_only_those_set_aside_for_a_task_that_is_right_are_taken_back(store, folder):
    paths_of = {
        name: store.put(make_episode(count, num_frames=4, spec=small_spec, task="box_asembly")).path
        for count, name in enumerate(("task", "labels", "torn"))
    }
    set_aside = Finding(paths_of["task"], Kind.WRONG_TASK, wrong_task("box_asembly", ["box_assembly"]))
    assert quarantine_bad(store, [set_aside]) == [Repair(paths_of["task"], "quarantined")]
    store.quarantine(paths_of["labels"], "episode can't be labelled: another robot's joints")
    store.quarantine(paths_of["torn"], set_aside.reason)
    damage(folder, paths_of["torn"])
    assert take_back(store, list(find_problems(store))) == []  # nobody said which tasks are right
    findings = list(find_problems(store, tasks=("box_asembly",)))
    assert {finding.path: finding.kind for finding in findings} == {
        paths_of["task"]: Kind.RIGHT_TASK,
        paths_of["torn"]: Kind.CORRUPT,
    }
    assert quarantine_bad(store, findings) == []
    assert take_back(store, findings) == [Repair(paths_of["task"], "restored")]
    assert set(store.quarantined()) == {paths_of["labels"], paths_of["torn"]}


def test_only_what_was_confirmed_is_removed(store, folder):
    good = store.put(tiny(1)).path
    (folder / "episodes/robot-0/notes.txt").write_text("hello")
    misplaced = folder / "episodes/robot-0/copy-of.zip"
    misplaced.write_bytes((folder / good).read_bytes())
    lock = folder / f"{good}.__lock"
    lock.write_bytes(b"half")
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    findings = list(find_problems(store))
    assert remove_found(store, findings, ()) == []
    assert remove_found(store, findings, (Kind.LEFTOVER,)) == [Repair(f"{good}.__lock", "removed")]
    assert (folder / "episodes/robot-0/notes.txt").exists()
    remove_found(store, findings, (Kind.STRANGER, Kind.ORPHAN))
    assert kinds(store) == {"episodes/robot-0/copy-of.zip": Kind.MISPLACED}
    assert misplaced.read_bytes() == store.read_bytes(good)
    for kind in (Kind.MISPLACED, Kind.CORRUPT, Kind.DAMAGED_RECORD):
        with pytest.raises(ValueError, match="never removed"):
            remove_found(store, [Finding(good, kind, "")], (kind,))
    assert store.list_paths() == [good]


def test_an_episode_of_a_newer_version_under_a_wrong_name_is_no_rubbish(store, folder):
    store.put(tiny(1))
    data = pack(tiny(2)).replace(b'"schema_version": 1', b'"schema_version": 9')
    (folder / "episodes/robot-0/strange.zip").write_bytes(data)
    assert kinds(store) == {"episodes/robot-0/strange.zip": Kind.MISPLACED}


def test_a_spool_gives_back_what_is_corrupt_or_missing_and_touches_nothing_else(store, folder, tmp_path):
    whole, bad, missing, hopeless, retired = (store.put(tiny(seed)).path for seed in range(1, 6))
    spool = tmp_path / "spool"
    (spool / "set_aside").mkdir(parents=True)
    for path in (whole, missing, retired):
        (spool / pathlib.Path(path).name).write_bytes((folder / path).read_bytes())
    (spool / "set_aside" / pathlib.Path(bad).name).write_bytes((folder / bad).read_bytes())
    for path in (bad, hopeless):
        damage(folder, path)
        store.quarantine(path, "flipped")
    (spool / pathlib.Path(hopeless).name).write_bytes((folder / hopeless).read_bytes())  # the copy is as bad
    (spool / "strange.zip").write_bytes(b"?")
    retirement.retire(store, RetirementRecord(retired, "synthetic", Source.ONLINE, 4, 1, "", 0))
    for path in (missing, retired):
        (folder / path).unlink()
    before = everything(spool)
    repairs = restore_from_spool(store, list(find_problems(store)), spool)
    assert {repair.path for repair in repairs} == {bad, missing}
    assert {repair.action for repair in repairs} == {"restored"}
    assert store.list_paths() == [whole, bad, missing, hopeless]
    assert kinds(store) == {hopeless: Kind.CORRUPT}
    assert list(store.quarantined()) == [hopeless]
    assert everything(spool) == before
    assert restore_from_spool(store, list(find_problems(store)), spool) == []


def torn_with_a_copy(store, folder, spool, seeds=(1,)):
    """Paths of episodes that are corrupt in the store, set aside, and whole in the spool."""
    spool.mkdir()
    found = []
    for seed in seeds:
        path = store.put(tiny(seed)).path
        (spool / pathlib.Path(path).name).write_bytes(store.read_bytes(path))
        damage(folder, path)
        store.quarantine(path, "flipped")
        found.append(path)
    return found


def test_nothing_is_written_over_and_the_record_goes_when_the_copy_is_there(store, store_url, folder, tmp_path):
    (path,) = torn_with_a_copy(store, folder, tmp_path / "spool")
    findings = list(find_problems(store))
    other, recorder = watched(store_url)
    restore_from_spool(other, findings, tmp_path / "spool")
    mark, record = paths.repair_path(path), paths.quarantine_path(path)
    assert [request for request in recorder.requests if request[0] not in ("get", "list")] == [
        ("create", mark), ("delete", path), ("create", path), ("delete", record), ("delete", mark),
    ]  # fmt: skip
    assert list(everything(folder)) == [path]


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 6))
def test_a_repair_that_is_killed_anywhere_is_finished_by_the_next(store, store_url, folder, tmp_path, step, done_first):
    (path,) = torn_with_a_copy(store, folder, tmp_path / "spool")
    other, _ = watched(store_url, step, done_first)
    with pytest.raises(Killed):
        restore_from_spool(other, list(find_problems(other)), tmp_path / "spool")
    findings = list(find_problems(store))
    if step < 5 or not done_first:
        assert findings
    if (path, Kind.CORRUPT) not in [(finding.path, finding.kind) for finding in findings] and step < 4:
        assert list(store.quarantined()) == [path]  # nobody reads it meanwhile
    done = finish_repairs(store, findings) + restore_from_spool(store, findings, tmp_path / "spool")
    assert done in ([], [Repair(path, "restored")])
    assert (store.list_paths(), list(find_problems(store)), store.quarantined()) == ([path], [], {})
    assert list(everything(folder)) == [path]


def test_a_repair_that_was_cut_short_is_found_for_its_robot_and_waits_for_the_copy(store, folder, tmp_path):
    (path,) = torn_with_a_copy(store, folder, tmp_path / "spool")
    kvstore.create(store.root, paths.repair_path(path), b"")
    (folder / path).unlink()
    findings = list(find_problems(store))
    assert [(finding.path, finding.kind) for finding in findings] == [
        (path, Kind.UNFINISHED), (paths.quarantine_path(path), Kind.ORPHAN),
    ]  # fmt: skip
    assert "with --from-spool" in findings[0].reason
    assert [finding.path for finding in find_problems(store, "robot-0")] == [path]
    assert list(find_problems(store, "robot-1")) == []
    assert finish_repairs(store, findings) == []
    with pytest.raises(ValueError, match="never removed"):
        remove_found(store, findings, (Kind.UNFINISHED,))
    assert restore_from_spool(store, findings, tmp_path / "spool") == [Repair(path, "restored")]
    assert list(find_problems(store)) == []


def test_what_is_whole_and_set_aside_by_hand_stays_so(store, tmp_path):
    path = store.put(tiny(1)).path
    (tmp_path / pathlib.Path(path).name).write_bytes(store.read_bytes(path))
    store.quarantine(path, "somebody has doubts")
    assert restore_from_spool(store, list(find_problems(store)), tmp_path) == []
    assert list(store.quarantined()) == [path]


def test_a_repair_that_fails_is_told_and_stops_no_other(store, folder, tmp_path, monkeypatch):
    first, second = torn_with_a_copy(store, folder, tmp_path / "spool", (1, 2))
    findings = list(find_problems(store))
    real = kvstore.remove

    def remove(root, key):
        if key == first:
            raise PermissionError("403 AccessDenied")
        real(root, key)

    with monkeypatch.context() as patch:
        patch.setattr(kvstore, "remove", remove)
        assert restore_from_spool(store, findings, tmp_path / "spool") == [
            Repair(first, "failed", "PermissionError: 403 AccessDenied"), Repair(second, "restored"),
        ]  # fmt: skip
    assert list(store.quarantined()) == [first]
    findings = list(find_problems(store))
    assert {(finding.path, finding.kind, finding.set_aside) for finding in findings} == {
        (first, Kind.CORRUPT, True), (first, Kind.UNFINISHED, False),
    }  # fmt: skip
    assert restore_from_spool(store, findings, tmp_path / "spool") == [Repair(first, "restored")]


def test_an_object_that_was_mended_meanwhile_stays(store, folder, tmp_path):
    """Another whole episode under the same id: nobody's to remove."""
    (path,) = torn_with_a_copy(store, folder, tmp_path / "spool")
    findings = list(find_problems(store))
    theirs = pack(make_episode(1, num_frames=4, spec=small_spec, policy_version=9))
    (folder / path).write_bytes(theirs)
    (repair,) = restore_from_spool(store, findings, tmp_path / "spool")
    assert (repair.action, repair.path) == ("failed", path)
    assert "EpisodeExistsError" in repair.problem
    assert store.read_bytes(path) == theirs


def test_reads_that_fail_stop_no_other_repair(store, folder, tmp_path, monkeypatch):
    first, second = torn_with_a_copy(store, folder, tmp_path / "spool", (1, 2))
    unfinished = [Finding(path, Kind.UNFINISHED, "") for path in (first, second)]
    corrupt = [Finding(path, Kind.CORRUPT, "flipped") for path in (first, second)]
    (tmp_path / "spool" / pathlib.Path(first).name).unlink()
    (tmp_path / "spool" / pathlib.Path(first).name).mkdir()  # no file, and no reading it
    (failed, restored) = restore_from_spool(store, corrupt, tmp_path / "spool")
    assert (failed.path, failed.action, restored) == (first, "failed", Repair(second, "restored"))
    assert "IsADirectoryError" in failed.problem
    assert pathlib.Path(first).name in failed.problem
    real = store.read_bytes

    def read_bytes(path):
        if path == first:
            raise ConnectionError("no route to the store")
        return real(path)

    monkeypatch.setattr(store, "read_bytes", read_bytes)
    failure = Repair(first, "failed", "ConnectionError: no route to the store")
    assert finish_repairs(store, unfinished) == [failure, Repair(second, "restored")]
    assert quarantine_bad(store, corrupt) == [failure, Repair(second, "quarantined")]


def test_what_is_gone_meanwhile_is_not_set_aside(store, folder):
    bad = store.put(tiny(1)).path
    damage(folder, bad)
    findings = list(find_problems(store))
    (folder / bad).unlink()
    assert quarantine_bad(store, findings) == []
    assert store.quarantined() == {}

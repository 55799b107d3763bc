"""What is wrong is found and explained; what is mended never costs anything whole."""

import os
import pathlib
import time

import pytest
from episode_strategies import small_spec

from sop_jax.episodes import paths, retirement
from sop_jax.episodes.format import pack
from sop_jax.episodes.repair import (
    Finding,
    Kind,
    Repair,
    find_problems,
    quarantine_corrupt,
    remove_found,
    restore_from_spool,
)
from sop_jax.episodes.retirement import RetirementRecord
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
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


def test_corrupt_episodes_are_set_aside_once_with_the_reason(store, folder):
    bad = store.put(tiny(1)).path
    damage(folder, bad)
    findings = list(find_problems(store))
    assert quarantine_corrupt(store, findings) == [Repair(bad, "quarantined")]
    assert store.quarantined() == {bad: findings[0].reason}
    assert (folder / bad).exists()
    assert quarantine_corrupt(store, list(find_problems(store))) == []


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
